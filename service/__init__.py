"""Engagement Scoring: events about people become one exact number per person."""

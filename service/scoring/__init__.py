"""Floor 0, pure: what an event is, what a score is, and how one changes the other."""

"""From bytes to events: framing, and one decoder or mapping per source."""

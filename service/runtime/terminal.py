"""What the terminal of this process is like."""

from __future__ import annotations

import os


def decorated() -> bool:
    """Return whether bold and colours are wanted (https://no-color.org); a dumb terminal has none."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

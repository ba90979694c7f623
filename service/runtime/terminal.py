"""Capabilities of this process's terminal."""

from __future__ import annotations

import os


def decorated() -> bool:
    """Return whether bold text and colors are wanted (https://no-color.org); a dumb terminal has none."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

"""What the positions in the leases belong to: what their consumer writes to. Pure.

A position says "everything up to here is dealt with" of one score table. With a table restored from a backup it is not
true: what came between the backup and now is in no score of that table, and would never be read again.

A target is a name, or a name, a space and an id that tells one thing from another made later under its name.
"""

from __future__ import annotations


def other(before: str, now: str) -> bool:
    """Return whether two targets are known to be different; empty ones are not known."""
    if not before or not now:
        return False
    (name, _, made), (other_name, _, other_made) = before.partition(" "), now.partition(" ")
    return name != other_name or bool(made and other_made and made != other_made)

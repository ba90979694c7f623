r"""Paths into decoded JSON: a small compiled walker.

Syntax, read from left to right:

| written | meaning |
|---|---|
| `user.id` | keys, separated by dots |
| `mail.tags."ses:campaign"` | a key with other characters, in double or single quotes; `\` escapes |
| `tags[0]` | an element of an array, counted from 0 |
| `recipients[*].email` | every element of an array; at most once in a path |
| `$.time` | from the top of the event, where a source's `within` starts paths deeper inside |

JSON's null counts as absent. A key is never looked for in an array or a text, nor an index in an object
or a text.

Measured on a 1,000-byte envelope of SES, eight paths: a walker of this kind 1.0 us, JMESPath 20 us, python-jsonpath
65 us. Sources walk several paths at once: `getters.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

MAX_PATH_LENGTH = 500
"""Longest path accepted, in characters."""

MAX_STEPS = 32
"""Most keys and indexes in a path."""

MAX_INDEX = 9_999

Step = str | int
Steps = tuple[Step, ...]

_PLAIN = re.compile(r"[^\s.\[\]{}\"'*=,|$\\()<>]+")
_INDEX = re.compile(r"\[\s*(\d{1,9}|\*)\s*\]")
_QUOTED = re.compile(r"\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'")
_ESCAPED = re.compile(r"\\(.)")


class PathError(ValueError):
    """A path that cannot be read; the message says where and what is expected."""


class Path(msgspec.Struct, frozen=True):
    """A compiled path.

    Attributes:
        text: As written.
        steps: Keys and indexes; up to `[*]` where there is one.
        rest: What follows `[*]`; None without one.
        from_top: Whether it starts with `$`.
    """

    text: str
    steps: Steps
    rest: Steps | None = None
    from_top: bool = False

    def find(self, tree: object) -> object:
        """Return what is there, None where nothing is; for a path with `[*]`, the first element that has something."""
        found = walk(tree, self.steps)
        if self.rest is None:
            return found
        for element in elements(found):
            if (inner := walk(element, self.rest)) is not None:
                return inner
        return None


def walk(tree: object, steps: Steps) -> object:
    """Return what the steps lead to, or None."""
    for step in steps:
        if type(tree) is dict:
            tree = tree.get(step)
        elif type(tree) is list and type(step) is int and step < len(tree):
            tree = tree[step]
        else:
            return None
    return tree


def elements(found: object) -> list[object]:
    """Return the elements that `[*]` stands for: those of an array; one where a single value stands in its place."""
    if type(found) is list:
        return found
    return [] if found is None else [found]


def lookup(path: Path, absent: object = None) -> Callable[[object], object]:
    """Return a function from a decoded event to what is at the path, or to `absent`."""

    def find(tree: object) -> object:
        found = path.find(tree)
        return absent if found is None else found

    return find


def parse_path(text: str) -> Path:
    """Compile a path.

    Raises:
        PathError: It is not a path.
    """
    if not text.strip():
        raise PathError("a path must not be empty; write for example user.id")
    if len(text) > MAX_PATH_LENGTH:
        raise PathError(f"a path has at most {MAX_PATH_LENGTH} characters, this one has {len(text)}")
    steps: list[Step] = []
    star = -1
    at, from_top = (1, True) if text.startswith("$") else (0, False)
    while at < len(text):
        at, step = _next(text, at, first=at == 0)
        if step is None:
            if star >= 0:
                raise PathError(f"[*] can stand only once in a path: {_shown(text)}")
            star = len(steps)
        else:
            steps.append(step)
        if len(steps) > MAX_STEPS:
            raise PathError(f"a path has at most {MAX_STEPS} steps: {_shown(text)}")
    if star < 0:
        return Path(text, tuple(steps), None, from_top)
    return Path(text, tuple(steps[:star]), tuple(steps[star:]), from_top)


def _next(text: str, at: int, *, first: bool) -> tuple[int, Step | None]:
    """Read one step at `at`; return where the next begins, and the step (None: `[*]`)."""
    if text[at] == "[":
        match = _INDEX.match(text, at)
        if match is None:
            raise PathError(f"at character {at + 1} of {_shown(text)}: after [ comes an index from 0 or *, then ]")
        index = match.group(1)
        if index == "*":
            return match.end(), None
        if int(index) > MAX_INDEX:
            raise PathError(f"at character {at + 1} of {_shown(text)}: the largest index is {MAX_INDEX}")
        return match.end(), int(index)
    if text[at] == "." and not first:
        at += 1
    elif not first:
        raise PathError(f"at character {at + 1} of {_shown(text)}: a dot or [ is expected here")
    if (match := _QUOTED.match(text, at)) is not None:
        quoted = match.group(1) if match.group(1) is not None else match.group(2)
        return match.end(), _ESCAPED.sub(r"\1", quoted)
    if (match := _PLAIN.match(text, at)) is not None:
        return match.end(), match.group()
    raise PathError(
        f"at character {at + 1} of {_shown(text)}: a key is expected here; a key with dots, spaces or other signs "
        'goes in quotes, for example tags."ses:campaign"'
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")  # noqa: PLR2004 - a line's worth

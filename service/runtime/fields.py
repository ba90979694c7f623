"""Reading a field's value from an environment variable, by the field's declaration. Pure.

A field is declared by its type, `Annotated` with its description. Kept small and without pydantic, which costs
every worker 14 MiB and 0.15 s (deploy/decisions/0006-idle-start-memory.md).
"""

from __future__ import annotations

import hmac
import math
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec


class Secret:
    """A text that nothing shows: not a log line, an error, a traceback or `repr`. Only `reveal` returns it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(other._text.encode(), self._text.encode())

    def __hash__(self) -> int:
        return hash(Secret)

    def __repr__(self) -> str:
        return "Secret(...)" if self._text else "Secret('')"


_ON = frozenset({"on", "true", "yes", "1", "t", "y"})
_OFF = frozenset({"off", "false", "no", "0", "f", "n"})


class Form(msgspec.Struct, frozen=True):
    """What a field accepts beyond its type.

    Attributes:
        expected: Description for messages: `a table name: 3 to 255 letters`.
        fault: What is wrong with any other text: `is not a table name`.
        pattern: What the text must match.
        read: Converts the text; may raise `ValueError`, whose message is the fault.
        empty: Whether an empty list is valid.
    """

    expected: str
    fault: str = ""
    pattern: re.Pattern[str] | None = None
    read: Callable[[str], object] | None = None
    empty: bool = True


class About(msgspec.Struct, frozen=True):
    """A field's documentation and bounds.

    Attributes:
        description: What it does, for the documentation.
        form: See `Form`.
        default: The default as documented, if it is not a constant.
        ge: Lower bound, inclusive.
        gt: Lower bound, exclusive; used if there is no inclusive one.
        le: Upper bound, inclusive.
    """

    description: str
    form: Form | None = None
    default: str = ""
    ge: float = -math.inf
    gt: float = -math.inf
    le: float = math.inf


class Field(msgspec.Struct, frozen=True):
    """A field as declared: its type, its default, and its documentation."""

    kind: Any
    default: Any
    about: About


def fields_of(settings: type[msgspec.Struct]) -> dict[str, Field]:
    """Return the documented fields, in order."""
    found = {}
    for field in msgspec.structs.fields(settings):
        if get_origin(field.type) is Annotated:
            kind, said = get_args(field.type)
            found[field.name] = Field(kind, field.default, said)
    return found


def read(field: Field, text: str) -> object:
    """Return the value of a text.

    Raises:
        ValueError: The text is invalid; the message says why, as in `= 'x' is not a valid number`.
    """
    form = field.about.form
    if form is not None and form.read is not None:
        return form.read(text)
    if field.kind is Secret:
        return Secret(text)
    if field.kind in (int, float):
        return _number(field, text)
    if field.kind is bool:
        word = text.lower()
        if word in _ON or word in _OFF:
            return word in _ON
        raise ValueError("is not an accepted value")
    if get_origin(field.kind) is tuple:
        return _list(field, text)
    choices = _choices(field.kind)
    if choices:
        return _choice(choices, text.lower())
    if form is not None and form.pattern is not None and not form.pattern.fullmatch(text):
        raise ValueError(form.fault)
    return text


def expected(field: Field) -> str:
    """Return what a field accepts, for messages: `a whole number from 1 to 300`."""
    about = field.about
    if about.form is not None:
        return about.form.expected
    if field.kind is bool:
        return "`on` or `off`"
    if field.kind in (int, float):
        number = "a whole number" if field.kind is int else "a number"
        low = f"from {about.ge:,}" if about.ge > -math.inf else f"above {about.gt:,}"
        return f"{number} {low} to {about.le:,}"
    if field.kind is Secret:
        return "a secret text; never shown"
    return " or ".join(f"`{choice}`" for choice in _choices(field.kind)) or "a text"


def _number(field: Field, text: str) -> float:
    try:
        number: float = field.kind(text)
    except ValueError:
        raise ValueError("is not a valid number") from None
    about = field.about
    if math.isnan(number):
        raise ValueError("is not a valid number")
    if not about.ge <= number <= about.le or number <= about.gt:
        raise ValueError("is out of bounds")
    return number


def parts_of(text: str) -> tuple[str, ...]:
    """Return the parts between commas, blanks and repeats left out."""
    return tuple(dict.fromkeys(part for part in (part.strip() for part in text.split(",")) if part))


def _list(field: Field, text: str) -> tuple[str, ...]:
    """Split at commas; drop blanks and duplicates."""
    parts = parts_of(text)
    choices = _choices(get_args(field.kind)[0])
    if choices:
        for part in parts:
            _choice(choices, part)
    if not parts and field.about.form is not None and not field.about.form.empty:
        raise ValueError("is not an accepted value")
    return parts


def _choice(choices: tuple[str, ...], word: str) -> str:
    if word not in choices:
        raise ValueError("is not an accepted value")
    return word


def _choices(kind: Any) -> tuple[str, ...]:  # noqa: ANN401 # a type
    """Return the accepted texts of a `Literal`, which may be optional."""
    literals = [part for part in (kind, *get_args(kind)) if get_origin(part) is Literal]
    return tuple(choice for literal in literals for choice in get_args(literal))

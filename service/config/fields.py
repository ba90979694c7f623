"""What an environment variable's text means: a field's declaration, read, and a value read by it. Pure.

A field is declared by its type, `Annotated` with what is to be said of it. Kept small and free of pydantic, which costs
every worker 14 MiB and 0.15 s (deploy/decisions/0006-idle-start-memory.md).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

_ON = frozenset({"on", "true", "yes", "1", "t", "y"})
_OFF = frozenset({"off", "false", "no", "0", "f", "n"})


class Form(msgspec.Struct, frozen=True):
    """What a field takes beyond what its type says.

    Attributes:
        expected: For a person: `a table name: 3 to 255 letters`.
        fault: What is wrong with any other text: `is no table name`.
        pattern: What the text must look like.
        read: Makes the value of the text; may raise `ValueError`, whose message is the fault.
        empty: Whether an empty list will do.
    """

    expected: str
    fault: str = ""
    pattern: re.Pattern[str] | None = None
    read: Callable[[str], object] | None = None
    empty: bool = True


class About(msgspec.Struct, frozen=True):
    """What is to be said of a field beside its type and default.

    Attributes:
        description: For a person.
        form: See `Form`.
        default: The default, for a person, where it is no constant.
        ge: Least value of a number.
        gt: What it must be above, where there is no least value.
        le: Greatest value.
    """

    description: str
    form: Form | None = None
    default: str = ""
    ge: float = -math.inf
    gt: float = -math.inf
    le: float = math.inf


class Field(msgspec.Struct, frozen=True):
    """A field as declared: its type, its value where the variable is not set, and what is said of it."""

    kind: Any
    default: Any
    about: About


def fields_of(settings: type[msgspec.Struct]) -> dict[str, Field]:
    """Return the fields that are described, in order."""
    found = {}
    for field in msgspec.structs.fields(settings):
        if get_origin(field.type) is Annotated:
            kind, said = get_args(field.type)
            found[field.name] = Field(kind, field.default, said)
    return found


def read(field: Field, text: str) -> object:
    """Return the value that a text stands for.

    Raises:
        ValueError: It stands for none; the message says what is wrong with it, as in `= 'x' is no such number`.
    """
    form = field.about.form
    if form is not None and form.read is not None:
        return form.read(text)
    if field.kind in (int, float):
        return _number(field, text)
    if field.kind is bool:
        word = text.lower()
        if word in _ON or word in _OFF:
            return word in _ON
        raise ValueError("is not a value it can have")
    if get_origin(field.kind) is tuple:
        return _list(field, text)
    choices = _choices(field.kind)
    if choices:
        return _choice(choices, text.lower())
    if form is not None and form.pattern is not None and not form.pattern.fullmatch(text):
        raise ValueError(form.fault)
    return text


def expected(field: Field) -> str:
    """Return what a field takes, for a person: `a whole number from 1 to 300`."""
    about = field.about
    if about.form is not None:
        return about.form.expected
    if field.kind is bool:
        return "`on` or `off`"
    if field.kind in (int, float):
        number = "a whole number" if field.kind is int else "a number"
        low = f"from {about.ge:,}" if about.ge > -math.inf else f"above {about.gt:,}"
        return f"{number} {low} to {about.le:,}"
    return " or ".join(f"`{choice}`" for choice in _choices(field.kind)) or "a text"


def _number(field: Field, text: str) -> float:
    try:
        number: float = field.kind(text)
    except ValueError:
        raise ValueError("is no such number") from None
    about = field.about
    if math.isnan(number):
        raise ValueError("is no such number")
    if not about.ge <= number <= about.le or number <= about.gt:
        raise ValueError("is out of bounds")
    return number


def _list(field: Field, text: str) -> tuple[str, ...]:
    """Return the parts between commas, blanks and repeats left out."""
    parts = tuple(dict.fromkeys(part for part in (part.strip() for part in text.split(",")) if part))
    choices = _choices(get_args(field.kind)[0])
    if choices:
        for part in parts:
            _choice(choices, part)
    if not parts and field.about.form is not None and not field.about.form.empty:
        raise ValueError("is not a value it can have")
    return parts


def _choice(choices: tuple[str, ...], word: str) -> str:
    if word not in choices:
        raise ValueError("is not a value it can have")
    return word


def _choices(kind: Any) -> tuple[str, ...]:  # noqa: ANN401 # a type
    """Return the texts that a `Literal`, or one that may be None, can be."""
    literals = [part for part in (kind, *get_args(kind)) if get_origin(part) is Literal]
    return tuple(choice for literal in literals for choice in get_args(literal))

"""Values of fields, compiled: data of `model.py` to functions of an event.

All paths of a plan make one program, which walks common beginnings once and fills registers. The getters read the
registers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter

from service.scoring.event import Reason, Rejected
from service.scoring.paths import Path, Step, Steps
from service.sources.conditions import compiled
from service.sources.model import ALWAYS, Term, Value
from service.sources.values import text_of

Registers = list[object]
"""What a program found: the event's body, its top, the element that [*] stands for, then one entry per step."""

BODY, TOP, ELEMENT = 0, 1, 2

Get = Callable[[Registers], object]
"""Finds what is there, untouched; None, or an empty text, where nothing is."""

GetText = Callable[[Registers], str]
"""Finds a text; empty where none is there."""

_SEPARATOR = "\x1f"
"""Between the parts of a joined value: a sign that ids do not hold."""


class Program:
    """The steps of several paths, those of common beginnings once.

    Args:
        paths: Scope and steps of each.
    """

    def __init__(self, paths: Iterable[tuple[int, Steps]]) -> None:
        self._registers: dict[tuple[int, Steps], int] = {(scope, ()): scope for scope in (BODY, TOP, ELEMENT)}
        self._steps: list[tuple[int, Step, int]] = []
        for scope, steps in paths:
            at = 0
            while at < len(steps):
                # A key and the index after it are one step: many senders put a single value in an array.
                after = steps[at + 1] if at + 1 < len(steps) else None
                index = after if type(after) is int and type(steps[at]) is str else -1
                end = at + 1 if index < 0 else at + 2
                if (scope, steps[:end]) not in self._registers:
                    self._steps.append((self._registers[scope, steps[:at]], steps[at], index))
                    self._registers[scope, steps[:end]] = len(self._registers)
                at = end

    def register(self, scope: int, steps: Steps) -> int:
        """Return the register in which what a path leads to will stand."""
        return self._registers[scope, steps]

    def run(self, body: object, top: object, element: object) -> Registers:
        """Walk all paths."""
        registers: Registers = [body, top, element]
        append = registers.append
        for at, step, index in self._steps:
            found = registers[at]
            if type(found) is dict:
                found = found.get(step)
                if index < 0:
                    append(found)
                elif type(found) is list and index < len(found):
                    append(found[index])
                else:
                    append(None)
            elif type(found) is list and type(step) is int and step < len(found):
                append(found[step])
            else:
                append(None)
        return registers


def paths_of(values: Iterable[Value]) -> Iterator[tuple[int, Steps]]:
    """Yield scope and steps of every path of values, for their program."""
    for value in values:
        for term in value.all_terms():
            if term.path is not None:
                yield _scoped(term.path)


def _scoped(path: Path) -> tuple[int, Steps]:
    if path.rest is not None:
        return ELEMENT, path.rest
    return (TOP if path.from_top else BODY), path.steps


class RefusedError(Exception):
    """The event is a dead letter.

    Attributes:
        why: The reason.
    """

    def __init__(self, why: Rejected) -> None:
        super().__init__(why.detail)
        self.why = why


def getter(program: Program, value: Value) -> Get:
    """Return a function that finds a value as it is, by a program that has its paths."""
    if value.join:
        return _joined(program, value)
    return _first(program, value.terms)


def strict_text(program: Program, name: str, value: Value) -> GetText:
    """Return a function that finds a text or whole number as text.

    It raises `RefusedError` where something else stands there: a person or type must not be guessed.
    """
    translate = _translation(value)
    get = getter(program, value)
    otherwise = value.otherwise

    def text(registers: Registers) -> str:
        found = get(registers)
        if type(found) is not str:
            if found is None:
                return otherwise
            number = text_of(found)
            if number is None:
                raise RefusedError(_wrong_type(name, found))
            found = number
        return found if translate is None else translate(found)

    return text


def loose_text(program: Program, value: Value) -> GetText:
    """Return a function that finds a text; an odd value counts as absent, and the event counts without it."""
    get = getter(program, value)

    def text(registers: Registers) -> str:
        found = get(registers)
        return found if type(found) is str else text_of(found) or ""

    return text


def _first(program: Program, terms: tuple[Term, ...]) -> Get:
    gets = tuple(_term(program, term) for term in terms)
    if len(gets) == 1:
        return gets[0]

    def first(registers: Registers) -> object:
        for get in gets:
            found = get(registers)
            if found is not None and found != "":
                return found
        return None

    return first


def _term(program: Program, term: Term) -> Get:
    get = _place(program, term)
    if term.conditions is ALWAYS:
        return get
    holds = compiled(term.conditions)
    return lambda registers: get(registers) if holds is not None and holds(registers[BODY], registers[TOP]) else None


def _place(program: Program, term: Term) -> Get:
    path, constant = term.path, term.constant
    if path is None:
        return lambda _: constant
    return itemgetter(program.register(*_scoped(path)))


def _joined(program: Program, value: Value) -> Get:
    gets = tuple(_first(program, terms) for terms in value.join)

    def joined(registers: Registers) -> object:
        parts = []
        for get in gets:
            found = get(registers)
            text = found if type(found) is str else text_of(found)
            if not text:
                return None
            parts.append(text)
        return _SEPARATOR.join(parts)

    return joined


def _translation(value: Value) -> Callable[[str], str] | None:
    table, prefixes, otherwise = value.table, value.prefixes, value.otherwise
    if not (table or prefixes or otherwise):
        return None

    def translate(text: str) -> str:
        if not text:
            return otherwise
        translated = table.get(text)
        if translated is not None:
            return translated
        for prefix, instead in prefixes:
            if text.startswith(prefix):
                return instead + text[len(prefix) :]
        return otherwise or text

    return translate


def _wrong_type(name: str, found: object) -> Rejected:
    match found:
        case bool():
            kind = "true or false"
        case int() | float():
            kind = "a number with a fraction, or too large,"
        case list():
            kind = "a list"
        case _:
            kind = "an object"
    return Rejected(Reason.WRONG_TYPE, f"{name}: {kind} stands there, not a text or a whole number")

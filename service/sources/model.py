"""What a source file says, typed and validated: made by `load.py`, compiled by `mapping.py`."""

from __future__ import annotations

from enum import Enum

import msgspec

from service.scoring.paths import Path

VALUE_FIELDS = (
    "event_type",
    "project",
    "user",
    "email",
    "phone",
    "endpoint",
    "anonymous",
    "profile",
    "time",
    "event_id",
    "message",
    "campaign",
    "user_agent",
    "sent",
)
"""Fields of a source that say where in the event a value stands."""

PERSON_FIELDS = ("user", "email", "phone", "endpoint", "anonymous", "profile")
"""Fields that can say who it was."""

CONDITION_FIELDS = ("transactional", "machine")
"""Fields that are true or false."""

Scalar = str | int | float | bool


class Mode(Enum):
    """How a check compares."""

    IS = "is"
    NOT = "not"
    PREFIX = "prefix"
    EXISTS = "exists"
    ABSENT = "absent"


NEEDS_PRESENCE = frozenset({Mode.IS, Mode.PREFIX, Mode.EXISTS})
"""Modes that do not hold where nothing is."""


class Check(msgspec.Struct, frozen=True):
    """One condition on an event.

    With `[*]` in the path, one element that meets it is enough; for `NOT` and `ABSENT`, none may fail it.

    Attributes:
        path: What is looked at.
        mode: How.
        values: What it is compared with: any of them.
    """

    path: Path
    mode: Mode
    values: tuple[Scalar, ...] = ()


Conditions = tuple[tuple[Check, ...], ...]
"""Alternatives, one of which must hold; in each, all checks must. Empty: never. One empty alternative: always."""

NEVER: Conditions = ()
ALWAYS: Conditions = ((),)


class Term(msgspec.Struct, frozen=True):
    """One place where a value may stand.

    Attributes:
        path: The place; None for a constant.
        constant: The constant.
        conditions: Where they do not hold, the next term is tried.
    """

    path: Path | None
    constant: str = ""
    conditions: Conditions = ALWAYS


class Value(msgspec.Struct, frozen=True):
    """Where a field's value comes from.

    Attributes:
        terms: The first that is there.
        table: Its translation, where it is one of these texts.
        prefixes: Else: a leading text, and what stands in its place.
        otherwise: Else, and where nothing is there: this text; empty: as it is.
        join: Instead of `terms`: values that make up one text; if one is absent, so is the whole.
    """

    terms: tuple[Term, ...] = ()
    table: dict[str, str] = {}
    prefixes: tuple[tuple[str, str], ...] = ()
    otherwise: str = ""
    join: tuple[tuple[Term, ...], ...] = ()

    def all_terms(self) -> tuple[Term, ...]:
        """Return every term, those of `join` too."""
        return self.terms + tuple(term for terms in self.join for term in terms)


class Case(msgspec.Struct, frozen=True):
    """What a source, or one case of it, says of its events.

    Attributes:
        values: By name of `VALUE_FIELDS`.
        conditions: By name of `CONDITION_FIELDS`.
        skip: Why such events are not scored; empty: they are.
        teach: Whether such events only say which user an alias belongs to.
    """

    values: dict[str, Value] = {}
    conditions: dict[str, Conditions] = {}
    skip: str = ""
    teach: bool = False


class SourceSpec(msgspec.Struct, frozen=True):
    """A source, as its file says.

    Attributes:
        name: Its name.
        when: Which events are its own; paths start at the top of the event.
        base: What holds for all of its events.
        within: Where the other paths start, if something is there.
        skips: Events that it recognises and that are not scored, each with the reason.
        by: What chooses the case: the first path that is there.
        cases: By its text (empty: nothing is there), `prefix*` or `*`; a field of a case takes the place of the base's.
        recipients: The array of all people that the message went to. With more than one, an address is not taken to
            be the user's, and an event that is not of one recipient is of somebody unknown.
        nobody_is_anonymous: Whether an event that names nobody is counted as anonymous; else it is a dead letter.
        text: A file with this source alone, for keeping.
    """

    name: str
    when: Conditions
    base: Case
    within: Path | None = None
    skips: tuple[tuple[Conditions, str], ...] = ()
    by: tuple[Path, ...] = ()
    cases: dict[str, Case] = {}
    recipients: Path | None = None
    nobody_is_anonymous: bool = False
    text: str = ""

    def merged(self, case: Case) -> Case:
        """Return what holds in a case: what it says itself, else what the source says."""
        return Case(
            {**self.base.values, **case.values},
            {**self.base.conditions, **case.conditions},
            case.skip or self.base.skip,
            case.teach or self.base.teach,
        )

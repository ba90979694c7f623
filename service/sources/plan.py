"""How one case of a source turns an event into outcomes: compiled once, run for every event.

The order of the questions: is it skipped; what type; which project; who. Nothing here raises for any event.
"""

from __future__ import annotations

from collections.abc import Container
from sys import intern

import msgspec

from service.scoring.event import (
    MAX_ID_BYTES,
    MAX_PROJECT_BYTES,
    Alias,
    AliasKind,
    Details,
    Event,
    Reason,
    Rejected,
    id_fault,
)
from service.scoring.paths import Steps, elements, walk
from service.sources.conditions import compiled
from service.sources.decoding import JsonObject
from service.sources.getters import (
    BODY,
    TOP,
    Get,
    GetText,
    Program,
    RefusedError,
    Registers,
    getter,
    loose_text,
    paths_of,
    strict_text,
)
from service.sources.model import ALWAYS, NEVER, Case, SourceSpec, Value
from service.sources.outcomes import (
    Ambiguous,
    Anonymous,
    Outcome,
    RejectedEvent,
    SkippedEvent,
    Teaches,
)
from service.sources.values import email_of, time_ms

MAX_PARTS = 1_000
"""Most people that one event can concern; a message of SES has at most 50 recipients
(https://docs.aws.amazon.com/ses/latest/dg/quotas.html)."""


class Context(msgspec.Struct, frozen=True):
    """What reading needs beside the event.

    Attributes:
        default_project: The project of events that name none; empty: such events are dead letters.
        detailed: Event types whose decoded event is kept, because a rule asks for it.
    """

    default_project: str = ""
    detailed: Container[str] = ()


_ALIAS_FIELDS = tuple(kind for kind in AliasKind if kind is not AliasKind.ENDPOINT)
"""Fields whose values become `Event.aliases`; an endpoint has a field of its own."""

_DETAILS = ("user_agent", "sent")
"""Fields that are looked for only where a rule asks for the event's details."""

_NO_TYPE = Rejected(Reason.NO_EVENT_TYPE, "nothing stands where the source says that the event type is")
_NO_PROJECT = Rejected(
    Reason.NO_PROJECT, "the event names no project: give the source a `project`, or set SCORING_DEFAULT_PROJECT"
)
_NO_PERSON = Rejected(
    Reason.NO_PERSON, "nobody is named where the source says: no user, e-mail address, phone number or other name"
)
_NOTHING_TO_LEARN = "it does not name a user together with another name"


class Plan:
    """What a source does with the events of one case.

    Args:
        spec: The source.
        case: The case, merged with what the source says for all.
    """

    def __init__(self, spec: SourceSpec, case: Case) -> None:
        values = case.values
        recipients = spec.recipients
        listed = [] if recipients is None else [(TOP if recipients.from_top else BODY, recipients.steps)]
        always = [value for name, value in values.items() if name not in _DETAILS]
        self._program = program = Program([*paths_of(always), *listed])
        self._details_program = details = Program(paths_of([values[name] for name in _DETAILS if name in values]))
        self._source = spec.name
        self._skip = case.skip
        self._teach = case.teach
        self._nobody_is_anonymous = spec.nobody_is_anonymous
        self._recipients = program.register(*listed[0]) if listed else -1
        self._type = _strict(program, values, "event_type")
        self._fixed_type = _fixed(values.get("event_type"))
        self._project = _strict(program, values, "project")
        self._user = _strict(program, values, "user")
        self._endpoint = _strict(program, values, "endpoint")
        self._aliases = tuple(
            (kind, strict_text(program, kind.value, values[kind]), email_of if kind is AliasKind.EMAIL else str.strip)
            for kind in _ALIAS_FIELDS
            if kind in values
        )
        self._time = _value(program, values, "time")
        self._event_id = _loose(program, values, "event_id")
        self._message = _loose(program, values, "message")
        self._campaign = _loose(program, values, "campaign")
        self._user_agent = _loose(details, values, "user_agent")
        self._sent = _value(details, values, "sent")
        self._transactional = compiled(case.conditions.get("transactional", NEVER))
        self._machine = compiled(case.conditions.get("machine", NEVER))
        self.array, self.array_from_top = _array(values)
        self._one_address_each = any(_goes_through(values[name]) for name in AliasKind if name in values)

    def read(self, body: JsonObject, top: JsonObject, data: bytes, index: int, context: Context) -> list[Outcome]:
        """Return the outcomes of an event, one for each person it concerns; at least one.

        A `RejectedEvent` among several has the whole event as payload: `Source` narrows it.
        """
        if self._skip:
            return [SkippedEvent("", self._skip, self._source, index)]
        if self.array is None:
            try:
                return [self._outcome(self._program.run(body, top, None), index, 0, context)]
            except RefusedError as error:
                return [self._refused(error, data, index, 0)]
        found = elements(walk(top if self.array_from_top else body, self.array)) or [None]
        if len(found) > MAX_PARTS:
            why = f"the event concerns {len(found)} people; at most {MAX_PARTS} are read"
            return [RejectedEvent(Reason.TOO_MANY_EVENTS, why, data, self._source, index)]
        return [
            self._one(self._program.run(body, top, element), data, index, part, context)
            for part, element in enumerate(found, 1 if len(found) > 1 else 0)
        ]

    def _one(self, registers: Registers, data: bytes, index: int, part: int, context: Context) -> Outcome:
        try:
            return self._outcome(registers, index, part, context)
        except RefusedError as error:
            return self._refused(error, data, index, part)

    def _refused(self, error: RefusedError, data: bytes, index: int, part: int) -> RejectedEvent:
        return RejectedEvent(error.why.reason, error.why.detail, data, self._source, index, part)

    def _outcome(self, registers: Registers, index: int, part: int, context: Context) -> Outcome:
        event_type = self._fixed_type or self._event_type(registers)
        project = (self._project and self._project(registers)) or context.default_project
        user = (self._user and self._user(registers)) or ""
        endpoint = (self._endpoint and self._endpoint(registers)) or ""
        aliases = self._found_aliases(registers)
        if not project:
            raise RefusedError(_NO_PROJECT)
        names = f"{event_type}{project}{user}{endpoint}"
        # Names that are this short in all are so one by one: one look instead of several.
        for alias in aliases:
            names += alias.value
        if len(names) > MAX_PROJECT_BYTES or not names.isascii():
            _check_ids(event_type, project, user, endpoint, aliases)
        if self._recipients >= 0 and (user or not self._one_address_each) and _several(registers[self._recipients]):
            # Whose of the recipients' the address is, is not known: it is neither the user's nor anybody's.
            if not user:
                return Ambiguous(self._source, event_type, project, index, part)
            endpoint, aliases = "", ()
        if self._teach:
            if user and (aliases or endpoint):
                return Teaches(self._source, project, user, endpoint, aliases, index, part)
            return SkippedEvent(event_type, _NOTHING_TO_LEARN, self._source, index, part)
        transactional = self._transactional is not None and self._transactional(registers[BODY], registers[TOP])
        if not (user or aliases or endpoint):
            if transactional or self._nobody_is_anonymous:
                return Anonymous(self._source, event_type, project, index, part)
            raise RefusedError(_NO_PERSON)
        return Event(
            event_type,
            project,
            endpoint,
            user,
            time_ms(self._time(registers)) if self._time is not None else 0,
            not transactional,
            transactional,
            False,  # noqa: FBT003 - by position, as this is the hot path: it states nothing about an endpoint
            False,  # noqa: FBT003 - likewise
            self._source,
            aliases,
            (self._event_id and self._event_id(registers)) or "",
            (self._message and self._message(registers)) or "",
            (self._campaign and self._campaign(registers)) or "",
            self._details(registers) if event_type in context.detailed else None,
            index,
            part,
        )

    def _event_type(self, registers: Registers) -> str:
        found = (self._type and self._type(registers)) or ""
        if not found and not self._teach:
            raise RefusedError(_NO_TYPE)
        return intern(found)

    def _found_aliases(self, registers: Registers) -> tuple[Alias, ...]:
        found: list[Alias] = []
        for kind, get, normalised in self._aliases:
            text = get(registers)
            if text and (text := normalised(text)):
                found.append(Alias(kind, text))
        return tuple(found)

    def _details(self, registers: Registers) -> Details:
        body = registers[BODY]
        registers = self._details_program.run(body, registers[TOP], None)
        return Details(
            body if type(body) is dict else {},
            (self._user_agent and self._user_agent(registers)) or "",
            self._machine is not None and self._machine(registers[BODY], registers[TOP]),
            time_ms(self._sent(registers)) if self._sent is not None else 0,
        )


def _several(recipients: object) -> bool:
    return type(recipients) is list and len(recipients) > 1


def _strict(program: Program, values: dict[str, Value], name: str) -> GetText | None:
    return strict_text(program, name, values[name]) if name in values else None


def _loose(program: Program, values: dict[str, Value], name: str) -> GetText | None:
    return loose_text(program, values[name]) if name in values else None


def _value(program: Program, values: dict[str, Value], name: str) -> Get | None:
    return getter(program, values[name]) if name in values else None


def _fixed(value: Value | None) -> str:
    """Return the event type that every event of a case has; empty where it depends on the event."""
    if value is None or not value.terms or value.table or value.prefixes or value.otherwise:
        return ""
    first = value.terms[0]
    return intern(first.constant) if first.path is None and first.conditions is ALWAYS else ""


def _array(values: dict[str, Value]) -> tuple[Steps | None, bool]:
    """Return the array that [*] goes through, and whether its path starts at the top; a source has one at most."""
    for value in values.values():
        for term in value.all_terms():
            if term.path is not None and term.path.rest is not None:
                return term.path.steps, term.path.from_top
    return None, False


def _goes_through(value: Value) -> bool:
    return any(term.path is not None and term.path.rest is not None for term in value.all_terms())


def _check_ids(event_type: str, project: str, user: str, endpoint: str, aliases: tuple[Alias, ...]) -> None:
    """Refuse an event whose names fit no table key."""
    fault = (
        id_fault("event_type", event_type)
        or id_fault("project", project, MAX_PROJECT_BYTES)
        or id_fault("user", user)
        or id_fault("endpoint", endpoint)
    )
    for alias in aliases:
        fault = fault or id_fault(alias.kind.value, alias.value, MAX_ID_BYTES)
    if fault is not None:
        raise RefusedError(fault)

"""Why a score is what it is: the item of a person, seen through the rules of the project on some day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec

from service.aws.clients import Clients
from service.aws.schema import state_of
from service.aws.tables.definitions import DefinitionTable
from service.aws.tables.scores import item_of
from service.config.settings import Settings
from service.runtime.errors import RefusedError
from service.scoring.definitions import DefinitionBook
from service.scoring.event import Rejected
from service.scoring.fold import ScoreState, UserKey
from service.scoring.rules.decay import DAY_MS
from service.scoring.rules.fold import window_of
from service.scoring.rules.model import MICRO, Rule, RuleSet, Window
from service.scoring.rules.score import person_of
from service.scoring.rules.state import PersonState, StateFormatError, last_events, once_days
from service.scoring.rules.stored import StoredRulesError
from service.scoring.rules.view import Contribution, GroupView, explain, next_fall


class CapUse(msgspec.Struct, frozen=True):
    """How much of a rule's cap is used in the window of the day.

    Attributes:
        rule_id: The rule.
        window: `day`, `week`, `month` or `life`.
        used: Events or points.
        limit: Likewise.
        reached: Whether nothing more counts in the window.
    """

    rule_id: str
    window: str
    used: Decimal
    limit: Decimal
    reached: bool


class LastEvent(msgspec.Struct, frozen=True):
    """One of the newest events that met a rule.

    Attributes:
        at_ms: When it arrived, epoch milliseconds, to the second.
        rule_id: The rule.
    """

    at_ms: int
    rule_id: str


class ScoreExplanation(msgspec.Struct, frozen=True):
    """Everything that makes a score.

    Attributes:
        user_id: Whose.
        project_id: Where.
        version: Of the rules.
        day_ms: Start of the day it is seen on, epoch milliseconds.
        score: What is shown that day.
        unclamped: The sum of the groups before the score's own bounds.
        tier: Empty: none.
        tier_since_ms: When the tier was entered, epoch milliseconds, to the day; 0: not known.
        falls_ms: When the tier changes without further events, epoch milliseconds, to the day; 0: it does not.
        falls_to: The tier then; empty: none.
        groups: What each group shows.
        contributions: What each rule gives before any bound.
        caps: Caps of rules that have counted the person's events.
        last: The newest events that met a rule, the newest first.
        remembered: Messages, campaigns and event ids remembered for `once`.
        evictions: Such entries that were forgotten to save room.
        published: The score stored, which sinks have.
        published_day_ms: The day that one was made for, epoch milliseconds.
        updated_ms: Arrival of the newest event, epoch milliseconds; 0: not known.
    """

    user_id: str
    project_id: str
    version: int
    day_ms: int
    score: Decimal
    unclamped: Decimal
    tier: str
    tier_since_ms: int
    falls_ms: int
    falls_to: str
    groups: Sequence[GroupView]
    contributions: Sequence[Contribution]
    caps: Sequence[CapUse]
    last: Sequence[LastEvent]
    remembered: int
    evictions: int
    published: Decimal
    published_day_ms: int
    updated_ms: int


def explained(key: UserKey, state: ScoreState, rules: RuleSet, day: int) -> ScoreExplanation:
    """Return what makes a person's score on a day.

    Args:
        key: Whose.
        state: As stored.
        rules: Of the project.
        day: Counted from 1970-01-01; one before the newest event counts as that event's day.

    Raises:
        StateFormatError: The state stored cannot be read.
    """
    person = person_of(state)
    tier_before = state.by_rules.tier if state.by_rules is not None else ""
    day = max(day, state.updated_ms // DAY_MS)
    found = explain(rules, person, tier_before, state.updated_ms, day)
    tier = found.shown.tier
    falls = next_fall(rules, person, tier, state.updated_ms, day) if rules.tiers else None
    return ScoreExplanation(
        key.user_id,
        key.project_id,
        rules.version,
        day * DAY_MS,
        found.shown.score,
        found.unclamped,
        tier,
        person.tier_day * DAY_MS if tier and tier == tier_before else 0,
        falls[0] * DAY_MS if falls is not None else 0,
        falls[1] if falls is not None else "",
        list(found.groups.values()),
        found.contributions,
        _caps(rules, person, day),
        _last(rules, person),
        len(once_days(person.once)),
        person.evictions,
        state.score or Decimal(0),
        state.by_rules.day * DAY_MS if state.by_rules is not None else 0,
        state.updated_ms,
    )


def _caps(rules: RuleSet, person: PersonState, day: int) -> list[CapUse]:
    return [
        _cap_use(rule, day, slot.used.window, slot.used.current)
        for number, slot in sorted(person.slots.items())
        if slot.used is not None and (rule := rules.by_slot.get(number)) is not None and rule.active and rule.cap
    ]


def _cap_use(rule: Rule, day: int, window: int, current: int) -> CapUse:
    cap = rule.cap
    assert cap is not None  # noqa: S101 - the caller has looked
    used = current if window_of(cap.window, day) == window or cap.window is Window.LIFE else 0
    unit = MICRO if cap.in_points else 1
    return CapUse(rule.rule_id, cap.window.value, Decimal(used) / unit, Decimal(cap.limit) / unit, used >= cap.limit)


def _last(rules: RuleSet, person: PersonState) -> list[LastEvent]:
    by_slot: Mapping[int, Rule] = rules.by_slot
    return [
        LastEvent(second * 1000, by_slot[slot].rule_id if slot in by_slot else f"slot {slot}")
        for second, slot in reversed(last_events(person.last))
    ]


async def rules_in_force(aws: Clients, settings: Settings) -> Mapping[str, RuleSet]:
    """Return the rules of every project that has some, as just written.

    Raises:
        RefusedError: Those of some project cannot be read by this version.
        AwsSetupError: There is no such table, or it may not be read.
        TransientError: AWS does not answer.
    """
    rows = await DefinitionTable(aws.dynamodb, settings.definitions_table).load(consistent=True)
    try:
        return DefinitionBook().refreshed(rows).rules
    except StoredRulesError as error:
        raise RefusedError(f"{error}", remedy="use the version of this program that applied them") from error


async def explain_score(aws: Clients, settings: Settings, key: UserKey, day: int) -> ScoreExplanation | None:
    """Read a person's item and the rules; return what makes the score on a day, None where there is no score.

    Raises:
        RefusedError: The project has no rules, or item or rules cannot be read.
        AwsSetupError: A table is missing, or a permission.
        TransientError: AWS does not answer.
    """
    rules = (await rules_in_force(aws, settings)).get(key.project_id)
    if rules is None:
        raise RefusedError(
            f"project {key.project_id} has no rules",
            "with plain definitions a score is the sum of the points that each event had when it came",
            "`scoring rules init` writes a rules file of the definitions",
        )
    item = await item_of(aws.dynamodb, settings.scores_table, key)
    if item is None:
        return None
    state = state_of(item)
    if isinstance(state, Rejected):
        raise RefusedError("the item is not a score", state.detail)
    try:
        return explained(key, state, rules, day)
    except StateFormatError as error:
        raise RefusedError("the item's state cannot be read", f"{error}") from error

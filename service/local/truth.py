"""What every score must be, from what the generator knows: an oracle that shares no code with the service.

It restates the default definitions instead of importing them: an oracle that reads what it judges agrees
with every mistake in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal

import msgspec

from service.local.population import Population
from service.local.traffic import Meaning

DEFAULTS: Mapping[str, Decimal] = {
    "_email.click": Decimal(50),
    "_email.open": Decimal(10),
    "_email.delivered": Decimal(2),
    "_email.hardbounce": Decimal(-1000),
    "_email.complaint": Decimal(-1000),
    "_email.unsubscribe": Decimal(-500),
    "_SMS.SUCCESS": Decimal(2),
    "_SMS.OPTOUT": Decimal(-500),
    "_campaign.send": Decimal(2),
    "_campaign.opened_notification": Decimal(50),
    "_campaign.received_foreground": Decimal(2),
    "_campaign.received_background": Decimal(2),
    "_session.start": Decimal(2),
    "_userauth.sign_up": Decimal(50),
    "_monetization.purchase": Decimal(100),
}
"""What `scoring setup` must have given the project."""

CUSTOM: Mapping[str, Decimal] = {"webinar.attended": Decimal("12.5")}
"""What the demo defines besides."""

PROBE = "_test.event_stream"


class Replaced(msgspec.Struct):
    """The calls that the three Lambda functions this replaces would have made for the same events.

    Per event that is JSON and no probe: one `GetItem` of its definition. If there is one: `GetEndpoint`. If
    that has a user: `UpdateItem` (a write unit). Per change of a score: `GetUserEndpoints`, and
    `UpdateEndpoint` for each endpoint of the user. Source: Ryanjlowe/pinpoint-engagement-scoring,
    lambdas/PinpointEventStreamLambda/index.py and lambdas/UpdatePinpointLambda/index.py.
    """

    get_item: int = 0
    get_endpoint: int = 0
    update_item: int = 0
    get_user_endpoints: int = 0
    update_endpoint: int = 0

    @property
    def requests(self) -> int:
        """All of them."""
        return self.get_item + self.get_endpoint + self.update_item + self.get_user_endpoints + self.update_endpoint


class Truth:
    """The sums over the distinct events, kept as the events are made.

    Attributes:
        scores: User id to score, for every user with at least one scored event.
        dead_letters: How many, by reason.
        outcomes: How many records end as `scored`, `ignored`, `anonymous`, `skipped`, `dead_lettered`.
        replaced: What the replaced system would have done.
    """

    def __init__(self, population: Population, points: Mapping[str, Decimal]) -> None:
        self._points = points
        self._endpoints_of = Counter(endpoint.user_id for endpoint in population.endpoints)
        self.scores: dict[str, Decimal] = {}
        self.dead_letters: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.replaced = Replaced()

    @property
    def events(self) -> int:
        """How many records it knows."""
        return self.outcomes.total()

    def add(self, meanings: Iterable[Meaning]) -> None:
        """Take in the records that were made."""
        for meaning in meanings:
            self.outcomes[self._outcome(meaning)] += 1

    def _outcome(self, meaning: Meaning) -> str:
        if meaning.fault:
            self.dead_letters[meaning.fault] += 1
            return "dead_lettered"
        if meaning.event_type == PROBE:
            return "skipped"
        self.replaced.get_item += 1
        points = None if meaning.foreign else self._points.get(meaning.event_type)
        if points is None:
            return "ignored"
        self.replaced.get_endpoint += 1
        if meaning.user_id:
            self._score(meaning.user_id, points)
            return "scored"
        if meaning.attributed and not meaning.known:
            self.dead_letters["unresolved_user"] += 1
            return "dead_lettered"
        return "anonymous"

    def _score(self, user_id: str, points: Decimal) -> None:
        self.scores[user_id] = self.scores.get(user_id, Decimal(0)) + points
        self.replaced.update_item += 1
        self.replaced.get_user_endpoints += 1
        self.replaced.update_endpoint += self._endpoints_of[user_id]


def as_text(score: Decimal) -> str:
    """Return a score as DynamoDB and Pinpoint show it: plain digits, no trailing zeros."""
    return format(score.normalize() + 0, "f")


class Found(msgspec.Struct, frozen=True):
    """What the demo read back when all was quiet.

    Attributes:
        scores: User id to `Score` in the score table.
        endpoints: Endpoint id to `EngagementScore` as the fake has it (None: not set).
        active: Endpoint id to whether it is ACTIVE.
        dead_letters: How many letters, by reason.
    """

    scores: Mapping[str, Decimal]
    endpoints: Mapping[str, list[str] | None]
    active: Mapping[str, bool]
    dead_letters: Mapping[str, int]


def differences(truth: Truth, population: Population, found: Found) -> list[str]:
    """Return one sentence for everything in `found` that is not as it must be; empty when all is right."""
    faults: list[str] = []
    for user_id in sorted(truth.scores.keys() | found.scores.keys()):
        wanted, got = truth.scores.get(user_id), found.scores.get(user_id)
        if wanted != got:
            faults.append(f"score table: {user_id} should have {_said(wanted)}, has {_said(got)}")
    for endpoint in population.everything:
        faults.extend(_endpoint_faults(truth, endpoint.endpoint_id, endpoint.user_id, endpoint.active, found))
    strangers = found.endpoints.keys() - {endpoint.endpoint_id for endpoint in population.everything}
    faults.extend(f"Pinpoint: endpoint {stranger} was created; nobody asked for it" for stranger in sorted(strangers))
    for reason in sorted(truth.dead_letters.keys() | found.dead_letters.keys()):
        expected, there = truth.dead_letters.get(reason, 0), found.dead_letters.get(reason, 0)
        if expected != there:
            faults.append(f"dead letters: {reason} should have {expected}, has {there}")
    return faults


def _endpoint_faults(truth: Truth, endpoint_id: str, user_id: str, active: bool, found: Found) -> list[str]:  # noqa: FBT001
    if endpoint_id not in found.endpoints:
        return [f"Pinpoint: endpoint {endpoint_id} of {user_id or 'nobody'} is gone"]
    faults: list[str] = []
    score = truth.scores.get(user_id)
    wanted = None if score is None else [as_text(score)]
    got = found.endpoints[endpoint_id]
    if wanted != got:
        faults.append(
            f"Pinpoint: endpoint {endpoint_id} of {user_id or 'nobody'} should have {_said(wanted)}, has {_said(got)}"
        )
    if found.active.get(endpoint_id) != active:
        should = "ACTIVE" if active else "INACTIVE"
        faults.append(f"Pinpoint: endpoint {endpoint_id} of {user_id or 'nobody'} should still be {should}")
    return faults


def _said(value: Decimal | list[str] | None) -> str:
    match value:
        case None:
            return "no score"
        case Decimal():
            return as_text(value)
        case _:
            return str(value)

"""Events through rules, from the record to the stored score."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from service.admin.adjust import adjustment_event
from service.scoring.fold import ScoreState, UserKey
from service.scoring.rules.load import load_rules
from service.scoring.rules.plan import plan
from service.scoring.rules.stored import RulesRow, encode_rules
from tests.fakes.aio import EPOCH_MS, run
from tests.fakes.ingest import IngestSetup, P, batch, body

RULES = f"""\
project: {P}
tiers: [{{name: hot, enter: 100, leave: 80}}]
rules:
  - {{id: click, on: click, points: 50, cap: {{per: day, events: 2}}}}
  - {{id: order, on: order, per: {{path: metrics.total, factor: 0.1, max: 20}}}}
  - {{id: vip, on: visit, points: 5, when: [{{path: attributes.plan, op: eq, value: gold}}]}}
  - {{id: later, on: later, points: 5, from: 2100-01-01}}
"""


def setup(rules: str = RULES) -> IngestSetup:
    made = IngestSetup()
    file, problems = load_rules(rules, "rules.yml")
    assert file is not None, problems
    planned = plan(None, file, retroactive=False).rules
    assert planned is not None
    run(made.definitions.apply(RulesRow(planned.project_id, 1, encode_rules(planned))))
    return made


def order(total: object) -> bytes:
    event = json.loads(body("order", "e", "ann"))
    return json.dumps({**event, "metrics": {"total": total}}).encode()


def stored(made: IngestSetup, user: str = "ann") -> ScoreState:
    state = made.scores.items[UserKey(user, P)]
    assert isinstance(state, ScoreState)
    return state


def outcome(made: IngestSetup, name: str) -> float:
    return made.metrics.registry.get_sample_value("scoring_rule_outcomes_total", {"outcome": name}) or 0


def test_events_are_capped_and_decide_the_tier():
    made = setup()
    made.play(batch(*(body("click", "e", "ann") for _ in range(3))))
    state = stored(made)
    assert state.by_rules is not None
    assert (state.score, state.by_rules.tier) == (100, "hot")
    assert outcome(made, "capped") == 1
    assert made.counted("scored") == 3
    assert made.metrics.registry.get_sample_value("scoring_rules_version", {"project": P}) == 1


def test_amounts_and_conditions_read_the_payload():
    made = setup()
    made.play(
        batch(
            order(129.5), order(5000), order("abc"), body("visit", "e", "ann", plan="gold"), body("visit", "e", "ann")
        )
    )
    assert stored(made).score == Decimal("37.95")
    assert outcome(made, "odd_amount") == 1
    assert made.counted("unmet") == 1
    assert made.letters.letters == {}


def test_an_event_that_no_rule_counts_is_counted_and_writes_nothing():
    made = setup()
    made.play(batch(body("later", "e", "ann"), body("visit", "e", "ann")))
    assert made.scores.items == {}
    assert (made.counted("unmet"), made.counted("ignored")) == (2, 0)


def test_a_type_that_no_rule_names_keeps_the_points_of_its_definition():
    made = setup()
    made.play(batch(body("open", "e", "ann"), body("unheard", "e", "ann"), body("click", "e", "ann")))
    assert stored(made).score == 60
    assert made.counted("ignored") == 1


def test_a_replay_counts_nothing_twice():
    made = setup()
    given = batch(*(body("click", "e", "ann") for _ in range(2)), body("open", "e", "ann"))
    made.play(given)
    before = stored(made)
    made.play(given, batch(*(record.data for record in given.records), body("open", "e", "ann")))
    assert stored(made).score == 120
    assert before.score == 110
    assert made.counted("replayed") == 6


def test_another_project_is_scored_as_before():
    made = setup(RULES.replace(f"project: {P}", "project: other"))
    made.play(batch(body("open", "e", "ann")))
    state = stored(made)
    assert (state.score, state.by_rules) == (10, None)


def test_an_adjustment_of_one_id_counts_once_with_rules():
    made = setup()
    event = adjustment_event("ann", P, Decimal("12.5"), "sorry", "a1", EPOCH_MS)
    made.play(batch(event, event, adjustment_event("ann", P, Decimal(-2), "no", "a2", EPOCH_MS)))
    assert stored(made).score == Decimal("10.50")
    assert outcome(made, "duplicate") == 1
    assert made.identities.users == {}


@pytest.mark.parametrize("points", ["12.5", "-3"])
def test_an_adjustment_counts_without_rules_too(points: str):
    made = IngestSetup()
    made.play(batch(adjustment_event("ann", P, Decimal(points), "sorry", "a1", EPOCH_MS)))
    assert stored(made).score == Decimal(points)


@pytest.mark.parametrize("points", ["many", "1e999999999", "NaN", "10000000000", None])
@pytest.mark.parametrize("with_rules", [True, False])
def test_an_adjustment_without_usable_points_changes_nothing(points: str | None, *, with_rules: bool):
    made = setup() if with_rules else IngestSetup()
    event = json.loads(adjustment_event("ann", P, Decimal(1), "x", "a1", EPOCH_MS))
    event["attributes"]["points"] = points
    made.play(batch(json.dumps(event).encode()))
    assert made.scores.items == {}
    assert (outcome(made, "odd_amount"), made.counted("unmet")) == (1, 1)


def test_a_clock_that_is_ahead_does_not_date_an_event_too_late():
    made = setup()
    event = json.loads(body("click", "e", "ann"))
    event["arrival_timestamp"] = 253_370_764_800_000
    made.play(batch(json.dumps(event).encode()))
    assert stored(made).updated_ms == EPOCH_MS


def test_what_is_stored_as_state_and_cannot_be_read_is_a_dead_letter():
    made = setup()
    made.play(batch(body("click", "e", "ann")))
    state = stored(made)
    assert state.by_rules is not None
    import msgspec  # noqa: PLC0415

    broken = msgspec.structs.replace(state.by_rules, state=b"?")
    made.scores.items[UserKey("ann", P)] = msgspec.structs.replace(state, by_rules=broken)
    made.play(batch(body("click", "e", "ann"), first=9))
    assert [reason.value for reason in made.reasons()] == ["bad_score_item"]


SAMPLES = Path(__file__).parents[2] / "samples" / "pinpoint-events.jsonl"


def opened(
    message: str = "m1", agent: str = "Mozilla/5.0 (X11; Linux x86_64)", after_s: int = 60, **odd: object
) -> bytes:
    """Return an open of the recorded form, of ann in the tests' project."""
    lines = SAMPLES.read_text(encoding="utf-8").splitlines()
    event = json.loads(next(line for line in lines if '"_email.open"' in line))
    event["application"]["app_id"] = P
    event["endpoint"] = {"User": {"UserId": "ann"}}
    mail_event = event["facets"]["email_channel"]["mail_event"]
    mail_event["mail"]["message_id"] = message
    mail_event["mail"]["message_send_timestamp"] = event["arrival_timestamp"] - after_s * 1000
    mail_event["open"]["user_agent"] = agent
    return json.dumps({**event, **odd}).encode()


MAIL = f"""\
project: {P}
rules:
  - {{id: open, on: _email.open, points: 10, once: message, when: [human]}}
  - {{id: campaign, on: _email.open, points: 1, once: campaign}}
"""


def test_pinpoint_opens_count_once_per_message_and_only_by_people():
    made = setup(MAIL)
    prefetched = opened("m3", agent="Mozilla/5.0"), opened("m4", after_s=1)
    made.play(batch(opened(), opened(), opened("m2"), *prefetched))
    assert stored(made).score == 21
    assert (outcome(made, "repeat"), outcome(made, "machine")) == (5, 2)


@pytest.mark.parametrize(
    "odd", [{"facets": 7}, {"facets": {"email_channel": []}}, {"attributes": None}, {"facets": None}]
)
def test_a_pinpoint_event_with_odd_facets_counts_like_one_without(odd: dict[str, object]):
    made = setup(MAIL)
    made.play(batch(opened(**odd), opened(**odd)))
    assert made.letters.letters == {}
    assert stored(made).score in (20 + 1, 20 + 2, 10 + 2)

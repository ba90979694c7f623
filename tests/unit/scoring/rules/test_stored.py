"""Rules in a row of the table: what is written is read back, and what is not of this kind is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scoring.rules.evaluate import Facts, evaluate
from service.scoring.rules.model import RuleSet
from service.scoring.rules.stored import (
    MAX_HISTORY,
    MAX_HISTORY_BYTES,
    Applied,
    StoredRulesError,
    decode_rules,
    encode_rules,
    pack_history,
    unpack_history,
)
from tests.unit.scoring.rules.test_load import EXAMPLE, sound
from tests.unit.scoring.rules.test_plan import CLICK, OPEN, applied, planned


def stored() -> RuleSet:
    """Rules with everything in them: every feature, a retired rule, a withdrawn slot."""
    from service.scoring.rules.plan import plan  # noqa: PLC0415

    first = plan(None, sound(EXAMPLE), retroactive=False).rules
    assert first is not None
    changed = EXAMPLE.replace("points: 50", "points: 60").replace(
        "op: ge, value: 100", "op: in, value: [100, 'x', true, 1.5]"
    )
    second = plan(first, sound(changed), retroactive=False).rules
    assert second is not None
    return second


def test_rules_are_read_back_as_they_were():
    rules = stored()
    again = decode_rules("shop", encode_rules(rules))
    assert encode_rules(again) == encode_rules(rules)
    assert (again.project_id, again.version, again.slots_given) == ("shop", 2, rules.slots_given)
    assert [(rule.slot, rule.active) for rule in again.rules] == [(rule.slot, rule.active) for rule in rules.rules]


@pytest.mark.parametrize("price", [100, 99, "x", True, 1.5, None])
def test_rules_that_were_read_back_count_the_same(price: object):
    rules = stored()
    again = decode_rules("shop", encode_rules(rules))
    facts = Facts("buy", 1_795_000_000_000, {"metrics": {"price": price}})
    assert [(hit.rule.slot, hit.value) for hit in evaluate(again, facts).hits] == [
        (hit.rule.slot, hit.value) for hit in evaluate(rules, facts).hits
    ]


def test_a_plan_after_reading_back_finds_no_difference():
    rules = applied(None, OPEN + CLICK)
    again = decode_rules("p", encode_rules(rules))
    assert [step.kind.value for step in planned(again, OPEN + CLICK).steps] == ["kept", "kept"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read"),
        ("{}", "cannot be read"),
        ('{"format": 2}', "have format 2; this version reads 1"),
        ('{"format": 1}', "cannot be read"),
        (encode_rules(applied(None, CLICK)).replace('"slot":0', '"slot":"x"'), "cannot be read"),
    ],
)
def test_what_is_not_of_this_kind_is_refused(text: str, said: str):
    with pytest.raises(StoredRulesError, match=said):
        decode_rules("p", text)


versions = st.lists(
    st.builds(Applied, st.integers(1, 9), st.integers(0, 2**40), st.booleans(), st.just(()), st.text(max_size=40)),
    min_size=1,
    max_size=MAX_HISTORY + 5,
)


@given(versions)
def test_the_history_keeps_the_newest_versions(history: list[Applied]):
    assert list(unpack_history(pack_history(history))) == history[-MAX_HISTORY:]


def test_a_history_of_large_files_stays_within_its_bound():
    import random  # noqa: PLC0415

    rng = random.Random(1)
    history = [
        Applied(n, 0, retroactive=False, steps=(), file="".join(rng.choices("abcdefgh\n", k=9_000))) for n in range(40)
    ]
    packed = pack_history(history)
    kept = unpack_history(packed)
    assert len(packed) <= MAX_HISTORY_BYTES
    assert 1 < len(kept) < 40
    assert kept[-1] == history[-1]


@pytest.mark.parametrize("packed", [b"x", pack_history([Applied(1, 0, retroactive=False, steps=(), file="a")])[:-3]])
def test_bytes_that_are_no_history_are_refused(packed: bytes):
    with pytest.raises(StoredRulesError):
        unpack_history(packed)

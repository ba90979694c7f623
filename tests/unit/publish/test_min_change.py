from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ingest.stores import Conflict
from service.publish.min_change import MinChange, parse
from service.publish.publisher import PublishOptions
from service.scoring.change import StreamImage, shown_in
from tests.fakes.aio import in_virtual_time
from tests.fakes.images import stream_image
from tests.fakes.publishing import PublishSetup, Scores, batch, key

FIVE, TEN_PER_CENT = MinChange(points=Decimal(5)), MinChange(per_cent=Decimal(10))
SCORE = st.decimals(min_value=-10_000, max_value=10_000, places=2)


@pytest.mark.parametrize(
    ("text", "step"), [("5", FIVE), ("0.5", MinChange(points=Decimal("0.5"))), ("10%", TEN_PER_CENT)]
)
def test_a_step_is_points_or_a_percentage(text: str, step: MinChange):
    assert parse(text) == step


@pytest.mark.parametrize("text", ["", "0", "0%", "-5", "five", "101%", "5 %", "1e3", "nan"])
def test_what_is_not_a_step_is_refused(text: str):
    with pytest.raises(ValueError, match="neither"):
        parse(text)


@pytest.mark.parametrize(
    ("step", "before", "after", "published"),
    [
        (FIVE, "10", "14", False), (FIVE, "14", "15", True), (FIVE, "0", "-1", True), (FIVE, "-1", "-5", False),
        (TEN_PER_CENT, "100", "101", False), (TEN_PER_CENT, "100", "120", True), (TEN_PER_CENT, "-100", "100", True),
        (TEN_PER_CENT, "0", "0.9", False), (TEN_PER_CENT, "0.9", "1", True),
    ],
)  # fmt: skip
def test_a_change_within_a_step_is_not_published(step: MinChange, before: str, after: str, published: bool):  # noqa: FBT001 - a parameter
    assert step.publishes(Decimal(before), Decimal(after)) == published


@given(st.lists(SCORE, min_size=1, max_size=50), st.sampled_from([FIVE, TEN_PER_CENT]))
def test_what_a_sink_holds_is_off_by_less_than_a_step(scores: list[Decimal], step: MinChange):
    held, before = scores[0], scores[0]
    for score in scores[1:]:
        if step.publishes(before, score):
            held = score
        before = score
        width = Decimal(5) if step.points else max(Decimal(1), abs(score), abs(held)) * Decimal("0.11")
        assert abs(held - score) <= max(width, Decimal(1))


def test_a_score_that_is_new_or_written_again_is_published():
    assert FIVE.publishes(None, Decimal(1))
    assert FIVE.publishes(Decimal(1), Decimal(1))


def image(before: str | None, after: str, revision: int, tiers: tuple[str, str] = ("", "")) -> StreamImage:
    keys = {"UserId": {"S": "a"}, "PinpointProjectId": {"S": "p"}}

    def item(score: str, tier: str) -> dict[str, dict[str, object]]:
        return {**keys, "Score": {"N": score}, "Revision": {"N": str(revision)}, "Tier": {"S": tier}}

    new = stream_image(keys, item(after, tiers[1]))
    old = stream_image(keys, item(before, tiers[0])).new if before is not None else None
    return StreamImage(new.keys, new.new, old)


def test_an_image_that_cannot_be_read_shows_nothing():
    for image_text in (None, b"", b"{", b"[]", b'{"Score": {"N": "x"}, "Tier": {"N": 1}}'):
        assert shown_in(image_text).score is None
        assert shown_in(image_text).tier == ""


@in_virtual_time
async def test_small_changes_are_counted_and_the_rest_is_published():
    setup = PublishSetup(options=PublishOptions(min_change=FIVE))
    told = []
    async with setup.running() as publisher:
        for revision, made in enumerate(
            [
                image(None, "10", 1),
                image("10", "12", 2),
                image("12", "16", 3),
                image("16", "17", 4, ("", "hot")),
                image("17", "17", 5),
                image("17", "18", 6),
            ],
            1,
        ):
            await publisher.commit(await publisher.prepare(batch(made)))
            told.append((revision, setup.sinks[0].values[key("a")].revision))
    assert [held for _, held in told] == [1, 1, 3, 4, 5, 5]
    assert setup.count("changes_too_small_total") == 2


@in_virtual_time
async def test_another_write_may_be_too_small_to_be_as_good():
    """That write may be too small to be published."""
    scores = Scores(a=1)
    scores.answers.append(Conflict(None))
    setup = PublishSetup(scores=scores, options=PublishOptions(min_change=FIVE))
    async with setup.running() as publisher:
        publisher._republisher.later([key("a")], 0)
        await asyncio.sleep(60)
    assert scores.restated == ["a"]

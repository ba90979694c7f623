"""How long marks are needed, as a person changes the retention while workers run."""

from __future__ import annotations

from service.ingest.retention import LOWERED_AFTER_S, TRUSTED_S, Retention
from service.scoring.marks import HOUR_MS, MARGIN_MS

DAY_S = 24 * 3600
DAY_MS = 24 * HOUR_MS


def test_nothing_is_known_before_the_first_answer_and_long_after_the_last():
    retention = Retention()
    assert retention.keep_ms(0) is None
    retention.saw(DAY_S, 10)
    assert retention.keep_ms(10 + TRUSTED_S) == DAY_MS
    assert retention.keep_ms(11 + TRUSTED_S) is None
    retention.saw(DAY_S, 11 + TRUSTED_S)
    assert retention.keep_ms(11 + TRUSTED_S) == DAY_MS


def test_an_unnoticed_longer_retention_stays_within_the_margin():
    """It drops marks of records that had expired when the retention was raised, however late it learns of it."""
    assert TRUSTED_S * 1000 <= MARGIN_MS / 2


def test_a_raised_retention_counts_at_once_and_a_lowered_one_later():
    retention = Retention()
    retention.saw(2 * DAY_S, 0)
    retention.saw(7 * DAY_S, 300)
    assert retention.keep_ms(300) == 7 * DAY_MS
    retention.saw(DAY_S, 600)
    retention.saw(DAY_S, 599 + LOWERED_AFTER_S)
    assert retention.keep_ms(600 + LOWERED_AFTER_S) == 7 * DAY_MS
    retention.saw(DAY_S, 600 + LOWERED_AFTER_S)
    assert retention.keep_ms(600 + LOWERED_AFTER_S) == DAY_MS


def test_a_retention_that_is_lowered_and_raised_again_never_counted():
    retention = Retention()
    retention.saw(7 * DAY_S, 0)
    for seconds, at in ((DAY_S, 300), (7 * DAY_S, 600), (DAY_S, 700)):
        retention.saw(seconds, at)
    retention.saw(DAY_S, 699 + LOWERED_AFTER_S)
    assert retention.keep_ms(700 + LOWERED_AFTER_S) == 7 * DAY_MS


def test_of_two_lower_retentions_the_longer_one_counts_first():
    retention = Retention()
    for seconds, at in ((7 * DAY_S, 0), (DAY_S, 100), (3 * DAY_S, 3000), (DAY_S, 100 + LOWERED_AFTER_S)):
        retention.saw(seconds, at)
    assert retention.keep_ms(100 + LOWERED_AFTER_S) == 3 * DAY_MS


def test_marks_are_kept_no_longer_than_asked_for():
    retention = Retention(2 * DAY_MS)
    retention.saw(365 * DAY_S, 0)
    assert (retention.keep_ms(1), retention.shortened(1)) == (2 * DAY_MS, True)
    retention = Retention(2 * DAY_MS)
    retention.saw(DAY_S, 0)
    assert (retention.keep_ms(1), retention.shortened(1)) == (DAY_MS, False)

"""What the demo says at the end, and what it reads in a worker's metrics."""

import io
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from prometheus_client import generate_latest
from rich.console import Console

from service.aws.streams.writer import MAX_PUT_RECORDS
from service.local.live import Moment, View
from service.local.meter import Counts
from service.local.playback import Playback, PlaybackError, breaths
from service.local.population import populate
from service.local.report import Report, as_document, leaders, report_lines, verdict
from service.local.request_counts import OperationTally
from service.local.traffic import Meaning, campaign
from service.local.truth import Replaced
from service.local.worker_process import gauges_of
from service.observability.metrics import Metrics

RIGHT = Report(
    events=2_000,
    outcomes={"scored": 1_500, "ignored": 500},
    users=3,
    scores={"b": Decimal(5), "a": Decimal(5), "c": Decimal("-2.5")},
    endpoints=6,
    dead_letters={"not_json": 2},
    differences=[],
    bill=Counts(
        {
            "dynamodb.BatchExecuteStatement": OperationTally(requests=100, write_units=900),
            "pinpoint.GetUserEndpoints": OperationTally(requests=3),
        }
    ),
    replaced=Replaced(2_000, 1_500, 1_500, 1_500, 3_000),
    played_s=20.0,
    drained_s=3.0,
    down_s=6.1,
    stop_s=0.4,
    total_s=31.0,
    seed=1,
)


def _text(report: Report) -> str:
    return "\n".join(report_lines(report, 100))


def test_the_verdict_names_what_was_compared_or_the_first_difference():
    assert verdict(RIGHT) == "EXACT: 2,000 events, 3 users, 6 endpoints, every score right"
    wrong = msgspec.structs.replace(RIGHT, differences=["score table: a should have 5, has 6", "other"])
    assert verdict(wrong) == "WRONG: 2 differences in 2,000 events; score table: a should have 5, has 6"
    assert not wrong.exact


def test_the_report_shows_costs_side_by_side_and_whether_the_budget_holds():
    text = _text(RIGHT)
    assert "2,000 + 1,500 + 1,500 + 1,500 + 3,000 = 9,500 requests" in " ".join(text.split())
    assert "(2.00 on average)" in text
    assert "      51.5 requests per 1,000 events" in text  # too few events to judge
    assert RIGHT.within_budget is None
    large = msgspec.structs.replace(RIGHT, events=20_000, bill=Counts({"kinesis.GetRecords": OperationTally(2_400)}))
    assert "PASS  120.0 requests per 1,000 events" in _text(large)
    assert "kill -9 to the first new commit: 6.1 s" in text
    dear = msgspec.structs.replace(large, bill=Counts({"kinesis.GetRecords": OperationTally(2_610)}))
    assert "MISS  130.5 requests per 1,000 events" in _text(dear)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_no_line_of_the_report_is_longer_than_the_terminal(width: int):
    lines = report_lines(RIGHT, width)
    assert max(map(len, lines)) <= width
    words = set(" ".join(lines).split())
    assert {"dynamodb.BatchExecuteStatement", "pinpoint.GetUserEndpoints", "GetUserEndpoints"} <= words


def test_many_differences_are_cut_short():
    text = _text(msgspec.structs.replace(RIGHT, differences=[f"difference {number}" for number in range(25)]))
    assert "difference 9" in text
    assert "difference 10" not in text
    assert "and 15 more" in text


def test_equal_scores_are_led_in_the_order_of_ids():
    assert [user for user, _ in leaders(RIGHT.scores)] == ["a", "b", "c"]


def test_the_document_is_json_and_says_the_same():
    document = msgspec.json.decode(msgspec.json.encode(as_document(RIGHT)))
    assert document["exact"] is True
    assert document["requests_per_1000_events"] == 51.5
    assert document["replaced"]["requests_per_1000_events"] == 4750.0
    assert document["leaderboard"][0] == {"user": "a", "score": "5"}


def test_a_workers_metrics_are_read_from_its_own_catalogue():
    metrics = Metrics()
    assert not gauges_of(generate_latest(metrics.registry).decode()).quiet
    metrics.records.labels("scored").inc(7)
    metrics.records.labels("replayed").inc(3)
    metrics.commits.labels("written").inc(5)
    metrics.sink_updates.labels("pinpoint", "published").inc(4)
    metrics.lag.labels("ingest", "shard-0").set(0)
    metrics.lag.labels("ingest", "shard-1").set(2.5)
    metrics.lag.labels("publish", "shard-0").set(0)
    metrics.leases_owned.labels("ingest").set(2)
    gauges = gauges_of(generate_latest(metrics.registry).decode())
    assert (gauges.handled, gauges.written, gauges.published) == (7, 5, 4)
    assert gauges.lag_s == {"ingest": 2.5, "publish": 0.0}
    assert gauges.shards == {"ingest": 2}
    assert not gauges.quiet
    metrics.lag.labels("ingest", "shard-1").set(0)
    assert gauges_of(generate_latest(metrics.registry).decode()).quiet
    metrics.sink_pending.labels("pinpoint").set(1)
    assert not gauges_of(generate_latest(metrics.registry).decode()).quiet


class _Stream:
    """Refuses the second record of every call the first time it is sent."""

    def __init__(self, *, always: bool = False) -> None:
        self.placed: list[str] = []
        self._refused: set[str] = set()
        self._always = always

    def put_records(self, **call: Any) -> dict[str, Any]:  # noqa: ANN401 - as boto3 has it
        results = []
        for number, record in enumerate(call["Records"]):
            key = record["PartitionKey"]
            refuse = self._always or (number == 1 and key not in self._refused)
            self._refused.add(key)
            if not refuse:
                self.placed.append(key)
            results.append({"ErrorCode": "Throttled"} if refuse else {"ShardId": "s", "SequenceNumber": "1"})
        return {"FailedRecordCount": sum("ErrorCode" in result for result in results), "Records": results}


def _play(stream: _Stream, monkeypatch: pytest.MonkeyPatch) -> tuple[Playback, list[Meaning]]:
    monkeypatch.setattr("service.aws.calls.BACKOFF_BASE_S", 0.0)
    told: list[Meaning] = []
    playback = Playback(stream, "events", campaign(populate(20, 1), 300, 1, rate=1e6), told.extend)
    with playback:
        playback._thread.join(10)
    return playback, told


def test_records_that_were_refused_are_put_again_and_only_those(monkeypatch: pytest.MonkeyPatch):
    stream = _Stream()
    playback, told = _play(stream, monkeypatch)
    assert playback.done
    assert playback.put == len(told) == len(stream.placed) == len(set(stream.placed)) == 300


def test_a_stream_that_refuses_for_good_is_an_error(monkeypatch: pytest.MonkeyPatch):
    playback, told = _play(_Stream(always=True), monkeypatch)
    assert told == []
    with pytest.raises(PlaybackError, match="refused"):
        _ = playback.done


def test_breaths_are_bounded_in_time_and_size():
    records = list(campaign(populate(20, 1), 2_000, 1, rate=100.0))
    assert {len(breath) for breath in list(breaths(records))[:-1]} <= {20, 21}
    fast = list(breaths(campaign(populate(20, 1), 2_000, 1, rate=1e6)))
    assert [len(breath) for breath in fast] == [MAX_PUT_RECORDS] * 4


def test_without_a_terminal_there_are_plain_lines():
    out = io.StringIO()
    with View(Console(file=out, width=200)) as view:
        view.say("starting [bold]things[/]")
        view.show(Moment(put=1_000, total=2_000, processed=900, lag_s=0.4, users=12, endpoints=20, dead_letters=3))
    assert "starting [bold]things[/]" in out.getvalue()
    assert "put 1,000/2,000 · processed 900" in out.getvalue()
    assert "lag 0.4 s, to publish no shard read yet" in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_while_the_worker_is_down_the_view_says_so():
    out = io.StringIO()
    with View(Console(file=out, width=200)) as view:
        view.show(Moment(put=1_000, total=2_000, processed=900, worker_up=False))
    assert "lag not measured: the worker is down" in out.getvalue()
    assert "unknown" not in out.getvalue()


def test_on_a_terminal_there_is_one_view_that_is_drawn_again():
    out = io.StringIO()
    with View(Console(file=out, width=120, force_terminal=True)) as view:
        view.show(Moment(put=1_000, total=2_000, processed=900, users=12))
        view.say("kill -9")
    assert "events processed" in out.getvalue()
    assert "kill -9" in out.getvalue()

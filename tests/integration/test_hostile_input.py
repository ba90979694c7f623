"""A worker process against the embedded AWS, fed what no honest sender sends, over items that are no scores."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from service.aws.schema import state_of
from service.aws.streams.writer import KinesisWriter, Put
from service.aws.tables.dead_letters import DeadLetterTable, StoredLetter
from service.local.worker_process import WorkerProcess
from service.scoring.event import Rejected
from service.sources.registry import Registry
from tests.fakes.hostile import MIB, event, large, records, stored_values
from tests.fakes.hostile import json_bytes as body

Aws: TypeAlias = Any  # clients have no types
Run = Callable[..., Any]

RECORDS = 4000
TYPES = ("_email.open", "_email.click", "_email.complaint", "_campaign.send", "_SMS.SUCCESS", "_session.start")
POINTS = 10
SHARDS = 2
VAST = Decimal(10) ** 36
DEADLINE_S = 120.0
PEAK_BYTES = 400 * MIB
"""Measured 135 to 147 MiB, of which the libraries are 90. What this is to find: 60 bytes for each byte of a record, as
one object per escape once took, or pages kept beyond the 64 MiB that may be in hand."""


@pytest.fixture
def names(
    aws_clients: Aws, run: Run, fresh_name: Callable[[str], str], make_table: Callable[[str], str]
) -> dict[str, str]:
    stream = fresh_name("hostile")
    run(aws_clients.kinesis.create_stream(StreamName=stream, ShardCount=SHARDS))
    return {
        "SCORING_STREAM": stream,
        "SCORING_SCORES_TABLE": make_table("scores"),
        "SCORING_DEFINITIONS_TABLE": make_table("definitions"),
        "SCORING_IDENTITIES_TABLE": make_table("identities"),
        "SCORING_LEASES_TABLE": make_table("leases"),
        "SCORING_DEAD_LETTERS_TABLE": make_table("dead_letters"),
        "SCORING_SINKS": "log",
        "SCORING_IDENTITY_LOOKUP": "off",
        "SCORING_PROJECT_IDS": "p1",
        "SCORING_LOG_LEVEL": "warning",
        "SCORING_LEASE_DURATION_S": "5",
    }


@pytest.fixture
def worker(aws_environment: dict[str, str], names: dict[str, str], tmp_path: Path) -> Iterator[WorkerProcess]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SCORING_", "AWS_"))}
    worker = WorkerProcess({**inherited, **aws_environment, **names}, tmp_path / "worker.log")
    yield worker
    worker.kill()


def hostile_items() -> list[dict[str, dict[str, Any]]]:
    """A user for each odd value of each attribute; DynamoDB takes them all."""
    items = []
    for name in ("Score", "Revision", "Applied", "UpdatedAt"):
        for number, value in enumerate(stored_values()):
            item: dict[str, dict[str, Any]] = {
                "UserId": {"S": f"{name}-{number}"},
                "PinpointProjectId": {"S": "p1"},
                "Score": {"N": "5"},
                "Revision": {"N": "3"},
            }
            items.append(item | {name: value})
    return items


async def prepare(aws: Aws, names: dict[str, str], items: list[dict[str, dict[str, Any]]]) -> None:
    for event_type in TYPES:
        definition = {"EventType": {"S": event_type}, "PinpointProjectId": {"S": "p1"}, "ScoreOffset": {"N": "10"}}
        await aws.dynamodb.put_item(TableName=names["SCORING_DEFINITIONS_TABLE"], Item=definition)
    for item in items:
        await aws.dynamodb.put_item(TableName=names["SCORING_SCORES_TABLE"], Item=item)


async def letters_in(table: DeadLetterTable) -> list[StoredLetter]:
    return [stored async for stored in table.letters()]


async def scores_in(aws: Aws, table: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    async for page in aws.dynamodb.get_paginator("scan").paginate(TableName=table, ConsistentRead=True):
        found |= {item["UserId"]["S"]: item for item in page["Items"] if item["PinpointProjectId"]["S"] == "p1"}
    return found


def until_done(worker: WorkerProcess, count: int) -> None:
    """Wait until `count` events are dealt with and all is published."""
    ends = time.monotonic() + DEADLINE_S
    while not ((gauges := worker.look()) and gauges.handled >= count and gauges.quiet):
        worker.check()
        assert time.monotonic() < ends, f"a shard stalls: {worker.last}"
        time.sleep(0.1)  # another process cannot be awaited


def peak_bytes(worker: WorkerProcess) -> int | None:
    """Return the most memory the process ever had; None where the system does not tell."""
    status = Path(f"/proc/{worker._child.pid}/status")
    if not status.exists():
        return None
    lines = status.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@pytest.mark.filterwarnings("ignore:Sending a large body directly")
def test_the_worker_lives_and_accounts_for_every_record(
    aws_clients: Aws, run: Run, names: dict[str, str], worker: WorkerProcess
):
    items = hostile_items()
    run(prepare(aws_clients, names, items))
    kept = run(scores_in(aws_clients, names["SCORING_SCORES_TABLE"]))
    bodies = [
        *(data for data in records(RECORDS, seed=7) if data),  # Kinesis takes no empty record
        *list(large(MIB - 1000).values()) * 3,  # the emulator takes no larger ones; the unit tests have those of 10 MiB
        *(body(event(user=item["UserId"]["S"])) for item in items),
        body(event(user="the last", endpoint="last")),
    ]
    writer = KinesisWriter(aws_clients.kinesis, names["SCORING_STREAM"])
    worker.start()
    keys = ("", "\u202e", "💥" * 256, "k", "\x00")
    run(writer.put([Put(f"{keys[n % 5][:250]}{n % 7}", data) for n, data in enumerate(bodies)]))
    events = [outcome for data in bodies for outcome in Registry().read(data)]  # damaged JSON lines hold several
    until_done(worker, len(events))
    outcomes = Counter(worker.last.outcomes)
    peak = peak_bytes(worker)
    assert worker.stop() == 0

    assert outcomes["replayed"] == 0
    assert outcomes.total() == len(events)
    stored = run(letters_in(DeadLetterTable(aws_clients.dynamodb, names["SCORING_DEAD_LETTERS_TABLE"])))
    stages = Counter(each.letter.stage for each in stored)
    assert stages["ingest"] + stages["commit"] == outcomes["dead_lettered"]
    assert sum(isinstance(outcome, Rejected) for outcome in events) <= stages["ingest"]

    refused = {item["UserId"]["S"] for item in items if isinstance(state_of(item), Rejected)}
    scores = run(scores_in(aws_clients, names["SCORING_SCORES_TABLE"]))
    before = {
        item["UserId"]["S"]: Decimal(item.get("Score", {}).get("N", "0"))
        for item in items
        if item["UserId"]["S"] not in refused
    }
    # Nobody's business: 10 points more or less are below the 38 digits that a number has.
    vast = {user for user, score in before.items() if abs(score) > VAST}
    gained = {
        user: Decimal(item["Score"]["N"]) - before.get(user, 0)
        for user, item in scores.items()
        if user not in refused | vast
    }
    assert stages["commit"] == len(refused)
    assert sum(gained.values()) == (outcomes["scored"] - len(vast)) * POINTS
    assert scores["the last"]["Score"] == {"N": "10"}
    assert {user: scores[user] for user in refused} == {user: kept[user] for user in refused}
    assert stages["publish"] > 0
    assert peak is None or peak < PEAK_BYTES, f"{peak / MIB:.0f} MiB"

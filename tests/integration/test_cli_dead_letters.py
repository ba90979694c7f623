"""`scoring dead-letters list | show | redrive`."""

# ruff: noqa: F811 # parameters are named after fixtures, which are imported
from __future__ import annotations

import json
import time
from typing import Any

from tests.integration.test_cli import Aws, Cli, Run, cli, names, ready, records  # noqa: F401 # fixtures


def put_letter(aws_clients: Aws, run: Run, table: str, **fields: object) -> None:
    from service.aws.tables.dead_letters import DeadLetterTable  # noqa: PLC0415
    from service.ingest.stores import DeadLetter  # noqa: PLC0415
    from service.scoring.event import Reason  # noqa: PLC0415

    payload = fields.pop("payload", b"no json")
    assert isinstance(payload, bytes)
    letter: dict[str, Any] = {
        "letter_id": "letter.1",
        "stage": "ingest",
        "reason": Reason.NOT_JSON,
        "detail": "not JSON",
        "stream": "",
        "shard_id": "shardId-000000000000",
        "sequence": "1",
        "partition_key": "key",
        "at_ms": time.time_ns() // 1_000_000,
        "payload": payload,
        "payload_size": len(payload),
    } | fields
    run(DeadLetterTable(aws_clients.dynamodb, table).put([DeadLetter(**letter)]))


def test_dead_letters_are_listed_and_shown(ready: Cli, aws_clients: Aws, run: Run, names: dict[str, str]):
    assert ready("dead-letters", "list").stdout == ""
    table = names["SCORING_DEAD_LETTERS_TABLE"]
    put_letter(aws_clients, run, table, letter_id="letter.one", payload=b"\xff\x00")
    put_letter(aws_clients, run, table, letter_id="letter.two", stage="commit", stream="s")
    (listed,) = json.loads(ready("dead-letters", "list", "--stage", "commit", "--json").stdout)
    assert (listed["id"], listed["stage"], listed["reason"], listed["state"]) == (
        "letter.two",
        "commit",
        "not_json",
        "new",
    )
    assert "open: 1 ingest not_json" in ready("dead-letters", "list").stderr
    assert json.loads(ready("dead-letters", "show", "letter.one", "--json").stdout)["payload_base64"] == "/wA="
    assert ready("dead-letters", "show", "letter.one", "--payload").stdout_bytes == b"\xff\x00"
    assert "payload:       no json" in ready("dead-letters", "show", "letter.two").stdout
    assert "no dead letter letter.three" in ready("dead-letters", "show", "letter.three", code=1).stderr
    assert "is not the id of a dead letter" in ready("dead-letters", "show", "three", code=2).stderr


def test_redriving_puts_the_record_back_once(ready: Cli, aws_clients: Aws, run: Run, names: dict[str, str]):
    stream, table = names["SCORING_STREAM"], names["SCORING_DEAD_LETTERS_TABLE"]
    put_letter(aws_clients, run, table, stream=stream)
    ready("dead-letters", "redrive", code=2)  # nobody to ask
    assert "would put back on the stream: 1 ingest not_json" in ready("dead-letters", "redrive", "--dry-run").stderr
    assert records(aws_clients, run, stream) == []
    result = ready("dead-letters", "redrive", "--yes")
    assert result.stdout.startswith(f"letter.1\tredriven\t{stream}/shardId-")
    assert "1 redriven" in result.stderr
    assert "nothing to redrive" in ready("dead-letters", "redrive", "--yes").stderr
    assert records(aws_clients, run, stream) == [b"no json"]
    counted = ready("dead-letters", "list").stderr
    assert "open: " not in counted
    assert "redriven, kept until they expire: 1" in counted
    letter = json.loads(ready("dead-letters", "show", "letter.1", "--json").stdout)
    assert letter["state"] == "redriven"
    assert letter["redriven_to"] in result.stdout


def test_redriving_only_what_was_asked_for(ready: Cli, aws_clients: Aws, run: Run, names: dict[str, str]):
    stream, table = names["SCORING_STREAM"], names["SCORING_DEAD_LETTERS_TABLE"]
    for name in ("one", "two"):
        put_letter(aws_clients, run, table, letter_id=f"letter.{name}", stream=stream, payload=name.encode())
    assert ready("dead-letters", "redrive", "--yes", "--reason", "bad_id", "--json").stdout == "[]\n"
    (result,) = json.loads(ready("dead-letters", "redrive", "--yes", "--id", "letter.two", "--json").stdout)
    assert (result["letter_id"], result["outcome"]) == ("letter.two", "redriven")
    assert records(aws_clients, run, stream) == [b"two"]
    assert "three" in ready("dead-letters", "redrive", "--id", "three", code=1).stderr


def test_a_redrive_that_died_is_taken_up_only_on_demand(ready: Cli, aws_clients: Aws, run: Run, names: dict[str, str]):
    from service.aws.tables.dead_letters import DeadLetterTable  # noqa: PLC0415

    stream, table = names["SCORING_STREAM"], names["SCORING_DEAD_LETTERS_TABLE"]
    put_letter(aws_clients, run, table, stream=stream)
    assert run(DeadLetterTable(aws_clients.dynamodb, table).claim("letter.1"))
    assert "unfinished" in ready("dead-letters", "redrive", "--yes").stderr
    assert records(aws_clients, run, stream) == []
    ready("dead-letters", "redrive", "--yes", "--stuck")
    assert records(aws_clients, run, stream) == [b"no json"]


def test_a_record_that_was_not_kept_is_read_back(ready: Cli, aws_clients: Aws, run: Run, names: dict[str, str]):
    stream, table = names["SCORING_STREAM"], names["SCORING_DEAD_LETTERS_TABLE"]
    put = run(aws_clients.kinesis.put_record(StreamName=stream, PartitionKey="k", Data=b"large"))
    put_letter(
        aws_clients, run, table, letter_id="letter.there", stream=stream, payload=b"", payload_size=5,
        shard_id=put["ShardId"], sequence=put["SequenceNumber"],
    )  # fmt: skip
    put_letter(
        aws_clients, run, table, letter_id="letter.gone", stream=stream, payload=b"", payload_size=5,
        shard_id="shardId-000000000099", sequence=put["SequenceNumber"],
    )  # fmt: skip
    result = ready("dead-letters", "redrive", "--yes", code=1)
    assert "there\tredriven" in result.stdout
    assert "gone\tpayload not kept, and no longer on the stream" in result.stdout
    assert records(aws_clients, run, stream) == [b"large", b"large"]
    assert json.loads(ready("dead-letters", "show", "letter.gone", "--json").stdout)["state"] == "new"


def test_a_score_that_no_sink_took_is_published_again(ready: Cli, aws_clients: Aws, run: Run, names: dict[str, str]):
    scores, table = names["SCORING_SCORES_TABLE"], names["SCORING_DEAD_LETTERS_TABLE"]
    key = {"UserId": {"S": "ann"}, "PinpointProjectId": {"S": "p1"}}
    run(aws_clients.dynamodb.put_item(TableName=scores, Item={**key, "Score": {"N": "5"}, "Revision": {"N": "3"}}))
    for name, user in (("there", "ann"), ("gone", "bob")):
        payload = json.dumps({"user": user, "project": "p1", "score": "5", "revision": 3}).encode()
        put_letter(aws_clients, run, table, letter_id=f"letter.{name}", stage="publish", payload=payload, sequence="")
    result = ready("dead-letters", "redrive", "--yes", "--stage", "publish", code=1)
    assert "there\tredriven\trevision 4" in result.stdout
    assert "gone\tits score is gone" in result.stdout
    item = run(aws_clients.dynamodb.get_item(TableName=scores, Key=key, ConsistentRead=True))["Item"]
    assert (item["Score"], item["Revision"]) == ({"N": "5"}, {"N": "4"})

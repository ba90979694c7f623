from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from service.admin.doctor import Doctor
from service.admin.doctor_plan import Wanted, judge_rates, judge_retention, judge_shards
from service.admin.setup import Setup
from service.admin.setup_plan import Names
from service.aws.clients import Clients, clients
from service.aws.streams.kinesis import tag_of
from service.cli.root import scoring
from service.local.emulator import Emulator
from service.local.pinpoint_fake import PinpointProcess
from service.sinks.pinpoint.registration import PinpointSettings
from service.sinks.trials import Finding, Verdict
from tests.fakes.doctor_gate import DoctorGate
from tests.fakes.embedded import PATIENT, FreshName, Run

PROJECT = "0123456789abcdef0123456789abcdef"
PINPOINT = (("pinpoint", PinpointSettings()),)
FAST = (("pinpoint", PinpointSettings(pinpoint_update_batch_per_s=20)),)


@pytest.fixture(scope="module")
def shared_gate(aws: Emulator) -> Iterator[DoctorGate]:
    with pytest.MonkeyPatch.context() as environment, DoctorGate(aws.endpoint_url) as server:
        for name, value in aws.environment().items():
            environment.setenv(name, value)
        for name in ("KINESIS", "DYNAMODB", "DYNAMODB_STREAMS", "PINPOINT"):
            environment.setenv(f"AWS_ENDPOINT_URL_{name}", server.url)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def gate(shared_gate: DoctorGate) -> Iterator[DoctorGate]:
    yield shared_gate
    shared_gate.denied = set()


@pytest.fixture(scope="module", params=[True, False], ids=["fast calls", "stock calls"])
def aws_clients(request: pytest.FixtureRequest, shared_gate: DoctorGate, runner: asyncio.Runner) -> Iterator[Clients]:
    """A worker's clients, of the gate."""
    assert shared_gate.url
    opened = clients(msgspec.structs.replace(PATIENT, fast_calls=request.param))
    yield runner.run(opened.__aenter__())
    runner.run(opened.__aexit__(None, None, None))


@pytest.fixture
def names(aws_clients: Clients, run: Run, fresh_name: FreshName) -> Names:
    made = Names(*(fresh_name(f"doctor-{field}") for field in Names.__struct_fields__))
    run(Setup(made, aws_clients.dynamodb, aws_clients.kinesis).run([PROJECT]))
    return made


Call = Callable[..., dict[str, Any]]
Examine = Callable[..., list[Finding]]


@pytest.fixture
def call(aws_clients: Clients, run: Run) -> Call:
    return lambda service, method, **params: run(getattr(getattr(aws_clients, service), method)(**params))


@pytest.fixture
def examine(aws_clients: Clients, run: Run, names: Names) -> Examine:
    def examined(**changed: Any) -> list[Finding]:  # noqa: ANN401 # any field of Wanted
        wanted = Wanted(**({"names": names, "ingests": True, "publishes": True} | changed))
        return run(everything(Doctor(wanted, aws_clients)))

    return examined


async def everything(doctor: Doctor) -> list[Finding]:
    return [finding async for finding in doctor.examine()]


def broken(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.verdict is Verdict.BROKEN]


def test_what_setup_makes_is_healthy_and_stays_untouched(examine: Examine, call: Call, names: Names):
    findings = examine()
    assert broken(findings) == []
    assert [finding for finding in findings if finding.verdict is Verdict.NOTE] == []
    # The embedded AWS knows no DescribeLimits, and no score was written that its stream could show.
    assert {finding.subject for finding in findings if finding.verdict is Verdict.SKIPPED} <= {
        "Kinesis quota",
        f"changes in the stream of table {names.scores}",
    }
    for table in (names.scores, names.leases, names.identities, names.dead_letters):
        assert call("dynamodb", "scan", TableName=table)["Count"] == 0


DENIALS = [
    ("BatchGetItem", "dynamodb:BatchGetItem", "identities"),
    ("BatchWriteItem", "dynamodb:BatchWriteItem", "identities"),
    ("BatchExecuteStatement", "dynamodb:PartiQLInsert", "identities"),
    ("BatchExecuteStatement", "dynamodb:PartiQLUpdate", "identities"),
    ("BatchExecuteStatement", "dynamodb:PartiQLUpdate", "scores"),
    ("BatchExecuteStatement", "dynamodb:PartiQLInsert", "scores"),
    ("BatchExecuteStatement", "dynamodb:PartiQLInsert", "dead_letters"),
    ("Query", "dynamodb:Query", "dead_letters"),
    ("Scan", "dynamodb:Scan", "definitions"),
    ("Scan", "dynamodb:Scan", "leases"),
    ("GetItem", "dynamodb:GetItem", "leases"),
    ("PutItem", "dynamodb:PutItem", "leases"),
    ("UpdateItem", "dynamodb:UpdateItem", "leases"),
    ("DeleteItem", "dynamodb:DeleteItem", "leases"),
    ("DescribeTable", "dynamodb:DescribeTable", "scores"),
    ("DescribeStreamSummary", "kinesis:DescribeStreamSummary", "stream"),
    ("ListShards", "kinesis:ListShards", "stream"),
    ("GetShardIterator", "kinesis:GetShardIterator", "stream"),
    ("GetRecords", "kinesis:GetRecords", "stream"),
    ("DescribeStream", "dynamodb:DescribeStream", "scores"),
    ("GetShardIterator", "dynamodb:GetShardIterator", "scores"),
    ("GetRecords", "dynamodb:GetRecords", "scores"),
]


@pytest.mark.parametrize(("operation", "action", "resource"), DENIALS)
def test_a_missing_permission_is_named(
    examine: Examine, gate: DoctorGate, names: Names, operation: str, action: str, resource: str
):
    gate.denied = {operation}
    remedies = {finding.remedy for finding in broken(examine())}
    assert any(remedy.startswith(f"allow {action} on ") and getattr(names, resource) in remedy for remedy in remedies)
    short = action.rpartition(":")[2]
    assert all(short in remedy or operation == "BatchExecuteStatement" for remedy in remedies)


@pytest.mark.parametrize("operation", ["DescribeTimeToLive", "DescribeLimits"])
def test_what_only_the_doctor_would_call_is_no_fault_of_the_service(examine: Examine, gate: DoctorGate, operation: str):
    gate.denied = {operation}
    findings = examine()
    assert broken(findings) == []
    assert any(operation in finding.detail for finding in findings if finding.verdict is Verdict.SKIPPED)


def test_a_table_that_is_not_there(examine: Examine, call: Call, names: Names):
    call("dynamodb", "delete_table", TableName=names.leases)
    found = broken(examine())
    assert (
        Finding(Verdict.BROKEN, f"table {names.leases}", "does not exist", "run `scoring setup`, or correct the name")
        in found
    )
    assert all(names.leases in finding.subject for finding in found)


def test_a_table_with_other_keys(examine: Examine, call: Call, names: Names, fresh_name: FreshName):
    other = fresh_name("other-keys")
    call(
        "dynamodb",
        "create_table",
        TableName=other,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "user_id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "user_id", "KeyType": "HASH"}],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    wrong = Names(names.stream, other, names.definitions, names.identities, names.leases, names.dead_letters)
    found = {finding.subject: finding for finding in broken(examine(names=wrong))}
    assert "user_id (S)" in found[f"table {other}"].detail
    assert "UserId, PinpointProjectId" in found[f"table {other}"].remedy


@pytest.mark.parametrize(
    ("specification", "detail", "remedy"),
    [
        (None, "has no stream", "scoring setup"),
        ({"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}, "shows KEYS_ONLY only", "NEW_IMAGE"),
    ],
)
def test_a_score_table_whose_changes_cannot_be_read(
    examine: Examine,
    call: Call,
    names: Names,
    fresh_name: FreshName,
    specification: dict[str, Any] | None,
    detail: str,
    remedy: str,
):
    other = fresh_name("other-view")
    keys = ("UserId", "PinpointProjectId")
    call(
        "dynamodb",
        "create_table",
        TableName=other,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
        KeySchema=[{"AttributeName": key, "KeyType": kind} for key, kind in zip(keys, ("HASH", "RANGE"), strict=True)],
        **({"StreamSpecification": specification} if specification else {}),
    )
    wrong = Names(names.stream, other, names.definitions, names.identities, names.leases, names.dead_letters)
    (found,) = broken(examine(names=wrong))
    assert detail in found.detail
    assert remedy in found.remedy


def test_a_stream_that_is_not_there(examine: Examine, names: Names):
    wrong = Names("no-such-stream", names.scores, names.definitions, names.identities, names.leases, names.dead_letters)
    found = broken(examine(names=wrong))
    assert found
    assert all("no-such-stream" in finding.subject and "scoring setup" in finding.remedy for finding in found)


def test_no_definitions_mean_no_scores(examine: Examine, call: Call, names: Names):
    for row in call("dynamodb", "scan", TableName=names.definitions)["Items"]:
        key = {name: row[name] for name in ("EventType", "PinpointProjectId")}
        call("dynamodb", "delete_item", TableName=names.definitions, Key=key)
    (found,) = broken(examine())
    assert found.remedy == "write the defaults: scoring setup --project ID"


def test_a_project_id_that_nobody_has_definitions_for_is_broken(examine: Examine, names: Names):
    (found,) = broken(examine(projects=(PROJECT, "nobodys")))
    assert found.subject == f"definitions in {names.definitions} for project nobodys"
    assert found.remedy.endswith("scoring setup --project nobodys")


@pytest.fixture
def pinpoint(gate: DoctorGate) -> Iterator[PinpointProcess]:
    with PinpointProcess(apps=[PROJECT]) as fake:
        gate.pinpoint = fake.endpoint_url
        yield fake


def of_pinpoint(findings: list[Finding]) -> dict[str, Verdict]:
    return {
        finding.subject.partition(":")[2].partition(" ")[0]: finding.verdict
        for finding in findings
        if finding.subject.startswith("mobiletargeting:")
    }


def test_a_pinpoint_project_that_does_not_exist_is_broken(
    examine: Examine, call: Call, names: Names, pinpoint: PinpointProcess
):
    assert pinpoint.endpoint_url
    item = {"EventType": {"S": "A"}, "PinpointProjectId": {"S": "nobodys"}, "ScoreOffset": {"N": "1"}}
    call("dynamodb", "put_item", TableName=names.definitions, Item=item)
    (found,) = broken(examine(projects=("nobodys",), sinks=PINPOINT, lookups=True))
    assert found.subject == "mobiletargeting:GetApp on Pinpoint project nobodys"
    assert found.detail == "there is no Pinpoint project nobodys"
    assert "correct the project id" in found.remedy


def test_a_pinpoint_project_that_exists_is_tried_with_every_call(examine: Examine, pinpoint: PinpointProcess):
    assert pinpoint.endpoint_url
    # No project is configured: the definitions name it.
    findings = examine(sinks=PINPOINT, lookups=True)
    assert broken(findings) == []
    operations = ("GetApp", "GetEndpoint", "GetUserEndpoints", "UpdateEndpointsBatch")
    assert of_pinpoint(findings) == dict.fromkeys(operations, Verdict.OK)


def test_a_role_that_may_not_look_projects_up_is_noted(examine: Examine, pinpoint: PinpointProcess):
    pinpoint.fail("GetApp", status=403)
    findings = examine(sinks=PINPOINT)
    assert broken(findings) == []
    (noted,) = [finding for finding in findings if "GetApp" in finding.subject]
    assert noted.verdict is Verdict.NOTE
    assert "looks like one whose users have no endpoints" in noted.detail


def test_without_a_project_the_doctor_does_not_look_at_pinpoint(examine: Examine):
    findings = examine(ingests=False, sinks=PINPOINT)
    (skipped,) = [finding for finding in findings if finding.subject == "pinpoint"]
    assert skipped.verdict is Verdict.SKIPPED


def test_a_clock_that_is_off(aws_clients: Clients, run: Run, names: Names):
    doctor = Doctor(Wanted(names, ingests=True, publishes=True), aws_clients, wall_s=lambda: 0.0)
    (found,) = broken(run(everything(doctor)))
    assert found.subject == "clock"
    assert "set the clock" in found.remedy


@pytest.mark.parametrize(
    ("hours", "lag_s", "verdict"),
    [
        (168, None, Verdict.OK),
        (168, 60.0, Verdict.OK),
        (24, None, Verdict.NOTE),
        (24, 13 * 3600.0, Verdict.BROKEN),
        (168, 85 * 3600.0, Verdict.BROKEN),
    ],
)
def test_retention_is_held_against_the_lag(hours: float, lag_s: float | None, verdict: Verdict):
    found = judge_retention("stream s", hours, lag_s)
    assert found.verdict is verdict
    assert bool(found.remedy) == (verdict is not Verdict.OK)


def test_the_lag_is_read_behind_the_checkpoints(examine: Examine, call: Call, names: Names):
    put = call("kinesis", "put_record", StreamName=names.stream, Data=b"{}", PartitionKey="a")
    call(
        "dynamodb",
        "put_item",
        TableName=names.leases,
        Item={
            "leaseKey": {"S": f"ingest:tag:{put['ShardId']}"},
            "checkpoint": {"S": put["SequenceNumber"]},
            "leaseCounter": {"N": "1"},
        },
    )
    (found,) = [finding for finding in examine() if "keeps" in finding.detail and names.stream in finding.subject]
    assert "the service is 0 s behind" in found.detail


@pytest.mark.parametrize(
    ("before", "verdict"),
    [("{scores} {id}", Verdict.OK), ("{scores} other", Verdict.BROKEN), ("former", Verdict.BROKEN)],
)
def test_positions_of_a_table_that_was_restored_are_broken(
    examine: Examine, call: Call, names: Names, before: str, verdict: Verdict
):
    subject = f"positions in table {names.leases}"
    assert [finding for finding in examine() if finding.subject == subject] == []
    made = call("dynamodb", "describe_table", TableName=names.scores)["Table"]["TableId"]
    summary = call("kinesis", "describe_stream_summary", StreamName=names.stream)["StreamDescriptionSummary"]
    tag = tag_of(summary)
    row = {"leaseKey": {"S": f"ingest:{tag}:leader:"}, "leaseCounter": {"N": "1"}, "discovered": {"BOOL": True}}
    row |= {"initialPosition": {"S": "LATEST"}, "target": {"S": before.format(scores=names.scores, id=made)}}
    call("dynamodb", "put_item", TableName=names.leases, Item=row)
    (found,) = [finding for finding in examine() if finding.subject == subject]
    assert found.verdict is verdict
    assert ("position reset" in found.remedy) == (verdict is Verdict.BROKEN)


def test_workers_that_share_the_rates_are_counted(examine: Examine, call: Call, names: Names):
    def row(name: str, **attributes: dict[str, Any]) -> None:
        call(
            "dynamodb", "put_item", TableName=names.leases, Item={"leaseKey": {"S": f"publish:tag:{name}"}} | attributes
        )

    def of_rates() -> list[Finding]:
        return [finding for finding in examine(ingests=False) if finding.subject == "rates of publish"]

    assert of_rates() == []
    row("member:a", beats={"N": "1"})
    row("member:b", beats={"N": "1"})
    leader = {"leaseOwner": {"S": "a"}, "leaseCounter": {"N": "1"}, "discovered": {"BOOL": True}}
    leader["initialPosition"] = {"S": "LATEST"}
    row("leader:", **leader, sharing={"B": b"12345678"})
    (found,) = of_rates()
    assert (found.verdict, found.detail) == (Verdict.OK, "shared by 2 workers")
    row("leader:", **leader)
    assert [(found.verdict, found.remedy) for found in of_rates()] == [(Verdict.NOTE, "update every worker")]


def test_quotas_in_sight_are_noted():
    assert judge_shards(499, 500).verdict is Verdict.NOTE
    assert judge_shards(4, 500).verdict is Verdict.OK
    names = Names("s", "scores", "definitions", "identities", "leases", "letters")
    wanted = Wanted(names, ingests=True, publishes=True, sinks=FAST, lookups=True, lookups_per_s=100)
    assert len(judge_rates(wanted)) == 2
    assert judge_rates(Wanted(names, ingests=True, publishes=True, sinks=PINPOINT)) == []


class TestCommand:
    @pytest.fixture
    def environment(self, names: Names, gate: DoctorGate) -> dict[str, str]:
        assert gate.url
        return {
            "SCORING_STREAM": names.stream,
            "SCORING_SCORES_TABLE": names.scores,
            "SCORING_DEFINITIONS_TABLE": names.definitions,
            "SCORING_IDENTITIES_TABLE": names.identities,
            "SCORING_LEASES_TABLE": names.leases,
            "SCORING_DEAD_LETTERS_TABLE": names.dead_letters,
            "SCORING_SINKS": "log",
        }

    def test_all_is_well(self, environment: dict[str, str]):
        ended = CliRunner().invoke(scoring, ["doctor"], env=environment)
        assert ended.exit_code == 0, ended.output
        assert "checks passed" in ended.stderr

    def test_what_is_broken_is_said_with_its_remedy(self, environment: dict[str, str], gate: DoctorGate):
        gate.denied = {"ListShards"}
        ended = CliRunner().invoke(scoring, ["doctor", "--json"], env=environment)
        assert ended.exit_code == 1
        (found,) = [item for item in json.loads(ended.stdout) if item["verdict"] == "broken"]
        assert found["remedy"] == f"allow kinesis:ListShards on stream {environment['SCORING_STREAM']} to this role"

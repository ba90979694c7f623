"""The data template deployed for real, and `scoring run` on it with the environment of the service template."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest

from service.local.emulator import REGION, Emulator
from service.local.meter import Meter
from service.local.pinpoint_fake import PinpointProcess
from service.local.worker_process import WorkerProcess
from tests.deploy.calls import worker_actions
from tests.deploy.templates import DIGEST, service, text
from tests.fakes.embedded import POLLED

PROJECT = "5f0c2d9e8b7a4c61a3d2e1f0b9c8a7d6"
SAMPLES = Path(__file__).parents[1] / "samples" / "pinpoint-events.jsonl"
PATIENCE_S = 60.0

PARTIQL = {"dynamodb:PartiQLInsert", "dynamodb:PartiQLUpdate"}
"""What permits the statements of `dynamodb.BatchExecuteStatement`."""

RARE = {
    "dynamodb:BatchWriteItem": "only endpoints that change hands have rows of former users",
    "dynamodb:Query": "letters are looked for only where a batch is read again",
    "dynamodb:DeleteItem": "lease rows go when their shards are listed no more, hours later",
    "mobiletargeting:GetApp": "asked only where Pinpoint does not find a user or an endpoint",
    "mobiletargeting:GetEndpoint": "asked only for an endpoint that no event explained",
}
"""Granted, and not always called in a short life: why."""


class Deployed:
    """The embedded AWS with the data stack, and the variables a task would get."""

    def __init__(self, aws: Emulator, pinpoint: PinpointProcess) -> None:
        self.aws, self.pinpoint = aws, pinpoint
        self.outputs = self._deploy()
        stack = service(PinpointProjectId=PROJECT, ImageDigest=DIGEST, **self.outputs)
        (container,) = stack.resources["TaskDefinition"]["Properties"]["ContainerDefinitions"]
        task = {item["Name"]: item["Value"] for item in container["Environment"]}
        own = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SCORING_"))}
        # On this machine nobody else is to reach the worker's port.
        here = {"SCORING_HTTP_HOST": "127.0.0.1"}
        self.environment = own | task | aws.environment() | pinpoint.environment() | here

    def client(self, name: str) -> Any:  # noqa: ANN401 # boto3 makes its clients at run time
        return boto3.session.Session("test", "test").client(
            name, endpoint_url=self.aws.endpoint_url, region_name=REGION
        )

    def _deploy(self) -> Mapping[str, str]:
        formation = self.client("cloudformation")
        formation.create_stack(StackName="data", TemplateBody=text("data"), Capabilities=["CAPABILITY_IAM"])
        formation.get_waiter("stack_create_complete").wait(StackName="data", WaiterConfig=POLLED)
        (stack,) = formation.describe_stacks(StackName="data")["Stacks"]
        return {item["OutputKey"]: item["OutputValue"] for item in stack["Outputs"]}

    def scoring(self, *words: str) -> str:
        done = subprocess.run(  # noqa: S603 # our own command
            [sys.executable, "-m", "service", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def deployed() -> Iterator[Deployed]:
    with Emulator() as aws, PinpointProcess(apps=[PROJECT]) as pinpoint:
        yield Deployed(aws, pinpoint)


@pytest.fixture(scope="module")
def operations(deployed: Deployed, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Run a worker until it has scored and published the samples; return what it asked of AWS, as IAM actions."""
    deployed.scoring("setup", "--project", PROJECT)
    deployed.scoring("send", str(SAMPLES))
    pinpoint = boto3.session.Session("test", "test").client(
        "pinpoint", endpoint_url=deployed.pinpoint.endpoint_url, region_name=REGION
    )
    pinpoint.update_endpoint(
        ApplicationId=PROJECT,
        EndpointId="email-pat",
        EndpointRequest={"ChannelType": "EMAIL", "Address": "pat@example.com", "User": {"UserId": "user-pat"}},
    )
    before = Meter.read(deployed.aws, deployed.pinpoint)
    worker = WorkerProcess(deployed.environment, tmp_path_factory.mktemp("worker") / "log")
    try:
        worker.start().wait_ready()
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:  # a process in real time
            worker.check()
            seen = worker.look()
            if seen and seen.handled >= len(SAMPLES.read_text().splitlines()) and seen.published and seen.quiet:
                break
            time.sleep(0.1)
        else:
            pytest.fail(f"not done: {worker.last}")
    finally:
        assert worker.stop() == 0
    called = Meter.read(deployed.aws, deployed.pinpoint).since(before).by_operation
    prefixes = {"kinesis": "kinesis", "dynamodb": "dynamodb", "streams": "dynamodb", "pinpoint": "mobiletargeting"}
    actions = set()
    for name in called:
        service_name, _, operation = name.partition(".")
        actions.add(f"{prefixes.get(service_name, 'dynamodb')}:{operation}")
    return actions


def test_setup_finds_nothing_left_to_make(deployed: Deployed):
    actions = json.loads(deployed.scoring("setup", "--dry-run", "--json"))
    # The embedded CloudFormation leaves time to live and recovery out; the template's own test looks at these.
    lacking = {action["resource"] for action in actions if action["state"] == "would create"}
    left_out = ("time to live", "point-in-time recovery")
    others = {resource for resource in lacking if not resource.endswith(left_out)}
    assert others == {f"definitions of project {PROJECT}"}
    assert not [action for action in actions if action["state"] == "differs"]


def test_the_worker_scores_and_publishes_on_what_the_template_made(deployed: Deployed, operations: set[str]):
    assert operations
    scores = deployed.client("dynamodb").scan(TableName=deployed.outputs["ScoresTableName"])["Items"]
    assert scores
    assert all(int(item["Revision"]["N"]) >= 1 for item in scores)
    (pat,) = [item for item in scores if item["UserId"]["S"] == "user-pat"]
    (endpoint,) = deployed.pinpoint.endpoints()
    assert endpoint["User"]["UserAttributes"]["EngagementScore"] == [pat["Score"]["N"]]


def test_the_doctor_finds_it_healthy(deployed: Deployed, operations: set[str]):
    assert operations
    findings = json.loads(deployed.scoring("doctor", "--json"))
    assert [finding for finding in findings if finding["verdict"] == "broken"] == []
    subjects = {finding["subject"].partition(" ")[0] for finding in findings if finding["verdict"] == "ok"}
    granted = {action for actions in worker_actions().values() for action in actions}
    assert granted - {"dynamodb:DescribeTable"} <= subjects  # the doctor says what that call told it


def test_what_it_called_is_what_the_template_grants(operations: set[str]):
    granted = {action for actions in worker_actions().values() for action in actions}
    called = operations - {"dynamodb:BatchExecuteStatement"} | PARTIQL
    assert called <= granted
    never = granted - called
    assert never <= RARE.keys(), never


def test_deleting_the_stack_keeps_everything(deployed: Deployed, operations: set[str]):
    assert operations
    formation = deployed.client("cloudformation")
    formation.delete_stack(StackName="data")
    formation.get_waiter("stack_delete_complete").wait(StackName="data", WaiterConfig=POLLED)
    tables = deployed.client("dynamodb").list_tables()["TableNames"]
    assert {deployed.outputs[name] for name in deployed.outputs if name.endswith("TableName")} <= set(tables)
    assert deployed.client("kinesis").list_streams()["StreamNames"] == ["engagement-events"]

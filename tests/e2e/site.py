"""A stream, tables and a Pinpoint project of the end-to-end suite's own, and the commands and workers that use them.

Everything is made under a name that nothing else has, and only what was made here is removed.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from service.local.emulator import Emulator
from service.local.pinpoint_fake import PinpointProcess
from service.local.worker_process import WorkerProcess
from tests.e2e.target import Kind, Target

T = TypeVar("T")

LOOK_EVERY_S = 0.1
COMMAND_TIMEOUT_S = 600.0
"""Longest command: on AWS, `scoring setup` waits for a stream and five tables."""
REMOVAL_TIMEOUT_S = 300.0
LOOKS = {"Delay": 1, "MaxAttempts": int(REMOVAL_TIMEOUT_S)}
LEASE_DURATION_S = 4.0

KINDS = ("scores", "definitions", "identities", "leases", "dead_letters")


def settles(look: Callable[[], T], wanted: T, within_s: float) -> None:
    """Look until it is as `wanted`; fail with the difference after `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while (seen := look()) != wanted and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_S)
    assert seen == wanted, f"not within {within_s:g} s"


class Site:
    """One run's world; a context manager that removes it.

    Attributes:
        project: Id of its Pinpoint project.
        stream: Name of its stream.
        within_s: Longest wait for something the worker does.
    """

    def __init__(self, target: Target, scratch: Path) -> None:
        self._target = target
        self._scratch = scratch
        self._stack = ExitStack()
        self.stream = f"scoring-e2e-{secrets.token_hex(5)}"
        self.tables = {kind: f"{self.stream}-{kind}" for kind in KINDS}
        self.within_s = 60.0 if target.kind is Kind.EMBEDDED else 180.0
        self.environment = dict(target.environment)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self._target.kind is Kind.EMBEDDED:
                self.environment |= stack.enter_context(Emulator()).environment()
            if self._target.own_pinpoint:
                fake = stack.enter_context(PinpointProcess())
                self.environment["AWS_ENDPOINT_URL_PINPOINT"] = fake.environment()["AWS_ENDPOINT_URL_PINPOINT"]
            self.environment |= {
                "SCORING_STREAM": self.stream,
                **{f"SCORING_{kind.upper()}_TABLE": name for kind, name in self.tables.items()},
                "SCORING_SINKS": "pinpoint",
                "SCORING_LEASE_DURATION_S": f"{LEASE_DURATION_S:g}",
                "SCORING_BATCH_MAX_AGE_MS": "300",
            }
            self.kinesis, self.dynamodb, self.pinpoint = self._clients(stack, "kinesis", "dynamodb", "pinpoint")
            self._make(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _clients(self, stack: ExitStack, *services: str) -> Iterable[Any]:
        config = Config(retries={"mode": "standard", "total_max_attempts": 5})
        with pytest.MonkeyPatch.context() as patch:
            for name in os.environ:
                if name.startswith("AWS_"):
                    patch.delenv(name)
            for name, value in self.environment.items():
                if name.startswith("AWS_"):
                    patch.setenv(name, value)
            # boto3 itself knows only AWS_DEFAULT_REGION.
            session = boto3.Session(region_name=self.environment.get("AWS_REGION"))
            for service in services:
                client = session.client(service, config=config)
                stack.callback(client.close)
                yield client

    def _make(self, stack: ExitStack) -> None:
        answer = self.pinpoint.create_app(CreateApplicationRequest={"Name": self.stream})
        self.project = answer["ApplicationResponse"]["Id"]
        stack.callback(self.pinpoint.delete_app, ApplicationId=self.project)
        planned = json.loads(self.scoring("setup", "--project", self.project, "--dry-run", "--json"))
        assert {action["state"] for action in planned} == {"would create"}, "these names are another's"
        # From here on, whatever has these names was made by the next line.
        stack.callback(self.remove)
        made = json.loads(self.scoring("setup", "--project", self.project, "--json"))
        assert {action["state"] for action in made} == {"created"}

    def remove(self) -> None:
        """Delete the stream and the tables, and wait until they are gone; once is enough."""
        removals: list[tuple[Callable[..., Any], dict[str, Any]]] = [
            (self.dynamodb.delete_table, {"TableName": name}) for name in self.tables.values()
        ]
        removals.append((self.kinesis.delete_stream, {"StreamName": self.stream, "EnforceConsumerDeletion": True}))
        deadline = time.monotonic() + REMOVAL_TIMEOUT_S
        for remove, which in removals:
            self._insist(remove, which, deadline)
        for name in self.tables.values():
            self.dynamodb.get_waiter("table_not_exists").wait(TableName=name, WaiterConfig=LOOKS)
        self.kinesis.get_waiter("stream_not_exists").wait(StreamName=self.stream, WaiterConfig=LOOKS)

    def _insist(self, remove: Callable[..., Any], which: Mapping[str, Any], deadline: float) -> None:
        """Remove one thing; one that is still being made or changed is refused until it is."""
        while True:
            try:
                remove(**which)
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code == "ResourceNotFoundException":
                    return
                if code not in ("ResourceInUseException", "LimitExceededException") or time.monotonic() > deadline:
                    raise
                time.sleep(1)
            else:
                return

    def scoring(self, *arguments: str, text: str = "", code: int = 0) -> str:
        """Run a command to its end, as a person would; return what it wrote to standard output."""
        done = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "service", *arguments],
            env=self.environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == code, f"scoring {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def define(self, event_type: str, points: int) -> None:
        """Give events of a type points."""
        self.scoring("definitions", "set", event_type, str(points), "--project", self.project)

    def send(self, events: Iterable[str]) -> None:
        """Send one record per event with `scoring send`."""
        lines = list(events)
        sent = json.loads(self.scoring("send", "-", "--json", text="".join(f"{line}\n" for line in lines)))
        assert (sent["sent"], sent["next_line"]) == (len(lines), None)

    def event(self, event_type: str, endpoint: str, user: str = "") -> str:
        """Return an event of a campaign as Pinpoint would stream it; only events that an SDK sends name a user."""
        named = {"endpoint": {"User": {"UserId": user}}} if user else {}
        return json.dumps(
            {
                "event_type": event_type,
                "event_timestamp": int(time.time() * 1000),
                "arrival_timestamp": int(time.time() * 1000),
                "event_version": "3.1",
                "application": {"app_id": self.project, "sdk": {}},
                "client": {"client_id": endpoint},
                "attributes": {"campaign_id": "f552cc5023d8319aea1181f76f3adcbd"},
                **named,
            }
        )

    def settle(self, endpoints: Mapping[str, str]) -> None:
        """Create endpoints, each of a user, in Pinpoint."""
        for endpoint, user in endpoints.items():
            request = {"ChannelType": "EMAIL", "Address": f"{endpoint}@example.com", "User": {"UserId": user}}
            self.pinpoint.update_endpoint(ApplicationId=self.project, EndpointId=endpoint, EndpointRequest=request)

    def _scan(self, kind: str) -> list[dict[str, Any]]:
        pages = self.dynamodb.get_paginator("scan").paginate(TableName=self.tables[kind], ConsistentRead=True)
        return [item for page in pages for item in page["Items"]]

    def scores(self, users: Iterable[str]) -> dict[str, Decimal]:
        """Return the stored scores of those of `users` that have one."""
        found = {item["UserId"]["S"]: Decimal(item["Score"]["N"]) for item in self._scan("scores")}
        return {user: found[user] for user in users if user in found}

    def letter_count(self) -> int:
        """Return how many dead letters there are."""
        return len(self._scan("dead_letters"))

    def published(self, users: Iterable[str]) -> dict[str, str]:
        """Return what Pinpoint shows as the score of those of `users` that have one there."""
        shown = {}
        for user in sorted(users):
            answer = self.pinpoint.get_user_endpoints(ApplicationId=self.project, UserId=user)
            for endpoint in answer["EndpointsResponse"]["Item"]:
                (shown[user],) = endpoint["User"].get("UserAttributes", {}).get("EngagementScore", ["none"])
        return shown

    def letters(self, *filters: str) -> list[dict[str, Any]]:
        """Return the dead letters, as `scoring dead-letters list` shows them."""
        found: list[dict[str, Any]] = json.loads(self.scoring("dead-letters", "list", "--json", *filters))
        return found

    def open_shards(self) -> int:
        """Return how many shards the stream has."""
        summary = self.kinesis.describe_stream_summary(StreamName=self.stream)["StreamDescriptionSummary"]
        count: int = summary["OpenShardCount"]
        return count

    def worker(self) -> WorkerProcess:
        """Return a worker that serves its metrics; whoever asks for it ends it."""
        worker = WorkerProcess(self.environment, self._scratch / f"worker-{secrets.token_hex(3)}.log").start()
        try:
            worker.wait_ready()
        except BaseException:
            worker.kill()
            raise
        return worker

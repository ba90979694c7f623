"""The template of the sources: rules that match what the built-in sources read, and lose nothing unnoticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.scoring.paths import parse_path, walk
from service.sources.outcomes import RejectedEvent, SkippedEvent
from service.sources.registry import Registry
from tests.deploy.templates import Stack

SAMPLES = Path(__file__).parents[1] / "samples"
STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/engagement-events"
KEY = "arn:aws:kms:eu-west-1:111122223333:key/00000000-0000-0000-0000-000000000000"
ALL = Stack(
    "sources", StreamArn=STREAM, WhatsApp="true", SesConfigurationSet="main", CustomerProfilesDomain="shop", Sms="true"
)
WHATSAPP: dict[str, Any] = {
    "source": "aws.social-messaging",
    "detail-type": "WhatsApp Message Read",
    "detail": {"messageId": "m", "eventTimestamp": "1795168800"},
}


def rules() -> dict[str, dict[str, Any]]:
    return ALL.of_type("AWS::Events::Rule")


def matches(pattern: Any, event: Any) -> bool:  # noqa: ANN401 - JSON
    """Return whether an event matches a pattern, as far as the template uses the language of patterns
    (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-event-patterns.html)."""
    if isinstance(pattern, dict):
        return all(isinstance(event, dict) and matches(inner, event.get(key)) for key, inner in pattern.items())
    return any(_one(wanted, event) for wanted in pattern)


def _one(wanted: Any, value: Any) -> bool:  # noqa: ANN401 - JSON
    if not isinstance(wanted, dict):
        return bool(wanted == value)
    if "exists" in wanted:
        return value is not None
    return isinstance(value, str) and value.startswith(wanted["prefix"])


def envelopes() -> list[dict[str, Any]]:
    lines = [line for name in ("ses", "sms") for line in (SAMPLES / f"{name}.jsonl").read_text("utf-8").splitlines()]
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return [event for event in found if "detail-type" in event] + [WHATSAPP]


@pytest.mark.parametrize("event", envelopes(), ids=lambda event: f"{event['source']} {event['detail-type']}")
def test_a_rule_matches_each_sample_and_keys_it_by_its_message(event: dict[str, Any]):
    (rule,) = [rule for rule in rules().values() if matches(rule["EventPattern"], event)]
    (target,) = rule["Targets"]
    path = target["KinesisParameters"]["PartitionKeyPath"].removeprefix("$.")
    assert walk(event, parse_path(path).steps)
    (outcome, *_) = Registry(default_project="p").read(json.dumps(event).encode())
    assert not isinstance(outcome, RejectedEvent | SkippedEvent)


@pytest.mark.parametrize(
    "event",
    [
        {"source": "aws.ses", "detail-type": "Advisor Recommendation Status Open", "detail": {"version": "1.0.0"}},
        {"source": "aws.sms-voice", "detail-type": "Registration Status", "detail": {"eventType": "REGISTRATION_X"}},
        {"source": "shop", "detail-type": "x", "detail": {"messageId": "m", "eventType": "TEXT_DELIVERED"}},
    ],
)
def test_what_is_not_scored_does_not_go_to_the_stream(event: dict[str, Any]):
    assert not any(matches(rule["EventPattern"], event) for rule in rules().values())


def test_a_rule_retries_for_a_day_then_keeps_the_event_in_a_queue():
    for rule in rules().values():
        (target,) = rule["Targets"]
        assert target["Arn"] == STREAM
        assert target["RetryPolicy"] == {"MaximumEventAgeInSeconds": 86400, "MaximumRetryAttempts": 185}
        assert "DeadLetterConfig" in target
        assert rule.get("EventBusName", "default") == "default"  # where AWS services put their events
    (alarm,) = ALL.of_type("AWS::CloudWatch::Alarm").values()
    assert (alarm["Namespace"], alarm["Threshold"]) == ("AWS/SQS", 0)
    (queue,) = ALL.of_type("AWS::SQS::Queue").values()
    assert queue["SqsManagedSseEnabled"] is True
    assert queue["MessageRetentionPeriod"] == 14 * 86400


def test_the_role_can_only_put_records_on_this_stream():
    def statements(stack: Stack) -> list[Any]:
        (role,) = stack.of_type("AWS::IAM::Role").values()
        (policy,) = role["Policies"]
        return [each for each in policy["PolicyDocument"]["Statement"] if each]

    assert statements(ALL) == [
        {"Effect": "Allow", "Action": ["kinesis:PutRecord", "kinesis:PutRecords"], "Resource": STREAM}
    ]
    with_key = statements(Stack("sources", StreamArn=STREAM, StreamKmsKeyArn=KEY))
    assert with_key[1] == {"Effect": "Allow", "Action": "kms:GenerateDataKey", "Resource": KEY}


def test_each_source_is_optional():
    none = Stack("sources", StreamArn=STREAM, Ses="false", Sms="false")
    kinds = {"AWS::Events::Rule", "AWS::SES::ConfigurationSetEventDestination", "AWS::CustomerProfiles::EventStream"}
    assert {item["Type"] for item in none.resources.values()}.isdisjoint(kinds)
    assert kinds <= {item["Type"] for item in ALL.resources.values()}
    (profiles,) = ALL.of_type("AWS::CustomerProfiles::EventStream").values()
    assert (profiles["DomainName"], profiles["Uri"]) == ("shop", STREAM)

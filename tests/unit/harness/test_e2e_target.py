"""Which AWS the end-to-end suite calls: never one that nobody named."""

from __future__ import annotations

import pytest

from tests.e2e.target import NEEDED, Kind, TargetError, choose

LOCALSTACK = {"AWS_ENDPOINT_URL": "http://127.0.0.1:4566"}
OWNER = {"HOME": "/home/me", "AWS_PROFILE": "prod", "AWS_REGION": "eu-west-1", "SCORING_STREAM": "live"}


@pytest.mark.parametrize("environ", [{}, LOCALSTACK, OWNER, {**OWNER, "AWS_ACCESS_KEY_ID": "live", "AWS": "real"}])
def test_tests_use_the_embedded_one_whatever_the_environment_says(environ: dict[str, str]):
    target = choose(environ)
    assert (target.kind, target.own_pinpoint) == (Kind.EMBEDDED, True)
    assert not any(name.startswith(("AWS_", "SCORING_")) for name in target.environment)


def test_so_does_make_e2e_where_no_endpoint_is_named():
    target = choose({**OWNER, "E2E_AWS": "environment", "AWS_ENDPOINT_URL": ""})
    assert target.kind is Kind.EMBEDDED
    assert "AWS_PROFILE" not in target.environment


@pytest.mark.parametrize("named", [LOCALSTACK, dict.fromkeys(NEEDED, "http://127.0.0.1:4566")])
def test_endpoints_are_used_with_credentials_that_emulators_take(named: dict[str, str]):
    target = choose({"E2E_AWS": "environment", **named})
    assert (target.kind, target.own_pinpoint) == (Kind.ENDPOINTS, True)
    assert target.environment.items() >= named.items()
    assert target.environment["AWS_ACCESS_KEY_ID"] == "test"
    assert target.environment["AWS_REGION"] == "us-east-1"
    assert "E2E_AWS" not in target.environment


def test_credentials_region_and_pinpoint_that_are_given_are_used():
    given = {"AWS_ACCESS_KEY_ID": "mine", "AWS_DEFAULT_REGION": "eu-west-1", "AWS_ENDPOINT_URL_PINPOINT": "http://p"}
    target = choose({"E2E_AWS": "environment", **LOCALSTACK, **given})
    assert target.environment == {**LOCALSTACK, **given}
    assert not target.own_pinpoint
    assert str(target).startswith("the AWS that AWS_ENDPOINT_URL names AWS_DEFAULT_REGION=eu-west-1 ")
    assert "mine" not in str(target)


def test_no_credentials_are_invented_for_an_endpoint_of_aws():
    target = choose({"E2E_AWS": "environment", "AWS_ENDPOINT_URL": "https://vpce.example.com"})
    assert "AWS_ACCESS_KEY_ID" not in target.environment


@pytest.mark.parametrize("absent", NEEDED)
def test_endpoints_for_only_some_of_the_calls_are_refused(absent: str):
    some = {name: "http://127.0.0.1:4566" for name in NEEDED if name != absent}
    with pytest.raises(TargetError, match=f"{absent} is not set"):
        choose({"E2E_AWS": "environment", **some})


def test_endpoints_that_every_sdk_would_ignore_are_refused():
    with pytest.raises(TargetError, match="would go to AWS itself"):
        choose({"E2E_AWS": "environment", **LOCALSTACK, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "TRUE"})


def test_aws_itself_is_used_only_when_asked_for():
    target = choose({**OWNER, "E2E_AWS": "real"})
    assert (target.kind, target.own_pinpoint) == (Kind.REAL, True)
    assert target.environment == {name: value for name, value in OWNER.items() if name != "SCORING_STREAM"}


def test_contradictions_are_refused():
    with pytest.raises(TargetError, match="AWS_ENDPOINT_URL is set"):
        choose({**LOCALSTACK, "E2E_AWS": "real"})
    with pytest.raises(TargetError, match="neither"):
        choose({"E2E_AWS": "prod"})

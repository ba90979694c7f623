from __future__ import annotations

import os
import subprocess
import sys

import click
import pytest
from botocore import exceptions as aws
from click.testing import CliRunner, Result

from service.aws.translation import AwsSetupError
from service.cli.failures import FAILURE, USAGE, Failure, explain, is_known, leaf
from service.cli.root import Root
from service.config.load import ConfigurationError, Problem
from service.observability.http import BindError
from service.runtime.errors import TransientError


def refused(code: str, **details: str) -> aws.ClientError:
    return aws.ClientError({"Error": {"Code": code, "Message": "because", **details}}, "PutItem")


def said(error: BaseException) -> str:
    failure = explain(error)
    return "\n".join([failure.message, getattr(failure, "why", ""), getattr(failure, "remedy", "")])


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (refused("ResourceNotFoundException"), ["resource of PutItem does not exist", "scoring setup"]),
        (refused("AccessDeniedException"), ["does not allow PutItem", "policy"]),
        (refused("ExpiredTokenException"), ["expired", "aws sso login"]),
        (refused("UnrecognizedClientException"), ["does not accept the credentials", "AWS_PROFILE"]),
        (refused("InvalidSignatureException", Message="Signature expired: 20261127T"), ["time of this machine", "NTP"]),
        (
            refused("AccessDeniedException", Message="not authorized to perform: kms:Decrypt"),
            ["encryption key", "enable the KMS"],
        ),
        (refused("KMSInvalidStateException"), ["encryption key", "enable the KMS"]),
        (refused("ThrottlingException"), ["throttles PutItem", "try again"]),
        (refused("ValidationException"), ["PutItem failed", "ValidationException: because"]),
        (aws.NoCredentialsError(), ["no usable credentials", "AWS_PROFILE", "AWS_ACCESS_KEY_ID"]),
        (aws.NoRegionError(), ["AWS_REGION"]),
        (aws.ProfileNotFound(profile="nobody"), ["nobody", "AWS_PROFILE"]),
        (aws.EndpointConnectionError(endpoint_url="http://x"), ["cannot be reached", "http://x"]),
        (aws.ReadTimeoutError(endpoint_url="http://x"), ["cannot be reached", "http://x"]),
        (AwsSetupError("table t does not exist: run `scoring setup`"), ["table t", "scoring setup"]),
        (TransientError("throttled"), ["throttled", "try again"]),
        (BindError("set SCORING_HTTP_PORT"), ["SCORING_HTTP_PORT"]),
        (FileNotFoundError(2, "No such file", "events.jsonl"), ["events.jsonl", "No such file"]),
        (ModuleNotFoundError("no", name="ministack"), ["ministack", "[local]"]),
        (KeyError("x"), ["this is a bug", "SCORING_LOG_LEVEL=debug"]),
    ],
)
def test_what_why_and_what_to_do(error: BaseException, words: list[str]):
    text = said(error)
    assert all(word in text for word in words), text
    assert explain(error).exit_code == FAILURE


def test_configuration_errors_are_usage_errors():
    error = ConfigurationError([Problem("SCORING_A", "is wrong", "fix it"), Problem("SCORING_B", "too", "fix it")])
    assert explain(error).exit_code == USAGE
    assert "SCORING_A is wrong: fix it\n  SCORING_B too" in said(error)


def test_a_bug_among_faults_of_the_world_is_the_one_that_is_told():
    bug, fault = KeyError("x"), TransientError("throttled")
    group = ExceptionGroup("", [fault, ExceptionGroup("", [bug, fault])])
    assert leaf(group) is bug
    assert not is_known(group)
    assert is_known(ExceptionGroup("", [ExceptionGroup("", [fault])]))


@pytest.mark.parametrize("level", ["info", "debug"])
def test_a_traceback_only_at_debug(level: str):
    @click.command(cls=Root, commands_in={"fail": (f"{__name__}:fail", "")})
    def group() -> None: ...

    @click.command()
    def fail() -> None:
        raise RuntimeError("it broke")

    group.get_command = lambda _ctx, _name: fail
    result = CliRunner().invoke(group, ["fail"], env={"SCORING_LOG_LEVEL": level})
    assert result.exit_code == FAILURE
    assert result.stdout == ""
    assert "error: RuntimeError: it broke" in result.stderr
    assert ("Traceback" in result.stderr) == (level == "debug")


def ending(error: BaseException) -> Result:
    @click.command(cls=Root, commands_in={})
    def group() -> None: ...

    @click.command()
    def fail() -> None:
        raise error

    group.get_command = lambda _ctx, _name: fail
    return CliRunner().invoke(group, ["fail"])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_ctrl_c_at_any_moment_is_130_and_not_aborted(error: BaseException):
    result = ending(error)
    assert result.exit_code == 130
    assert result.stderr == "interrupted\n"


def test_a_reader_that_goes_away_inside_a_task_group_is_not_a_fault():
    result = ending(ExceptionGroup("", [ExceptionGroup("", [BrokenPipeError(32, "Broken pipe")])]))
    assert result.exit_code == FAILURE
    assert result.stderr == ""


def test_what_aws_or_an_argument_says_cannot_act_on_the_terminal():
    hostile = "\x1b]0;title\x07"
    for error in (refused("ValidationException", Message=hostile), click.UsageError(hostile), Failure("x", hostile)):
        stderr = ending(error).stderr
        assert r"\x1b]0;title\x07" in stderr
        assert "\x1b" not in stderr


def test_a_failure_says_three_things():
    @click.command()
    def fail() -> None:
        raise Failure("what", "why", "what to do")

    result = CliRunner().invoke(fail)
    assert result.stderr == "error: what\n  why\n  what to do\n"


def test_a_reader_that_goes_away_is_no_error_to_shout_about():
    code = (
        "import os, sys, click\n"
        "from service.cli.root import scoring\n"
        "@click.command()\n"
        "def flood():\n"
        "    for _ in range(100000): click.echo('x' * 100)\n"
        "scoring.get_command = lambda ctx, name: flood\n"
        "scoring.main(['flood'])\n"
    )
    read, write = os.pipe()
    child = subprocess.Popen([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE)  # noqa: S603
    os.close(write)
    os.read(read, 10)
    os.close(read)
    _, stderr = child.communicate(timeout=30)
    assert child.returncode == FAILURE
    assert stderr == b""

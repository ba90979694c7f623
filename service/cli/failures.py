"""What went wrong, why, and what to do: the one place where errors become messages for a person."""

from __future__ import annotations

import errno
import os
import traceback
from typing import IO, Any

import click
from botocore import exceptions as aws

from service.aws.errors import THROTTLES, AwsSetupError, code_of
from service.config.settings import ConfigurationError
from service.observability.http import BindError
from service.runtime.errors import TransientError
from service.runtime.text import printable

FAILURE = 1
USAGE = 2

_NO_SUCH = {"ResourceNotFoundException", "NotFoundException", "NoSuchEntity"}
_DENIED = {"AccessDeniedException", "AccessDenied", "UnauthorizedOperation", "NotAuthorized", "ForbiddenException"}
_BAD_CREDENTIALS = {
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "IncompleteSignature",
    "MissingAuthenticationToken",
}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}


class Failure(click.ClickException):
    """A command that cannot go on.

    Args:
        what: What failed.
        why: The cause, where it is known.
        remedy: What the person can do.
    """

    def __init__(self, what: str, why: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.why = why
        self.remedy = remedy

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the message to standard error; with it the traceback, where the log level is `debug`."""
        if self.__cause__ is not None and os.environ.get("SCORING_LOG_LEVEL", "").lower() == "debug":
            trace = "".join(traceback.format_exception(self.__cause__))
            click.echo(printable(trace, lines=True), err=True, nl=False)
        for line in (f"error: {self.message}", *(f"  {text}" for text in (self.why, self.remedy) if text)):
            # Messages quote what AWS, a file or an event says.
            click.echo(printable(line, lines=True), file=file, err=file is None)


class UsageFailure(Failure):
    """A command that was asked, or configured, wrongly."""

    exit_code = USAGE


_KNOWN = (
    ConfigurationError,
    AwsSetupError,
    BindError,
    TransientError,
    aws.BotoCoreError,
    aws.ClientError,
    click.ClickException,
)


def is_known(error: BaseException) -> bool:
    """Return whether the error is one of the world's (a message will do), and not a bug (a traceback is due)."""
    return isinstance(leaf(error), _KNOWN)


def leaf(error: BaseException) -> BaseException:
    """Return the error inside the groups of task groups that matters most: a bug before a fault of the world."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [leaf(each) for each in error.exceptions]
    return next((each for each in leaves if not isinstance(each, _KNOWN)), leaves[0])


def explain(error: BaseException) -> click.ClickException:
    """Return what to tell the person about `error`."""
    error = leaf(error)
    match error:
        case click.ClickException():
            return error
        case ConfigurationError():
            lines = [f"{problem}" for problem in error.problems]
            return UsageFailure("the configuration is not usable", "\n  ".join(lines))
        case BindError():
            return Failure("the HTTP endpoints cannot be served", str(error))
        case AwsSetupError():
            return Failure("AWS is not set up for this", str(error))
        case aws.ClientError():
            return _refused(error)
        case aws.BotoCoreError():
            return _unreachable(error)
        case TransientError():
            return Failure(
                "AWS does not answer as it should",
                str(error),
                "try again; the state is consistent. If it stays so, check the network and AWS_ENDPOINT_URL",
            )
        case OSError() if error.filename or error.errno in _NO_ROOM:
            return Failure(f"{error.filename or 'the output'} cannot be used", error.strerror or str(error))
        case ModuleNotFoundError() if (error.name or "").split(".")[0] in ("ministack", "service"):
            return Failure(
                f"this command needs {error.name}, which is not installed",
                remedy="install the extra in a clone of the repository: pip install '.[local]'",
            )
    return Failure(
        f"{type(error).__name__}: {error}", "this is a fault of the program", "SCORING_LOG_LEVEL=debug shows where"
    )


def _unreachable(error: aws.BotoCoreError) -> Failure:
    """Return what to say where no answer came, or no request could be made."""
    text = str(error).rstrip(".")
    match error:
        case aws.NoCredentialsError() | aws.PartialCredentialsError() | aws.CredentialRetrievalError():
            return Failure(
                "AWS cannot be asked: there are no usable credentials",
                text,
                "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the task a role",
            )
        case aws.NoRegionError():
            return Failure(
                "AWS cannot be asked: no region is chosen", remedy="set AWS_REGION, for example to us-east-1"
            )
        case aws.ProfileNotFound():
            return Failure(
                "AWS cannot be asked", text, "set AWS_PROFILE to a profile that `aws configure list-profiles` shows"
            )
        case aws.TokenRetrievalError() | aws.SSOTokenLoadError() | aws.UnauthorizedSSOTokenError():
            return Failure("AWS cannot be asked: the sign-in has run out", text, "run: aws sso login")
        case aws.HTTPClientError() | aws.ConnectionError():
            chosen = sorted(name for name in os.environ if name.startswith("AWS_ENDPOINT_URL"))
            remedy = f"check {', '.join(chosen)}" if chosen else "check the network, the region, and the proxy settings"
            return Failure("AWS cannot be reached", text, remedy)
        case aws.ParamValidationError():
            return Failure("AWS would not take this request", text)
    return Failure("AWS cannot be asked", text)


def _refused(error: aws.ClientError) -> Failure:
    """Return what to say where AWS answered, but with an error."""
    details = error.response.get("Error", {})
    code = code_of(error)
    why = f"{code}: {str(details.get('Message') or 'no reason given').rstrip('.')}"
    resource = str(details.get("Resource", ""))
    call = error.operation_name
    of = f" of {resource}" if resource else ""
    if code in _NO_SUCH:
        return Failure(
            f"{resource or 'what ' + call + ' asks for'} does not exist",
            why,
            "run `scoring setup` to create it, or check the SCORING_ variable that names it, and the region",
        )
    if code in _DENIED:
        return Failure(f"AWS does not allow {call}{of}", why, f"give this role or user a policy that allows {call}")
    if code in _EXPIRED:
        return Failure("the AWS credentials have run out", why, "get new ones; for a profile with SSO: aws sso login")
    if code in _BAD_CREDENTIALS:
        return Failure("AWS does not accept the credentials", why, "check AWS_PROFILE or the AWS_ACCESS_KEY_ID in use")
    if code in THROTTLES:
        return Failure(f"AWS asks for less: {call}{of}", why, "try again in a while, or raise the quota or capacity")
    return Failure(f"{call}{of} failed", why)

"""Errors as messages for a person: what failed, why, and what to do."""

from __future__ import annotations

import errno
import os
import traceback
from typing import IO, Any

import click

from service.aws.explain import AWS_ERRORS, explained
from service.aws.translation import AwsSetupError
from service.config.load import ConfigurationError
from service.observability.http import BindError
from service.runtime.errors import NothingWorksError, RefusedError, TransientError, TroubleError
from service.runtime.text import printable

FAILURE = 1
USAGE = 2

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Failure(click.ClickException):
    """A command cannot continue.

    Args:
        what: What failed.
        why: The cause, if it is known.
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
    """The command's arguments or its configuration are wrong."""

    exit_code = USAGE


_KNOWN = (
    ConfigurationError,
    AwsSetupError,
    BindError,
    TransientError,
    RefusedError,
    NothingWorksError,
    *AWS_ERRORS,
    click.ClickException,
)


def is_known(error: BaseException) -> bool:
    """Return whether the error is expected (a message is enough) rather than a bug (a traceback is needed)."""
    return isinstance(leaf(error), _KNOWN)


def leaf(error: BaseException) -> BaseException:
    """Return the most important error inside nested exception groups: a bug before an expected error."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [leaf(each) for each in error.exceptions]
    return next((each for each in leaves if not isinstance(each, _KNOWN)), leaves[0])


def explain(error: BaseException) -> click.ClickException:
    """Return the message for `error`."""
    error = leaf(error)
    said = explained(error)
    if said is not None:
        return Failure(said.what, said.why, said.remedy)
    match error:
        case click.ClickException():
            return error
        case ConfigurationError():
            lines = [f"{problem}" for problem in error.problems]
            return UsageFailure("the configuration is invalid", "\n  ".join(lines))
        case RefusedError():
            return Failure(str(error), error.why, error.remedy)
        case BindError():
            return Failure("the HTTP endpoints cannot be served", str(error))
        case TroubleError() | NothingWorksError():
            setup = isinstance(error, AwsSetupError)
            return Failure("AWS is not set up for this" if setup else "AWS cannot be used", str(error), error.remedy)
        case TransientError():
            return Failure(
                "AWS does not answer as expected",
                str(error),
                "try again; the data is consistent. If the error persists, check the network and AWS_ENDPOINT_URL",
            )
        case OSError() if error.filename or error.errno in _NO_ROOM:
            return Failure(f"{error.filename or 'the output'} cannot be used", error.strerror or str(error))
        case ModuleNotFoundError() if (error.name or "").split(".")[0] in ("ministack", "service"):
            return Failure(
                f"this command needs {error.name}, which is not installed",
                remedy="install the extra in a clone of the repository: pip install '.[local]'",
            )
    return Failure(f"{type(error).__name__}: {error}", "this is a bug", "SCORING_LOG_LEVEL=debug shows the traceback")

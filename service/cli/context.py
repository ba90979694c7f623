"""What commands share: settings, AWS settings for one-shot calls, and running a coroutine."""

from __future__ import annotations

import os
import time
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

from service.config.load import Purpose, load
from service.config.settings import Settings

if TYPE_CHECKING:
    from service.aws.clients import AwsSettings

T = TypeVar("T")

STDIN = "standard input"


def settings_for(purpose: Purpose, **overrides: str) -> Settings:
    """Return the settings from this process's environment.

    Args:
        purpose: Decides which variables are required.
        **overrides: Variables set by command line options, in lower case and without the prefix.

    Raises:
        ConfigurationError: Lists everything that is wrong.
    """
    environ = dict(os.environ) | {f"SCORING_{name.upper()}": value for name, value in overrides.items()}
    return load(environ, purpose, profile_region=_profile_region(environ), now_ms=time.time_ns() // 1_000_000)


def _profile_region(environ: Mapping[str, str]) -> str | None:
    if environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"):
        return None
    from service.aws.credentials import profile_region  # noqa: PLC0415 # slow to import, and rarely needed

    return profile_region()


def aws_settings(settings: Settings, *, attempts: int = 5) -> AwsSettings:
    """Return AWS settings for one-shot commands, with long timeouts and retries.

    Args:
        settings: Has the region.
        attempts: Requests per call; 1 if a repeated call would count twice.
    """
    from service.aws.clients import AwsSettings  # noqa: PLC0415 # slow to import

    return AwsSettings(region=settings.aws_region, read_timeout_s=20, attempts=attempts, fast_calls=settings.fast_calls)


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end."""
    import asyncio  # noqa: PLC0415 # keeps `--help` quick

    return asyncio.run(work)


def one_project(settings: Settings, project: str | None) -> str:
    """Return the project that a command is about: the option, or else the only configured one.

    Raises:
        click.UsageError: Neither names exactly one project.
    """
    if project:
        return project
    if len(settings.project_ids) == 1:
        return settings.project_ids[0]
    raise click.UsageError("which project? Use --project, or set SCORING_PROJECT_IDS to one id")


def name_of(file: BinaryIO) -> str:
    """Return the name of a file argument for messages; `-` is standard input."""
    name = getattr(file, "name", None)
    return name if isinstance(name, str) and name != "<stdin>" else STDIN

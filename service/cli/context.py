"""What commands share: settings, AWS clients for one-shot calls, and output that suits a person or a program."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import msgspec

from service.config.settings import Purpose, Settings, load

if TYPE_CHECKING:
    from service.aws.clients import AwsSettings

T = TypeVar("T")

_YEAR_10000_MS: Final = 253_402_300_800_000
_JSON: Final = msgspec.json.Encoder(decimal_format="number")

json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON to standard output.")


def settings_for(purpose: Purpose, **overrides: str) -> Settings:
    """Return the settings of this process's environment.

    Args:
        purpose: What must be there.
        **overrides: Variables that command line options set, without the prefix and in lower case.

    Raises:
        ConfigurationError: With everything that is wrong.
    """
    environ = dict(os.environ) | {f"SCORING_{name.upper()}": value for name, value in overrides.items()}
    return load(environ, purpose, profile_region=_profile_region(environ), now_ms=time.time_ns() // 1_000_000)


def _profile_region(environ: Mapping[str, str]) -> str | None:
    if environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"):
        return None
    from botocore.exceptions import ProfileNotFound  # noqa: PLC0415 # slow to import, and rarely needed
    from botocore.session import Session  # noqa: PLC0415 # likewise

    try:
        return Session().get_config_variable("region") or None
    except ProfileNotFound:
        return None  # said when the first client is made


def aws_settings(settings: Settings) -> AwsSettings:
    """Return how one-shot commands call AWS: patiently, because nobody calls again for them."""
    from service.aws.clients import AwsSettings  # noqa: PLC0415 # slow to import

    return AwsSettings(region=settings.aws_region, read_timeout_s=20, attempts=5)


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's asynchronous part to its end."""
    import asyncio  # noqa: PLC0415 # keeps `--help` quick

    return asyncio.run(work)


class Aws:
    """boto3 clients for one-shot commands, made when first used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def kinesis(self) -> Any:  # noqa: ANN401 # boto3 makes its clients at run time
        """The Kinesis client."""
        return self._client("kinesis")

    @cached_property
    def dynamodb(self) -> Any:  # noqa: ANN401 # likewise
        """The DynamoDB client."""
        return self._client("dynamodb")

    def _client(self, service: str) -> Any:  # noqa: ANN401 # likewise
        from service.admin.setup import client as boto3_client  # noqa: PLC0415 # slow to import

        client = boto3_client(service, aws_settings(self._settings))
        client.meta.events.register("before-parameter-build", _note_resource)
        client.meta.events.register("after-call", _name_resource)
        return client


def _note_resource(params: Mapping[str, Any], context: dict[str, Any], **_kwargs: object) -> None:
    for name in ("TableName", "StreamName", "StreamARN"):
        if name in params:
            kind = "table" if name == "TableName" else "stream"
            context["scoring_resource"] = f"{kind} {params[name]}"


def _name_resource(parsed: dict[str, Any], context: Mapping[str, Any], **_kwargs: object) -> None:
    """Put the table or stream into the error, which by itself does not say which one it means."""
    if "Error" in parsed and "scoring_resource" in context:
        parsed["Error"]["Resource"] = context["scoring_resource"]


def stream_argument(settings: Settings) -> dict[str, str]:
    """Return how Kinesis calls name the stream."""
    return {"StreamARN" if settings.stream.startswith("arn:") else "StreamName": settings.stream}


def one_project(settings: Settings, project: str | None) -> str:
    """Return the project a command is about: the option, else the only one configured.

    Raises:
        click.UsageError: Neither says which.
    """
    if project:
        return project
    if len(settings.project_ids) == 1:
        return settings.project_ids[0]
    raise click.UsageError("which project? Name it with --project, or set SCORING_PROJECT_IDS to one id")


def print_json(value: object) -> None:
    """Write one JSON document to standard output, indented on a terminal."""
    encoded = _JSON.encode(value)
    click.echo(msgspec.json.format(encoded, indent=2 if sys.stdout.isatty() else -1).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """Write rows to standard output: a table on a terminal, tab-separated lines elsewhere.

    Args:
        columns: Headings.
        rows: As many cells each.
        empty: Said on standard error where there are no rows.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        click.echo(empty, err=True)
        return
    if not sys.stdout.isatty():
        for line in ([column.lower().replace(" ", "_") for column in columns], *cells):
            click.echo("\t".join(" ".join(cell.split()) for cell in line))
        return
    from rich.console import Console  # noqa: PLC0415 # only a terminal needs it
    from rich.table import Table  # noqa: PLC0415 # likewise
    from rich.text import Text  # noqa: PLC0415 # likewise

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for line in cells:
        table.add_row(*map(Text, line))
    Console().print(table)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def note(text: str) -> None:
    """Tell the person how it goes: standard error."""
    click.echo(text, err=True)


def number_of(count: int, what: str) -> str:
    """Return `1 shard`, `2 shards`."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def iso(epoch_ms: int) -> str:
    """Return an ISO UTC time of epoch milliseconds; empty for 0, which means not known, and beyond the year 9999."""
    if not 0 < epoch_ms < _YEAR_10000_MS:
        return ""
    from datetime import UTC, datetime  # noqa: PLC0415 # keeps `--help` quick

    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

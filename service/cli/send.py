"""`scoring send`: puts JSON lines on the stream, byte for byte."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from itertools import chain
from typing import BinaryIO

import click

from service.admin.input_files import HEAD_BYTES, unusable
from service.admin.send import MAX_ROUNDS, Account, Line, LineSender, batches, lines, ranges
from service.aws.clients import clients
from service.aws.streams.writer import KinesisWriter
from service.cli.context import STDIN, aws_settings, name_of, settings_for
from service.cli.failures import FAILURE, UsageFailure
from service.cli.interrupt import Interrupt
from service.cli.output import console, err_is_terminal, json_option, note, number_of, print_json, write
from service.cli.root import INTERRUPTED
from service.config.load import Purpose
from service.config.settings import Settings

CHUNK_BYTES = 256 * 1024
MAX_RANGES = 50
"""Ranges of lines that are listed one by one."""


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option(
    "--partition-key",
    "key_path",
    metavar="PATH",
    default="client.client_id",
    show_default=True,
    help="Path of the partition key in a record; a record without one gets a hash of itself.",
)
@click.option("--from-line", type=click.IntRange(1), default=1, show_default=True, help="Start at this line.")
@click.option(
    "--as-is", is_flag=True, help="Send the lines even if FILE looks compressed or is not one event per line."
)
@json_option
@click.pass_context
def send(ctx: click.Context, file: BinaryIO, key_path: str, from_line: int, *, as_is: bool, as_json: bool) -> None:
    """Put each line of FILE on the stream as one record; `-` is standard input.

    Lines are sent unchanged. Malformed ones become dead letters. A file that is sent twice counts twice. However the
    command ends, it reports how many lines were sent and where to continue.
    """
    settings = settings_for(Purpose.STREAM)
    called = name_of(file)
    name = "FILE" if called == STDIN else shlex.quote(called)
    chunks = _chunks(file)
    head = b"" if as_is else next(chunks, b"")
    found = unusable(head[:HEAD_BYTES], name)
    if found is not None:
        raise UsageFailure(
            f"{called} {found.what}",
            "each line is sent as one record",
            f"try: {found.command} | scoring send -\n  or send the lines unchanged with --as-is",
        )
    path = [part for part in key_path.split(".") if part]
    started = time.monotonic()
    with Interrupt("the call in flight") as interrupt:
        account, error = _send(settings, lines(chain([head], chunks), path, from_line), from_line, file, interrupt)
    account.seconds = round(time.monotonic() - started, 3)
    if as_json:
        print_json(account)
    else:
        write(
            f"sent {number_of(account.sent, 'record')}, {account.sent_bytes:,} bytes, "
            f"to {number_of(account.shards, 'shard')} of {settings.stream_name} in {account.seconds:.1f} s"
            + (f"; {account.resent:,} sent again" if account.resent else "")
        )
    if account.complete:
        if from_line > 1 and not account.sent:
            note(f"{called} has no record at line {from_line} or after it")
        return
    for text in explained(account, name, interrupted=interrupt.asked):
        note(text)
    if error is not None:
        raise error
    ctx.exit(INTERRUPTED if interrupt.asked else FAILURE)


def _send(
    settings: Settings, source: Iterator[Line], first: int, file: BinaryIO, interrupt: Interrupt
) -> tuple[Account, Exception | None]:
    """Send the lines; return the account, and an error that the account does not explain."""
    with asyncio.Runner() as runner, ExitStack() as stack:
        opened = AsyncExitStack()
        aws = runner.run(opened.enter_async_context(clients(aws_settings(settings, attempts=1))))
        stack.callback(lambda: runner.run(opened.aclose()))
        writer = KinesisWriter(aws.kinesis, settings.stream, rounds=MAX_ROUNDS)
        sender = LineSender(writer, first, lambda: interrupt.asked)
        advance = stack.enter_context(_progress(file))
        numbered = batches(source)
        try:
            while True:
                with interrupt.idle():
                    batch = next(numbered, None)
                if batch is None:
                    sender.finished()
                    break
                if not runner.run(sender.send(batch)):
                    break
                advance(sum(len(line.put.data) + 1 for line in batch))
        except KeyboardInterrupt:
            pass  # the account says how far it got
        except Exception as error:  # noqa: BLE001 # raised by the caller, after the account
            return sender.account, error
        return sender.account, None


def explained(account: Account, name: str, *, interrupted: bool) -> list[str]:
    """Return the messages about a file that was not sent completely.

    Args:
        account: How far it got.
        name: The file's name in a shell command.
        interrupted: Whether a person interrupted it.
    """
    cause = "interrupted" if interrupted else f"error: {account.error}"
    go_on = f"  continue with --from-line {account.next_line}"
    if account.fault_line is not None:
        line = account.fault_line
        return [
            f"error: line {line} cannot be sent: {account.error}",
            "  this line and the lines after it are not on the stream",
            f"  correct it and continue with --from-line {line}, or skip it with --from-line {line + 1}",
        ]
    if account.not_taken:
        runs = ranges(account.not_taken)
        named = ", ".join(f"{low}-{high}" if high > low else f"{low}" for low, high in runs[:MAX_RANGES])
        more = f" and {len(runs) - MAX_RANGES} more ranges (--json lists every line)" if len(runs) > MAX_RANGES else ""
        only = ";".join(f"{low},{high}p" if high > low else f"{low}p" for low, high in runs)
        return [
            f"{cause}: the stream did not accept {number_of(len(account.not_taken), 'record')}",
            f"  lines {named}{more}",
            *([f"  send them with: sed -n '{only}' {name} | scoring send -"] if not more else []),
            f"{go_on} afterwards",
        ]
    if account.uncertain is not None:
        first, last = account.uncertain
        return [
            f"{cause}: lines {first} to {last} got no answer",
            "  those that are not counted above may or may not be on the stream",
            f"  to skip them: --from-line {last + 1}",
            f"  to send them again (those that arrived will count twice): --from-line {first}",
        ]
    return [cause, go_on]


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    """Yield a file's bytes as they arrive: from a pipe, without waiting for a whole chunk."""
    some: Callable[[int], bytes] = getattr(file, "read1", file.read)
    while chunk := some(CHUNK_BYTES):
        yield chunk


@contextmanager
def _progress(file: BinaryIO) -> Iterator[Callable[[int], None]]:
    """Show progress on a terminal; yield a function to call with the number of bytes sent."""
    if not err_is_terminal():
        yield lambda _count: None
        return
    # Slow to import, and only needed on a terminal.
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn  # noqa: PLC0415

    columns = (TextColumn("sending"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        task = progress.add_task("sending", total=_size(file))
        yield lambda count: progress.advance(task, count)


def _size(file: BinaryIO) -> int | None:
    if not file.seekable():
        return None
    here = file.tell()
    size = file.seek(0, 2)
    file.seek(here)
    return size

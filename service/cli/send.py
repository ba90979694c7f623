"""`scoring send`: JSON lines go to the stream, byte for byte."""

from __future__ import annotations

import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import click
import msgspec

from service.cli.context import Aws, settings_for, stream_argument
from service.cli.failures import FAILURE, Failure
from service.cli.output import console, err_is_terminal, json_option, note, number_of, print_json, write
from service.config.settings import Purpose

MAX_RECORDS = 500
MAX_CALL_BYTES = 5 * 1024 * 1024
"""PutRecords takes 500 records; 5 MiB a call, partition keys included, is within what every region allows
(https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html)."""
MAX_RECORD_BYTES = 10 * 1024 * 1024
"""Largest record a stream can be set to take (same page); most streams take 1 MiB."""
MAX_KEY_CHARACTERS = 256
"""Longest partition key (same page)."""
MAX_ATTEMPTS = 10
"""Calls that one record is part of before it counts as failed."""
BACKOFF_S = 0.1
BACKOFF_MAX_S = 5.0


class Line(msgspec.Struct, frozen=True):
    """A record to send, and the line of the file it came from."""

    number: int
    data: bytes
    key: str

    @property
    def size(self) -> int:
        """Bytes that count against a call."""
        return len(self.data) + len(self.key.encode())


class Summary(msgspec.Struct):
    """What became of the file."""

    sent: int = 0
    failed: int = 0
    sent_bytes: int = 0
    calls: int = 0
    retried: int = 0
    shards: int = 0
    seconds: float = 0.0


def partition_key(data: bytes, path: Sequence[str]) -> str:
    """Return the value at `path` inside a JSON record; a hash of the record where there is none."""
    value: object = None
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        path = ()
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    if path and isinstance(value, str | int) and 0 < len(str(value)) <= MAX_KEY_CHARACTERS and _encodes(str(value)):
        return str(value)
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Yield the lines in order, as many at a time as one call takes."""
    batch: list[Line] = []
    size = 0
    for line in lines:
        if batch and (len(batch) == MAX_RECORDS or size + line.size > MAX_CALL_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += line.size
    if batch:
        yield batch


class Sender:
    """Puts batches on a stream, and puts again what a call did not take.

    Args:
        kinesis: A boto3 client.
        stream: How calls name the stream.
        sleep: Waits that many seconds.
    """

    def __init__(self, kinesis: Any, stream: dict[str, str], sleep: Callable[[float], None] = time.sleep) -> None:  # noqa: ANN401 # boto3 makes its clients at run time
        self._kinesis = kinesis
        self._stream = stream
        self._sleep = sleep
        self._shards: set[str] = set()
        self.summary = Summary()
        self.faults: Counter[str] = Counter()

    def put(self, batch: Sequence[Line]) -> None:
        """Send a batch; what fails `MAX_ATTEMPTS` times is counted as failed."""
        left = list(batch)
        for attempt in range(MAX_ATTEMPTS):
            if attempt:
                self.summary.retried += len(left)
                self._sleep(random.uniform(0.5, 1.0) * min(BACKOFF_MAX_S, BACKOFF_S * 2**attempt))  # noqa: S311 # jitter
            answer = self._kinesis.put_records(
                Records=[{"Data": line.data, "PartitionKey": line.key} for line in left], **self._stream
            )
            self.summary.calls += 1
            again = []
            for line, result in zip(left, answer["Records"], strict=True):
                if result.get("ErrorCode"):
                    again.append((line, str(result["ErrorCode"])))
                    continue
                self.summary.sent += 1
                self.summary.sent_bytes += len(line.data)
                self._shards.add(result["ShardId"])
            self.summary.shards = len(self._shards)
            if not again:
                return
            left = [line for line, _ in again]
        self.summary.failed += len(left)
        self.faults.update(code for _, code in again)


def read(source: BinaryIO, path: Sequence[str], on_bytes: Callable[[int], None]) -> Iterator[Line]:
    """Yield the records of a file: its lines, without line end; empty ones are left out."""
    for number, raw in enumerate(source, 1):
        on_bytes(len(raw))
        data = raw.rstrip(b"\r\n")
        if not data.strip():
            continue
        if len(data) > MAX_RECORD_BYTES:
            raise Failure(
                f"line {number} has {len(data):,} bytes",
                f"a Kinesis record holds at most {MAX_RECORD_BYTES:,}",
                "take it out of the file; the lines before it may be sent already",
            )
        yield Line(number, data, partition_key(data, path))


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option(
    "--partition-key",
    "key_path",
    metavar="PATH",
    default="client.client_id",
    show_default=True,
    help="Where in a record its partition key is; a record without one gets a hash of itself.",
)
@json_option
@click.pass_context
def send(ctx: click.Context, file: BinaryIO, key_path: str, *, as_json: bool) -> None:
    """Put each line of FILE on the stream as one record; `-` is standard input.

    Lines are sent as they are, also those that are no events: those show up as dead letters. A file sent
    twice counts twice, as would a call that was repeated because its answer was lost.
    """
    settings = settings_for(Purpose.STREAM)
    sender = Sender(Aws(settings).kinesis, stream_argument(settings))
    started = time.monotonic()
    path = [part for part in key_path.split(".") if part]
    _send(file, path, sender)
    summary = sender.summary
    summary.seconds = round(time.monotonic() - started, 3)
    if as_json:
        print_json(summary)
    else:
        write(
            f"sent {number_of(summary.sent, 'record')}, {summary.sent_bytes:,} bytes, "
            f"to {number_of(summary.shards, 'shard')} of {settings.stream_name} in {summary.seconds:.1f} s"
            + (f"; {summary.retried:,} sent again" if summary.retried else "")
        )
    if summary.failed:
        reasons = ", ".join(f"{count:,} x {code}" for code, count in sender.faults.most_common())
        note(f"error: {summary.failed:,} records were not taken after {MAX_ATTEMPTS} attempts: {reasons}")
        ctx.exit(FAILURE)


def _send(file: BinaryIO, path: Sequence[str], sender: Sender) -> None:
    if not err_is_terminal():
        for batch in batches(read(file, path, lambda _: None)):
            sender.put(batch)
        return
    # Slow to import, and only a terminal needs it.
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn  # noqa: PLC0415

    columns = (TextColumn("sending"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        task = progress.add_task("sending", total=_size(file))
        for batch in batches(read(file, path, lambda count: progress.advance(task, count))):
            sender.put(batch)


def _size(file: BinaryIO) -> int | None:
    if not file.seekable():
        return None
    here = file.tell()
    size = file.seek(0, 2)
    file.seek(here)
    return size - here

"""Sending the lines of a file as records, with an account that is correct however the sending ends.

Every call is made once, because repeating a call whose answer was lost would put its records twice. So afterwards it
is known which lines are on the stream, which are not, and which may be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from service.aws.streams.writer import (
    MAX_KEY_CHARACTERS,
    MAX_RECORD_BYTES,
    InvalidRecordError,
    KinesisWriter,
    Put,
    PutBatch,
    put_batches,
)
from service.runtime.errors import TransientError

MAX_ROUNDS = 40
"""Calls that contain one record before it counts as not accepted; with their pauses they take about 20 s."""


class Line(msgspec.Struct, frozen=True):
    """A record to send, and its line in the file.

    Attributes:
        number: From 1.
        put: The record.
        fault: Why it cannot be a record; `put` is then empty.
    """

    number: int
    put: Put
    fault: str = ""


class Account(msgspec.Struct):
    """The outcome for the file.

    Attributes:
        sent: Records that are on the stream.
        sent_bytes: Their bytes.
        calls: Calls made.
        resent: Records that were sent in more than one call.
        shards: Shards they are on.
        seconds: Duration.
        next_line: Line at which to continue; None if all were sent.
        fault_line: A line that cannot be sent.
        not_taken: Lines that the stream never accepted.
        uncertain: First and last line of a call whose answer was lost; those that `sent` does not count may or may not
            be on the stream.
        error: The error that ended the sending; empty if there was none, or a person ended it.
    """

    sent: int = 0
    sent_bytes: int = 0
    calls: int = 0
    resent: int = 0
    shards: int = 0
    seconds: float = 0.0
    next_line: int | None = None
    fault_line: int | None = None
    not_taken: list[int] = []
    uncertain: tuple[int, int] | None = None
    error: str = ""

    @property
    def complete(self) -> bool:
        """Whether every line was sent."""
        return self.next_line is None


def partition_key(data: bytes, path: Sequence[str]) -> str:
    """Return the value at `path` inside a JSON record; a hash of the record if there is none."""
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


def lines(chunks: Iterable[bytes], path: Sequence[str], first: int = 1) -> Iterator[Line]:
    """Yield the records of a file: its lines, without line ends and without empty lines.

    A line that cannot be a record is yielded with its fault, and is the last.

    Args:
        chunks: The file's bytes.
        path: Path of the partition key in a record.
        first: Lines before this one are skipped.
    """
    number = 0
    for number, raw in enumerate(_split(chunks), 1):
        data = raw.rstrip(b"\r\n")
        if number < first or not data.strip():
            continue
        if len(data) > MAX_RECORD_BYTES:
            at_least = "at least " if not raw.endswith(b"\n") else ""
            fault = f"it has {at_least}{len(data):,} bytes; a Kinesis record holds at most {MAX_RECORD_BYTES:,}"
            yield Line(number, Put("", b""), fault)
            return
        yield Line(number, Put(partition_key(data, path), data))


def _split(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines with their ends; a line that is too long is cut off and is the last."""
    parts: list[bytes] = []
    size = 0
    for chunk in chunks:
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            yield b"".join([*parts, line, b"\n"])
            parts, size = [], 0
        parts.append(rest)
        size += len(rest)
        if size > MAX_RECORD_BYTES + 1:
            break
    last = b"".join(parts)
    if last:
        yield last


class LineSender:
    """Sends the lines of one file.

    Args:
        writer: Has a client with a single attempt per call.
        first: Number of the first line.
        stopped: Whether a person has asked to stop; what is in flight is finished first.
    """

    def __init__(self, writer: KinesisWriter, first: int = 1, stopped: Callable[[], bool] = lambda: False) -> None:
        self._writer = writer
        self._stopped = stopped
        self._shards: set[str] = set()
        self.account = Account(next_line=first)

    async def send(self, batch: Sequence[Line]) -> bool:
        """Send one of `batches`; return whether to continue. After an error, `account` has the progress."""
        account = self.account
        if self._stopped():
            return False
        fault = batch[-1] if batch[-1].fault else None
        good = [line for line in batch if not line.fault]
        if good and not await self._put(good):
            return False
        if fault is not None:
            account.next_line = account.fault_line = fault.number
            account.error = fault.fault
        return fault is None

    def finished(self) -> None:
        """Record that all lines were sent."""
        self.account.next_line = None

    async def _put(self, part: Sequence[Line]) -> bool:
        account = self.account
        batch = PutBatch([line.put for line in part])
        # Until the answer arrives; this also holds if the call is cut off.
        account.next_line = part[0].number
        account.uncertain = (part[0].number, part[-1].number)
        try:
            await self._writer.put_batch(batch, self._stopped)
        except InvalidRecordError as error:
            account.uncertain = None
            if len(part) > 1:
                # The whole call was refused: sending halves finds the line, and sends those before it.
                half = len(part) // 2
                return await self._put(part[:half]) and await self._put(part[half:])
            account.fault_line = part[0].number
            account.error = str(error)
            return False
        except TransientError as error:
            account.error = str(error)
            account.uncertain = None if error.undone else account.uncertain
            return False
        finally:
            self._count(batch, part)
        account.uncertain = None
        account.next_line = part[-1].number + 1
        account.not_taken = [part[index].number for index in batch.pending]
        if account.not_taken and not self._stopped():
            account.error = ", ".join(f"{count:,} x {code}" for code, count in batch.codes.most_common())
        return not account.not_taken

    def _count(self, batch: PutBatch, part: Sequence[Line]) -> None:
        account = self.account
        account.calls += batch.calls
        account.resent += batch.resent
        for line, landed in zip(part, batch.landed, strict=True):
            if landed is not None:
                account.sent += 1
                account.sent_bytes += len(line.put.data)
                self._shards.add(landed.shard_id)
        account.shards = len(self._shards)


def batches(source: Iterable[Line]) -> Iterator[list[Line]]:
    """Yield lines in order, in batches of one call each."""
    return put_batches(source, lambda line: line.put.size)


def ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return ascending numbers as first and last of each run: 3, 7, 8 as (3, 3), (7, 8)."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs

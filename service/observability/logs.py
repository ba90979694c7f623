"""Logs: one JSON object per line, or lines for a person; the standard library's loggers go the same way.

What a line may hold. No payload of a record, ever: payloads hold e-mail addresses. No user or endpoint id
above DEBUG. Tracebacks carry no frame locals, for the same reason, and the AWS libraries stay at INFO or
above whatever the level, because they log whole request and response bodies at DEBUG. Characters that a terminal would
act on are escaped. Warnings that repeat are counted (`repeats.py`).

Shard, lease and pipeline belong into context variables (`structlog.contextvars.bound_contextvars`): every
line written below carries them.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Sequence
from typing import Any, Final, Literal, Protocol, TextIO, cast

import msgspec
import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from service.observability.repeats import Repeats
from service.runtime.terminal import decorated
from service.runtime.text import printable, printable_json

Format = Literal["json", "console"]


class Stream(Protocol):
    """Where lines go: a text stream, or as much of one as logging needs."""

    def write(self, text: str, /) -> int:
        """Write text; return how many characters."""
        ...

    def flush(self) -> None:
        """Write what is kept back."""
        ...

    def isatty(self) -> bool:
        """Return whether a person reads it."""
        ...


TALKATIVE: Final = ("botocore", "boto3", "aiobotocore", "urllib3", "aiohttp", "asyncio")
"""Loggers whose DEBUG lines hold request bodies, or tell nothing: never below INFO."""

QUIET: Final = ("aiobotocore.credentials", "botocore.credentials", "botocore.configprovider")
"""Loggers whose INFO lines say at every start or renewal where something was found: never below WARNING."""

MAX_FRAMES: Final = 30
"""Stack frames per exception in a JSON line."""

_TRACEBACK: Final = structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=MAX_FRAMES)


def configure(log_format: Format | None = None, level: str = "info", stream: Stream | None = None) -> None:
    """Set logging up for the process; calling it again replaces what was.

    Args:
        log_format: `json`, `console`, or None: `console` where `stream` is a terminal, else `json`.
        level: `debug`, `info`, `warning` or `error`.
        stream: Where lines go; standard error unless given.
    """
    out = cast("TextIO", stream if stream is not None else _Stderr())
    form = log_format or ("console" if out.isatty() else "json")
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    rendered = _rendering(form, colors=out.isatty() and decorated())
    structlog.configure(
        processors=[*shared[:1], Repeats(), *shared[1:], *rendered],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(threshold)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(max(threshold, logging.INFO))
    for name in QUIET:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))
    logging.captureWarnings(capture=True)


class _Stderr:
    """Standard error as it is at each line, not as it was when logging was set up: it may be replaced."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


def _rendering(form: Format, *, colors: bool) -> Sequence[Processor]:
    if form == "console":
        return (
            _escaped,
            structlog.dev.ConsoleRenderer(colors=colors, timestamp_key="time", exception_formatter=_traceback),
        )
    return (structlog.processors.ExceptionRenderer(_TRACEBACK), _json)


def _traceback(out: TextIO, exc_info: ExcInfo) -> None:
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    out.write(printable(text.getvalue(), lines=True))


def _escaped(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Escape what a terminal would act on: errors quote what others say."""
    for name, value in line.items():
        if isinstance(value, str) and not value.isprintable():
            line[name] = printable(value, lines=name in ("exception", "stack"))
    return line


def _json(_logger: WrappedLogger, _method: str, line: EventDict) -> str:
    """Return the line as JSON, time, level and event first."""
    ordered: dict[str, Any] = {key: line.pop(key) for key in ("time", "level", "event") if key in line}
    ordered.update(line)
    try:
        return printable_json(msgspec.json.encode(ordered, enc_hook=repr).decode())
    except (TypeError, ValueError):  # a log line must never be what stops a worker
        return msgspec.json.encode({str(key): _plain(value) for key, value in ordered.items()}).decode()


def _plain(value: object) -> str:
    return value if isinstance(value, str) and value.isascii() else ascii(value)

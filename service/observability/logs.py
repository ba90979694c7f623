"""Logging: one JSON object per line, or lines for a person; also for loggers of the standard library.

Rules for log lines: no payloads of records, because they contain e-mail addresses. No user or endpoint ids above DEBUG.
Tracebacks have no local variables, for the same reason. AWS libraries never log below INFO, because their DEBUG lines
contain whole request and response bodies. Control characters are escaped. Repeated warnings are counted (`repeats.py`).

Shard, lease and pipeline are context variables (`structlog.contextvars.bound_contextvars`), so that every line logged
below has them.
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
    """Destination of log lines: the part of a text stream that logging needs."""

    def write(self, text: str, /) -> int:
        """Write text; return the number of characters."""
        ...

    def flush(self) -> None:
        """Write buffered text."""
        ...

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        ...


TALKATIVE: Final = ("botocore", "boto3", "aiobotocore", "urllib3", "aiohttp", "asyncio")
"""Loggers whose DEBUG lines contain request bodies, or are useless: never below INFO."""

QUIET: Final = ("aiobotocore.credentials", "botocore.credentials", "botocore.configprovider")
"""Loggers whose INFO lines report at every start or renewal where something was found: never below WARNING."""

MAX_FRAMES: Final = 30
"""Most stack frames per exception in a JSON line."""

_TRACEBACK: Final = structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=MAX_FRAMES)


def configure(log_format: Format | None = None, level: str = "info", stream: Stream | None = None) -> None:
    """Configure logging for the process; a second call replaces the configuration.

    Args:
        log_format: `json`, `console`, or None: `console` if `stream` is a terminal, else `json`.
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
    """The current standard error, which may be replaced after logging was configured."""

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
    """Escape control characters: errors quote foreign text."""
    for name, value in line.items():
        if isinstance(value, str) and not value.isprintable():
            line[name] = printable(value, lines=name in ("exception", "stack"))
    return line


def _json(_logger: WrappedLogger, _method: str, line: EventDict) -> str:
    """Return the line as JSON, with time, level and event first."""
    ordered: dict[str, Any] = {key: line.pop(key) for key in ("time", "level", "event") if key in line}
    ordered.update(line)
    try:
        return printable_json(msgspec.json.encode(ordered, enc_hook=repr).decode())
    except (TypeError, ValueError):  # a log line must never stop a worker
        return msgspec.json.encode({str(key): _plain(value) for key, value in ordered.items()}).decode()


def _plain(value: object) -> str:
    return value if isinstance(value, str) and value.isascii() else ascii(value)

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from datetime import datetime

import pytest
import structlog

from service.observability import logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    for name in (*logs.TALKATIVE, *logs.QUIET):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def raise_hostile() -> None:
    raise RuntimeError("\x1b[31m")


def fail() -> None:
    address = "pat@example.com"
    raise RuntimeError("it broke" + address[:0])


def test_a_line_is_one_json_object_with_utc_time(out: io.StringIO):
    logs.configure("json", "info", out)
    with structlog.contextvars.bound_contextvars(shard="shard-1"):
        structlog.get_logger().info("took\na lease", n=3)
    (line,) = lines(out)
    assert line == {"time": line["time"], "level": "info", "event": "took\na lease", "n": 3, "shard": "shard-1"}
    moment = datetime.fromisoformat(str(line["time"]))
    assert moment.utcoffset() is not None
    assert not moment.utcoffset()


def test_the_level_holds(out: io.StringIO):
    logs.configure("json", "warning", out)
    structlog.get_logger().info("no")
    logging.getLogger("some.library").info("no")
    structlog.get_logger().warning("yes")
    assert [line["event"] for line in lines(out)] == ["yes"]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_tracebacks_hold_no_locals(out: io.StringIO, log_format: logs.Format):
    logs.configure(log_format, "debug", out)
    try:
        fail()
    except RuntimeError:
        structlog.get_logger().exception("crashed")
        logging.getLogger("some.library").exception("crashed too")
    assert out.getvalue().count("RuntimeError") >= 2
    assert "pat@example.com" not in out.getvalue()


def test_an_exception_is_structured(out: io.StringIO):
    logs.configure("json", "info", out)
    try:
        fail()
    except RuntimeError:
        structlog.get_logger().exception("crashed")
    (line,) = lines(out)
    (raised,) = line["exception"]
    assert raised["exc_type"] == "RuntimeError"
    assert raised["frames"][-1]["name"] == "fail"
    assert "locals" not in raised["frames"][-1]


def test_the_standard_library_goes_the_same_way(out: io.StringIO):
    logs.configure("json", "info", out)
    with structlog.contextvars.bound_contextvars(shard="shard-1"):
        logging.getLogger("asyncio").warning("slow: %s", "task")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old", stacklevel=1)
        logging.captureWarnings(capture=False)
    first, second = lines(out)
    assert (first["event"], first["logger"], first["shard"]) == ("slow: task", "asyncio", "shard-1")
    assert second["logger"] == "py.warnings"


@pytest.mark.parametrize("name", ["botocore.endpoint", "botocore.parsers", "aiobotocore.x", "urllib3.connectionpool"])
def test_bodies_of_aws_calls_are_never_shown(out: io.StringIO, name: str):
    logs.configure("json", "debug", out)
    logging.getLogger(name).debug("Response body: %s", "pat@example.com")
    assert out.getvalue() == ""


def test_what_json_cannot_say_is_still_logged(out: io.StringIO):
    logs.configure("json", "info", out)
    structlog.get_logger().info("odd", name="\ud800", thing={object(): 1})
    structlog.get_logger().info("bytes", data=object())
    first, second = lines(out)
    assert (first["event"], first["level"]) == ("odd", "info")
    assert "object object" in str(second["data"])


def test_json_unless_a_terminal():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    logs.configure(None, "info", terminal)
    structlog.get_logger().info("hello", n=3)
    assert not terminal.getvalue().startswith("{")
    file = io.StringIO()
    logs.configure(None, "info", file)
    structlog.get_logger().info("hello", n=3)
    assert lines(file)[0]["n"] == 3


def test_standard_error_is_looked_up_at_each_line(monkeypatch: pytest.MonkeyPatch):
    logs.configure("json", "info")
    log = structlog.get_logger()
    for _ in range(2):
        out = io.StringIO()
        monkeypatch.setattr("sys.stderr", out)
        log.info("hello")
        logging.getLogger("asyncio").warning("hello too")
        assert len(lines(out)) == 2


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_what_an_error_quotes_cannot_act_on_the_terminal(out: io.StringIO, log_format: logs.Format):
    logs.configure(log_format, "info", out)
    structlog.get_logger().warning("a.failed", why="\x1b]0;title\x07\x9b31m\u202e", stack="one\ntwo")
    try:
        raise_hostile()
    except RuntimeError:
        structlog.get_logger().exception("crashed")
    assert all(line.isprintable() for line in out.getvalue().splitlines())
    assert "title" in out.getvalue()


def test_warnings_that_repeat_are_written_once(out: io.StringIO):
    logs.configure("json", "info", out)
    for _ in range(5):
        structlog.get_logger().warning("loop.failed", what="beat")
    assert len(lines(out)) == 1


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_are_left_out_where_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for wanted in (True, False):
        terminal = _Terminal()
        logs.configure("console", "info", terminal)
        structlog.get_logger().info("took a lease", n=3)
        assert ("\x1b" in terminal.getvalue()) is wanted
        monkeypatch.setenv(name, value)

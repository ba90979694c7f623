"""What the log brings: a sink for a trial, which writes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.sinks.port import NoOptions, Parts, SinkType

if TYPE_CHECKING:
    from service.ingest.stores import Sink


async def _sink(_: NoOptions, __: Parts) -> Sink:
    from service.sinks.log.sink import LogSink  # noqa: PLC0415 # slow to import

    return LogSink()


SINK = SinkType(name="log", make=_sink)

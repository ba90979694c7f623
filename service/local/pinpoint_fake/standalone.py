"""The fake alone in a process, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence

import uvloop

from service.local.pinpoint_fake.quotas import UNLIMITED
from service.local.pinpoint_fake.server import PinpointFake


def run(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    quotas: Mapping[str, float] = UNLIMITED,
    apps: Sequence[str] = (),
    on_ready: Callable[[PinpointFake], None] = lambda _: None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        host: Address to bind.
        port: Port to bind; 0 takes any free one.
        quotas: Requests per second by operation.
        apps: Ids of applications that exist from the start.
        on_ready: Called once when it serves, to say where.

    Raises:
        OSError: The address cannot be bound.
    """

    async def serve() -> None:
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        async with PinpointFake(host=host, port=port, quotas=quotas, apps=apps) as fake:
            on_ready(fake)
            await ended.wait()

    uvloop.run(serve())

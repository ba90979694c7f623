"""The embedded AWS as a process of its own: ministack, patched, with a meter at its handlers.

Run as `python -m service.local.ministack_child [--port N]` by `service.local.emulator`. It listens on one address only,
127.0.0.1 unless `--host` names another (in a container of its own), prints `{"port": N}` as its first line, and ends
when its standard input closes. `GET /_meter` answers what was counted.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import ipaddress
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version

from service.local.ministack_mends import check, mend_partiql_stream_records, mend_record_expiry, mend_shard_ids
from service.local.ministack_meter import Meter
from service.local.processes import exit_with_parent

SWITCHED_OFF = {
    # An MQTT listener on 0.0.0.0:8883 where `cryptography` is installed, an SFTP one on 0.0.0.0:2222 with `asyncssh`.
    # Both ignore BIND_HOST.
    "IOT_MTLS_ENABLED": "0",
    "SFTP_ENABLED": "0",
    # ministack looks for containers of its own to remove on whatever Docker this machine has.
    "DOCKER_HOST": "unix:///dev/null/no-docker.sock",
    "PERSIST_STATE": "0",
    "USE_SSL": "0",
    "AUTH": "false",
    "SERVICES": "",
}
"""Variables that switch off what this service does not use, however the process was started."""


def only(host: str) -> Callable[[str, tuple[object, ...]], None]:
    """Return an audit hook that refuses every internet socket that is bound to neither `host` nor loopback.

    ministack opens listeners for some services by itself. A release that adds one must not open it to the network.
    """

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event != "socket.bind":
            return
        bound, address = arguments
        if getattr(bound, "family", None) not in (socket.AF_INET, socket.AF_INET6) or not isinstance(address, tuple):
            return
        if address[0] != host and not _is_loopback(str(address[0])):
            raise PermissionError(errno.EACCES, f"the embedded AWS listens on {host} only, not on {address[0] or '*'}")

    return hook


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _serving_socket(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        raise SystemExit(f"{host}:{port} cannot be listened on: {error.strerror}") from None
    return listener


def serve(host: str, port: int) -> None:
    """Patch, bind, announce the port on standard output, and serve until a signal comes or the owner goes."""
    listener = _serving_socket(host, port)
    bound: int = listener.getsockname()[1]
    # Read by ministack when its modules are imported, so before they are.
    os.environ.update({"BIND_HOST": host, "GATEWAY_PORT": str(bound)} | SWITCHED_OFF)
    sys.addaudithook(only(host))
    dynamodb, kinesis, streams, app = (
        import_module(f"ministack.{name}")
        for name in ("services.dynamodb", "services.kinesis", "services.dynamodb_streams", "app")
    )
    check(dynamodb, kinesis, version("ministack"))
    mend_partiql_stream_records(dynamodb)
    mend_record_expiry(kinesis)
    mend_shard_ids(kinesis)
    meter = Meter()
    meter.weigh(dynamodb)
    for module, service in ((dynamodb, "dynamodb"), (kinesis, "kinesis"), (streams, "dynamodbstreams")):
        meter.watch(module, service)

    from hypercorn.asyncio import serve as hypercorn_serve  # noqa: PLC0415 - comes with ministack: extra `local`
    from hypercorn.config import Config  # noqa: PLC0415

    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.loglevel = "WARNING"
    config.graceful_timeout = 0.2
    config.keep_alive_timeout = 75
    sys.stdout.write(json.dumps({"port": bound}) + "\n")
    sys.stdout.flush()
    asyncio.run(hypercorn_serve(meter.app(app.app), config, shutdown_trigger=asyncio.Event().wait))


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the child process."""
    parser = argparse.ArgumentParser(description="The embedded AWS (ministack, patched)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    options = parser.parse_args(arguments)
    exit_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # nothing here outlives the process
    logging.basicConfig(level=logging.WARNING)
    serve(options.host, options.port)


if __name__ == "__main__":
    main()

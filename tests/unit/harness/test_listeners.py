import os
import socket
import subprocess
import sys
from subprocess import PIPE

import pytest

from tests.fakes.listeners import Address, exposed, exposed_below, listening, parse

TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:11D6 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0 100 0 0 10 0
   1: 00000000:22B3 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1 0 100 0 0 10 0
   2: 0100007F:A1B2 0100007F:11D6 01 00000000:00000000 00:00000000 00000000     0        0 13 1 0 20 4 30 10 -1
"""
TABLE_6 = """  sl  local_address                         remote_address                        st ...
   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 21 1 0 100 0 0
   1: 0000000000000000FFFF00000100007F:0051 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 22 1 0 100 0 0
   2: 00000000000000000000000000000000:0052 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 23 1 0 100 0 0
"""
LISTEN_AND_WAIT = """
import socket, sys
with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    print(listener.getsockname()[1], flush=True)
    sys.stdin.read()
"""
needs_proc = pytest.mark.skipif(not os.path.exists("/proc/net/tcp"), reason="/proc is Linux's")  # noqa: PTH110 # once


def test_listening_sockets_are_read_and_connections_are_not():
    assert dict(parse(TABLE)) == {"11": ("127.0.0.1", 4566), "12": ("0.0.0.0", 8883)}  # noqa: S104 # read, not bound
    assert dict(parse(TABLE_6)) == {"21": ("::1", 80), "22": ("127.0.0.1", 81), "23": ("::", 82)}


@pytest.mark.parametrize(
    ("address", "reachable"),
    [
        (("127.0.0.1", 1), False),
        (("127.8.9.1", 1), False),
        (("::1", 1), False),
        (("0.0.0.0", 1), True),  # noqa: S104 # judged, not bound
        (("::", 1), True),
        (("10.0.0.7", 1), True),
    ],
)
def test_only_loopback_cannot_be_reached_from_elsewhere(address: Address, reachable: bool):  # noqa: FBT001 # a table
    assert exposed([address]) == ({address} if reachable else set())


@needs_proc
def test_a_childs_listener_is_found_and_anothers_is_not():
    with (
        socket.create_server(("127.0.0.1", 0)) as own,
        subprocess.Popen([sys.executable, "-c", LISTEN_AND_WAIT], stdin=PIPE, stdout=PIPE) as child,  # noqa: S603 # ours
    ):
        assert child.stdout
        port = int(child.stdout.readline())
        assert listening(child.pid) == {("127.0.0.1", port)}
        assert {("127.0.0.1", port), ("127.0.0.1", own.getsockname()[1])} <= listening(os.getpid())
        assert exposed_below(os.getpid(), set()) == set()
        child.communicate(b"")

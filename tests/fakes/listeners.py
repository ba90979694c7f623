"""Which TCP sockets a process and its descendants listen on, read from Linux's `/proc`; nothing elsewhere."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

PROC = Path("/proc")
LISTEN = "0A"
"""The state's code in `/proc/net/tcp` (include/net/tcp_states.h)."""

Address = tuple[str, int]


def parse(table: str) -> Iterator[tuple[str, Address]]:
    """Yield inode and address of each listening socket of a `/proc/net/tcp` or `/proc/net/tcp6`."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        if fields[3] == LISTEN:
            host, _, port = fields[1].partition(":")
            yield fields[9], (_host(host), int(port, 16))


def _host(text: str) -> str:
    """Return an address that is written as 32-bit words, each with its lowest byte first."""
    packed = b"".join(bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8))
    address = ipaddress.ip_address(packed)
    # An IPv6 socket that serves IPv4 shows the IPv4 address in its mapped form.
    return str(getattr(address, "ipv4_mapped", None) or address)


def exposed(addresses: Iterable[Address]) -> set[Address]:
    """Return those that another machine could reach."""
    return {address for address in addresses if not ipaddress.ip_address(address[0]).is_loopback}


def listening(pid: int) -> set[Address]:
    """Return where a process and its descendants listen."""
    sockets = _sockets()
    return {sockets[inode] for inode in _inodes_below(pid) & sockets.keys()}


def exposed_below(pid: int, foreign: set[str]) -> set[Address]:
    """Return where a process and its descendants can be reached from another machine.

    Args:
        pid: Process id.
        foreign: Inodes of exposed sockets known to belong to other processes; added to. Saves looking at every process.
    """
    sockets = _sockets()
    open_ones = exposed(sockets.values())
    suspects = {inode for inode, address in sockets.items() if address in open_ones} - foreign
    if not suspects:
        return set()
    ours = suspects & _inodes_below(pid)
    foreign |= suspects - ours
    return {sockets[inode] for inode in ours}


def _sockets() -> dict[str, Address]:
    found: dict[str, Address] = {}
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            found.update(parse((PROC / "net" / name).read_text()))
    return found


def _inodes_below(pid: int) -> set[str]:
    children = defaultdict(list)
    for stat in PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name in brackets may hold spaces and brackets; after it come the state and the parent.
            children[int(stat.read_text().rpartition(")")[2].split()[1])].append(int(stat.parent.name))
    found: set[str] = set()
    todo = [pid]
    while todo:
        each = todo.pop()
        todo += children[each]
        for opened in (PROC / str(each) / "fd").glob("*") if (PROC / str(each)).exists() else ():
            with contextlib.suppress(OSError):
                found.update(re.findall(r"^socket:\[(\d+)\]$", str(opened.readlink())))
    return found

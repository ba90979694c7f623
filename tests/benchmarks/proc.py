"""What a process and its children have used, from `/proc` (Linux): CPU to 10 ms, memory at its peak."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

_TICK = os.sysconf("SC_CLK_TCK")
_GROUP, _UTIME, _STIME = 2, 11, 12
"""Fields behind the command's name (proc_pid_stat(5))."""


class Usage(msgspec.Struct, frozen=True):
    """CPU seconds, and the sum of the processes' peaks of resident memory in MiB."""

    cpu_s: float
    peak_mib: float


def usage(group: int) -> Usage:
    """Return what the processes of a process group have used so far; those that ended are not in it."""
    ticks, kib = 0, 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[_GROUP]) != group:
                continue
            ticks += int(fields[_UTIME]) + int(fields[_STIME])
            status = (entry / "status").read_text()
            kib += next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return Usage(ticks / _TICK, kib / 1024)

"""Who holds a lease, said so that a process on the same machine can tell whether it still lives."""

from __future__ import annotations

import os
import socket
from pathlib import Path

__all__ = ["holder_name", "is_known_dead"]

_SEPARATOR = " "


def holder_name() -> str:
    """Name this process: host, pid and, on Linux, what makes the pid unique (the kernel's boot,
    the pid namespace and the process's start), so that neither a reboot, a container nor a reused
    pid can be mistaken for it.
    """
    place = _place()
    start = _start_of(os.getpid())
    known = "" if place is None or start is None else f"{_SEPARATOR}{place}:{start}"
    return f"{socket.gethostname()}:{os.getpid()}{known}"


def is_known_dead(holder: str) -> bool:
    """Whether ``holder`` was a process of this very machine and pid namespace, and is gone. False
    whenever that cannot be known.
    """
    name, _, known = holder.partition(_SEPARATOR)
    place, _, start = known.rpartition(":")
    pid = name.rpartition(":")[2]
    if not place or place != _place() or not pid.isdigit():
        return False
    return _start_of(int(pid)) != start


def _place() -> str | None:
    """The running kernel and the pid namespace; None where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _start_of(pid: int) -> str | None:
    """When the process started, in clock ticks since boot; None when there is none."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except OSError:
        return None
    # The command name may hold spaces and brackets; the fields after the last one are numbers.
    fields = status.rpartition(")")[2].split()
    # A zombie runs no more.
    return None if fields[0] in ("Z", "X") else fields[19]

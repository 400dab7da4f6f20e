"""A process that lives for years gives the memory of its backups back."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

WORK = """
import os, sys, threading
from sqlbak.scheduler.heap import give_freed_memory_back

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

if "settled" in sys.argv:
    assert give_freed_memory_back()
kept = []

def backup():
    for _ in range(6):  # a buffer, and beside it something small that stays
        buffers = [bytearray(b"x") * (2 << 20) for _ in range(3)]
        kept.append(bytes(100_000))
        del buffers

before = resident()
for _ in range(4):
    threads = [threading.Thread(target=backup) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print(resident() - before - sum(map(len, kept)))
"""


def growth(*words: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", WORK, *words], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is about the GNU C library")
def test_buffers_of_backups_that_are_over_are_given_back() -> None:
    assert growth("settled") < 4 << 20

"""A backup of any size needs little memory."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

PROGRAM = r"""
    import re, sys
    from pathlib import Path
    from random import Random
    from sqlbak.vault.file_store import FileStore
    from sqlbak.vault.payload import PayloadWriter

    store, point_id = FileStore(Path(sys.argv[1])), "20240501T120000Z-abcdefghij"
    writer = PayloadWriter(store, "orders-0123", point_id)
    block = memoryview(Random(1).randbytes(4 << 20))   # does not compress: the worst case
    with writer.stream("base.tar") as first, writer.stream("16400.tar") as second:
        for number in range(int(sys.argv[2])):
            for stream in (first, second):
                for start in range(0, len(block), 32 << 10):
                    stream.write(block[start : start + (32 << 10)])
    writer.seal()
    # Not ru_maxrss, which a child inherits from the process that started it.
    print(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts kilobytes as Linux does")
def test_peak_memory_does_not_grow_with_the_backup(tmp_path: object) -> None:
    def peak_kib(name: str, rounds: int) -> int:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(PROGRAM), f"{tmp_path}/{name}", str(rounds)],
            check=True,
            capture_output=True,
            text=True,
        )
        return int(done.stdout)

    small, large = peak_kib("small", 6), peak_kib("large", 24)
    assert large < 150 << 10
    assert large < small + (24 << 10)

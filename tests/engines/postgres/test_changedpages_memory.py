"""A differential of any size needs little memory."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PROGRAM = r"""
    import json, re, sys, tarfile
    from contextlib import contextmanager
    from pathlib import Path
    from sqlbak.engines.postgres.changedpages import ChangedPagesSink
    from sqlbak.engines.postgres.pagehash import PageHash
    from sqlbak.engines.postgres.pagemap import PageMap

    relations, pages = int(sys.argv[1]), int(sys.argv[2])

    class Nowhere:
        @contextmanager
        def stream(self, name):
            yield self
        def write(self, data):
            pass

    class Map:
        '''Every page of many relations, made up as it is read.'''
        FRAME = 1000
        def streams(self):
            return ["pages", "pages.index"]
        def size(self, stream):
            return (relations - 1 + pages) * 8
        def frame_starts(self, stream):
            if stream == "pages":
                return range(0, self.size(stream), 4 << 20)
            return range(0, relations, self.FRAME)
        def read_frame(self, stream, index):
            if stream == "pages":
                return bytes(min(4 << 20, self.size(stream) - index * (4 << 20)))
            numbers = range(index * self.FRAME, min(relations, (index + 1) * self.FRAME))
            return b"".join(
                json.dumps({
                    "path": f"base/5/{number + 16384}",
                    "blocks": pages if number == relations - 1 else 1,
                    "offset": number * 8,
                }).encode() + b"\n"
                for number in numbers
            )

    page_map = PageMap.read(Map())
    member = tarfile.TarInfo(f"base/5/{16384 + relations - 1}")
    member.size = (pages + 1) * 8192
    piece = bytes(range(256)) * 128
    sink = ChangedPagesSink(Nowhere(), PageHash(1, 8192), page_map)
    with sink.stream("base.tar") as out:
        out.write(member.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(pages // 4):
            out.write(piece)
        out.write(bytes(8192 + 1024))
    # Not ru_maxrss, which a child inherits from the process that started it.
    print(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts kilobytes as Linux does")
def test_peak_memory_hardly_grows_with_the_cluster(tmp_path: Path) -> None:
    def peak_kib(relations: int, pages: int) -> int:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(PROGRAM), str(relations), str(pages)],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        return int(done.stdout)

    small, large = peak_kib(1000, 1000), peak_kib(200_000, 32_000)
    assert large < 128 << 10
    assert large < small + (60 << 10)

"""Walking real log, with pg_waldump as the judge."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sqlbak.engines.postgres.timelines import parse_lsn
from sqlbak.engines.postgres.walrecords import Record, TablespaceFinder, last_record
from tests.engines.postgres.clusters import available_majors, has_working_program, running_cluster

pytestmark = pytest.mark.postgres

_MEGABYTE = 1 << 20
_LINE = re.compile(r"lsn: ([0-9A-F]+/[0-9A-F]+), prev.*desc: (\S+)")


@dataclass
class _Log:
    first: int
    data: bytes
    starts: list[int]
    switches: set[int]

    def read(self, start: int, end: int) -> bytes:
        return self.data[start - self.first : end - self.first]


@pytest.fixture(scope="module", params=available_majors(), ids=lambda major: f"pg{major}")
def log(request: pytest.FixtureRequest) -> Iterator[tuple[_Log, Path]]:
    major = request.param
    if not has_working_program(major, "pg_waldump"):
        pytest.skip("pg_waldump does not run here")
    with running_cluster(major, wal_segment_megabytes=1) as cluster:
        ((begin,),) = cluster.execute("SELECT pg_switch_wal()")
        cluster.execute("CREATE TABLE t (id int, filler text)")
        place = cluster.make_directory("space")
        for number in range(30):
            cluster.execute(
                f"INSERT INTO t SELECT g, repeat('x', g) FROM generate_series(1, {50 * number}) g"
            )
            if number % 10 == 0:
                cluster.execute("SELECT pg_switch_wal()")
            cluster.execute(f"CREATE TABLESPACE s{number} LOCATION '{place}'")
            cluster.execute(f"DROP TABLESPACE s{number}")
        ((end,),) = cluster.execute("SELECT pg_current_wal_flush_lsn()")
        first = -(-parse_lsn(begin) // _MEGABYTE) * _MEGABYTE
        last = parse_lsn(end) // _MEGABYTE * _MEGABYTE
        cluster.execute("SELECT pg_switch_wal()")
        folder = cluster.data_directory / "pg_wal"
        data = b"".join(
            (folder / f"00000001{at >> 32:08X}{(at & 0xFFFFFFFF) // _MEGABYTE:08X}").read_bytes()
            for at in range(first, last, _MEGABYTE)
        )
        said = cluster.run(
            "pg_waldump",
            "-p",
            folder,
            "-s",
            f"{first >> 32:X}/{first & 0xFFFFFFFF:X}",
            "-e",
            f"{last >> 32:X}/{last & 0xFFFFFFFF:X}",
            check=False,
        )
        found = [(parse_lsn(m[1]), m[2]) for m in _LINE.finditer(said)]
        starts = [lsn for lsn, _ in found if lsn < last]
        switches = {lsn for lsn, description in found if description == "SWITCH"}
        yield _Log(first, data, starts, switches), place


def _walk(log: _Log, begin: int, end: int) -> Record | None:
    return last_record(log.read, segment_size=_MEGABYTE, begin=begin, end=end)


def test_the_last_whole_record_is_found_wherever_the_log_is_cut(log: tuple[_Log, Path]) -> None:
    wal, _ = log
    assert len(wal.starts) > 1000
    source = random.Random(4)
    for _ in range(60):
        index = source.randrange(1, len(wal.starts) - 1)
        start, following = wal.starts[index], wal.starts[index + 1]
        segment = start - start % _MEGABYTE
        begin = max(wal.first, segment - _MEGABYTE)
        found = _walk(wal, begin, following)
        assert found is not None
        assert found.start == start
        cut = source.randrange(start + 1, found.end - 7) if start not in wal.switches else start + 8
        before = _walk(wal, begin, cut)
        assert before is not None
        assert before.start == wal.starts[index - 1]


def test_tablespaces_that_the_log_creates_are_found_across_every_boundary(
    log: tuple[_Log, Path],
) -> None:
    wal, place = log
    for size in (8192, 65536, _MEGABYTE, 5000):
        finder = TablespaceFinder(_MEGABYTE)
        found: list[str] = []
        for at in range(0, len(wal.data), size):
            found += finder.feed(wal.first + at, wal.data[at : at + size])
        assert set(found) == {str(place)}
        assert len(found) >= 29

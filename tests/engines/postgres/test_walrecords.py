"""Walking real log, with pg_waldump as the judge."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sqlbak.engines.postgres.recentlog import RecentLog
from sqlbak.engines.postgres.timelines import parse_lsn
from sqlbak.engines.postgres.walrecords import (
    Record,
    TablespaceFinder,
    last_record,
    newest_transaction_end,
)
from tests.engines.postgres.clusters import (
    available_majors,
    has_working_program,
    run_as_server_user,
    running_cluster,
)

pytestmark = pytest.mark.postgres

_MEGABYTE = 1 << 20
_LINE = re.compile(r"lsn: ([0-9A-F]+/[0-9A-F]+), prev.*desc: (\S+)")
_TRANSACTION_END = re.compile(
    r"lsn: ([0-9A-F]+/[0-9A-F]+), prev.*desc: (?:COMMIT|ABORT)(?:_PREPARED)? (?:\S+: )?"
    r"(\d{4}-\S+ \d\d:\S+) UTC"
)


@dataclass
class _Log:
    first: int
    data: bytes
    starts: list[int]
    switches: set[int]
    transaction_ends: list[tuple[int, datetime]]

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
            with cluster.connect() as connection:
                connection.autocommit = False
                connection.execute("INSERT INTO t VALUES (0, 'given up')")
                connection.rollback()
        ((end,),) = cluster.execute("SELECT pg_current_wal_flush_lsn()")
        first = -(-parse_lsn(begin) // _MEGABYTE) * _MEGABYTE
        last = parse_lsn(end) // _MEGABYTE * _MEGABYTE
        cluster.execute("SELECT pg_switch_wal()")
        folder = cluster.data_directory / "pg_wal"
        data = b"".join(
            (folder / f"00000001{at >> 32:08X}{(at & 0xFFFFFFFF) // _MEGABYTE:08X}").read_bytes()
            for at in range(first, last, _MEGABYTE)
        )
        said = run_as_server_user(
            [
                cluster.programs / "pg_waldump",
                "-p",
                folder,
                "-s",
                f"{first >> 32:X}/{first & 0xFFFFFFFF:X}",
                "-e",
                f"{last >> 32:X}/{last & 0xFFFFFFFF:X}",
            ],
            environment={"TZ": "UTC"},
            check=False,
        ).stdout
        found = [(parse_lsn(m[1]), m[2]) for m in _LINE.finditer(said)]
        starts = [lsn for lsn, _ in found if lsn < last]
        switches = {lsn for lsn, description in found if description == "SWITCH"}
        ends = [
            (parse_lsn(m[1]), datetime.fromisoformat(m[2]).replace(tzinfo=UTC))
            for m in _TRANSACTION_END.finditer(said)
        ]
        yield _Log(first, data, starts, switches, ends), place


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


def test_the_newest_end_of_a_transaction_is_found_wherever_the_log_is_cut(
    log: tuple[_Log, Path],
) -> None:
    wal, _ = log
    assert len(wal.transaction_ends) > 100
    source = random.Random(4)
    for _ in range(60):
        begin = source.randrange(wal.first, wal.first + len(wal.data) - _MEGABYTE)
        index = source.randrange(1, len(wal.starts) - 1)
        cut = wal.starts[index]
        if cut <= begin:
            continue
        # Records of the page that is cut off at its beginning are not looked at.
        seen = -(-begin // 8192) * 8192
        expected = max((at for lsn, at in wal.transaction_ends if seen <= lsn < cut), default=None)
        found = newest_transaction_end(wal.read(begin, cut), begin, _MEGABYTE)
        assert found == expected


def test_a_text_is_found_in_the_log_across_a_page_s_header() -> None:
    text = "heartbeat 0123456789abcdef"
    for split in range(1, len(text)):
        start = 5 * 8192 - 400 - split
        data = b"a" * 400 + text[:split].encode() + b"\0" * 24 + text[split:].encode() + b"b" * 50
        recent = RecentLog(start, _MEGABYTE)
        for _ in recent.passing([memoryview(data[:300]), memoryview(data[300:])]):
            pass
        end = start + len(data) - 50
        assert recent.holds(text, before=end)
        assert not recent.holds(text[:-1] + "0", before=end)
        assert not recent.holds(text, before=end - 1)


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

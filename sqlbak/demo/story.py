"""The demo's story: protect, write, lose a table, come back to the second before, compare.

Everything is real: a PostgreSQL server, its replication protocol, the scheduler's loop, the vault,
and `sqlbak restore` as a process of its own. Only time is compressed: a log backup every few
seconds instead of every 15 minutes.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg

from sqlbak.demo.bank import Bank, Books, Writers
from sqlbak.demo.place import Place
from sqlbak.demo.timeline import draw
from sqlbak.engines.postgres.programs import find_programs
from sqlbak.engines.postgres.server import choose_user, stop_server
from sqlbak.errors import RestoreNotProven, ServerProgramMissing, ServerUnreachable, SqlbakError
from sqlbak.fleet import Fleet
from sqlbak.model import Point, PointType
from sqlbak.policy.loading import load_configuration
from sqlbak.restore.windows import windows
from sqlbak.scheduler.configuration_watch import ConfigurationWatch
from sqlbak.scheduler.due import DueJob, Protected, due
from sqlbak.scheduler.logs import event_log
from sqlbak.scheduler.service import Limits, Service
from sqlbak.stopping import StopSignal
from sqlbak.vault.names import point_id_instant

__all__ = ["tell"]

LOG_EVERY = timedelta(seconds=4)
WRITE_SECONDS = 9.0
PATIENCE_SECONDS = 60.0

Say = Callable[[str], None]


def tell(
    directory: Path | None, say: Say, *, program_dir: Path | None, stop: StopSignal
) -> dict[str, Any]:
    """Run the whole story in ``directory`` (None: a usual one) and return it as one document.

    Raises RestoreNotProven if what came back is not what was there, and whatever its parts raise.
    """
    began = time.monotonic()
    place = Place.make(directory, _programs(program_dir))
    say(f"a PostgreSQL {place.programs.major} of its own, in {place.root}/cluster")
    with place.cluster() as dsn:
        _wait_for_server(dsn, stop)
        bank = Bank(dsn)
        bank.open()
        policy_file = place.write_policy(dsn)
        say(f"a policy file, yours to read: {policy_file}")
        say(f"time is compressed: a log backup every {LOG_EVERY.seconds} s instead of every 15 min")
        with _scheduler(place, stop) as diary, Writers(dsn):
            say("the bank is open: two clients transfer money all the time")
            _wait_for(lambda: _points(place), "the first full backup", diary, stop)
            say("the scheduler has taken a full backup while they wrote; logs follow")
            stop.wait(WRITE_SECONDS)
            stop.check()
            target = bank.clock().replace(microsecond=0)
            _wait_until(bank, target + timedelta(seconds=1), stop)
            transfers, total = bank.lose_history(target)
            dropped_at = bank.clock()
            say(f"{dropped_at.astimezone(UTC):%H:%M:%S}  DROP TABLE history;   <- the disaster")
            _wait_for(lambda: _covers(place, target), "a log backup behind it", diary, stop)
    say(f"restoring to the second before: {target.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")
    to = target.astimezone(UTC).isoformat()
    restored = _restore(place, to, say)
    try:
        books = Bank(restored["connection"]).books()
    finally:
        stop_server(place.programs, place.restored, user=choose_user(place.restored))
    _compare(books, transfers, total, say)
    _show(place, target, dropped_at, say)
    say(f"done in {time.monotonic() - began:.0f} s; both servers are stopped, everything is kept")
    _invite(place, to, say)
    return {
        "directory": str(place.root),
        "policy_file": str(policy_file),
        "restored_to": to,
        "transfers_expected": transfers,
        "transfers_restored": books.transfers,
        "books_balance": books.balance,
        "seconds": round(time.monotonic() - began, 1),
    }


def _programs(program_dir: Path | None) -> Any:
    if program_dir is not None:
        return find_programs(explicit=program_dir)
    try:
        return find_programs(18)
    except ServerProgramMissing:
        return find_programs()


def _wait_for_server(dsn: str, stop: StopSignal) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            psycopg.connect(dsn).close()
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                raise ServerUnreachable(f"the demo's server does not answer: {error}") from error
            stop.wait(0.1)
            stop.check()
        else:
            return


@contextmanager
def _scheduler(place: Place, stop: StopSignal) -> Iterator[StringIO]:
    """The real scheduler's loop in a thread; gives its log, which is shown if it gets stuck."""
    diary = StringIO()
    ended = StopSignal()
    service = Service(
        ConfigurationWatch(place.policies),
        event_log(diary, as_json=True),
        ended,
        limits=Limits(tick_seconds=0.5, catalog_age_seconds=0.0, grace_seconds=30.0),
        decide=_due_in_compressed_time,
    )
    thread = threading.Thread(target=service.run, name="scheduler")
    thread.start()
    try:
        yield diary
    finally:
        ended.request("the demo is over")
        thread.join()
    stop.check()


def _due_in_compressed_time(protected: Iterable[Protected], now: datetime) -> list[DueJob]:
    """As the scheduler decides, but with a log slot every few seconds."""
    jobs: list[DueJob] = []
    for item in protected:
        if not item.points:
            jobs += due([item], now)
            continue
        newest = max(point_id_instant(point.id) or point.started_at for point in item.points)
        if now - newest >= LOG_EVERY:
            jobs.append(DueJob(item.name, PointType.LOG, None, "compressed time"))
    return jobs


def _wait_for(done: Callable[[], object], what: str, diary: StringIO, stop: StopSignal) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        stop.check()
        if time.monotonic() > deadline:
            raise SqlbakError(f"the demo waited for {what} in vain", hint=diary.getvalue()[-2000:])
        stop.wait(0.2)


def _wait_until(bank: Bank, moment: datetime, stop: StopSignal) -> None:
    while bank.clock() <= moment:
        stop.wait(0.1)
        stop.check()


def _points(place: Place) -> tuple[Point, ...]:
    with Fleet(load_configuration(place.policies).configuration) as fleet:
        return fleet.points("bank")


def _covers(place: Place, moment: datetime) -> bool:
    return any(
        point.covers_until is not None and point.covers_until > moment for point in _points(place)
    )


def _restore(place: Place, to: str, say: Say) -> dict[str, Any]:
    words = ["restore", "bank", "--to", to, "--into", str(place.restored), "--start"]
    shown = [_program(), "--config", _short(place.policies), *words]
    say(f"$ {shlex.join(shown)}")
    command = [sys.executable, "-m", "sqlbak", "--config", str(place.policies), *words]
    command += ["--pg-bin", str(place.programs.directory), "--json", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        document: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise RestoreNotProven(f"sqlbak restore failed: {done.stderr.strip()}") from None
    if done.returncode != 0 or not document.get("proven"):
        raise RestoreNotProven(f"sqlbak restore failed: {done.stderr.strip()}")
    say(f"proven by the server: last commit at {document['last_commit_at']}")
    return document


def _compare(books: Books, transfers: int, total: int, say: Say) -> None:
    if (books.transfers, books.total) != (transfers, total) or not books.balance:
        raise RestoreNotProven(
            f"the restored bank has {books.transfers} transfers over {books.total}, "
            f"expected {transfers} over {total}; the books balance: {books.balance}",
            hint="please report this: it must never happen",
        )
    say(f"  transfers committed by then: {transfers}    restored: {books.transfers}    equal")
    say(f"  sums of history, accounts, tellers, branches: all {books.total}    the books balance")


def _show(place: Place, target: datetime, dropped_at: datetime, say: Say) -> None:
    with Fleet(load_configuration(place.policies).configuration) as fleet:
        (stored,) = fleet.stored_items("bank")
        catalog = stored.catalog()
    say("")
    for line in draw(catalog.points, windows(catalog), target, dropped_at):
        say("  " + line)
    say("")


def _invite(place: Place, to: str, say: Say) -> None:
    say("try next:")
    config = [_program(), "--config", _short(place.policies)]
    again = ["restore", "--to", to, "--into", _short(place.root / "again")]
    tries: Sequence[Sequence[str]] = (
        ["windows"],
        ["list"],
        ["plan", "--to", to],
        again,
        ["restore", "--to", "2001-01-01T00:00:00Z", "--into", "nowhere"],
    )
    for words in tries:
        say("  " + shlex.join([*config, *words]))


def _program() -> str:
    """The program as a reader would type it: its path where it is not on PATH."""
    here = Path(sys.argv[0]).absolute()
    return "sqlbak" if shutil.which("sqlbak") == str(here) else _short(here)


def _short(path: Path) -> str:
    """The path as a reader would type it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)

"""Wherever a job dies, there is a whole recovery point afterwards, or none and no leftovers."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlbak.errors import LeaseLost, SqlbakError
from sqlbak.vault.file_store import FileStore
from sqlbak.vault.layout import (
    cancelled_prefix,
    data_prefix,
    lease_key,
    lineages_prefix,
    point_key,
    points_prefix,
    running_key,
    running_prefix,
    tail_prefix,
)
from sqlbak.vault.memory_store import MemoryStore
from sqlbak.vault.payload_reader import verify
from sqlbak.vault.running import put_commit_verdict
from sqlbak.vault.store import ObjectStore
from sqlbak.vault.sweep import sweep
from sqlbak.vault.vault import Vault, create_vault
from tests.vault.crashing import CrashingStore
from tests.vault.making import CONTENT, ITEM, NOW, Job, keys
from tests.vault.turns import Turns


def new_vault() -> Vault:
    return create_vault(MemoryStore(now=lambda: NOW), redundancy="local", now=NOW)


def calls_of_a_run() -> list[str]:
    store = CrashingStore(new_vault().store)
    Job(store).run()
    return store.calls


def assert_whole_or_nothing(vault: Vault) -> bool:
    """True when the point is there and whole; AssertionError for anything in between."""
    points = vault.points(ITEM.id)
    assert keys(vault.store, running_prefix(ITEM.id)) == []
    for point in points:
        manifest = vault.manifest(ITEM.id, point.id)
        source = vault.point_source(ITEM.id, manifest)
        checked = verify(source)
        assert (checked.damages, checked.raw_bytes) == ((), 2 * len(CONTENT))
        assert source.check_objects() == []
    folders = {key.split("/")[3] for key in keys(vault.store, data_prefix(ITEM.id))}
    assert folders == {point.id for point in points}
    return bool(points)


CALLS = calls_of_a_run()


def test_a_run_makes_the_calls_that_the_next_tests_break() -> None:
    kinds = [call.split("/")[0].split()[0] for call in CALLS]
    assert kinds.count("commit") == len([key for key in CALLS if key.startswith("writer")]) > 5
    order = [call for call in CALLS if call.startswith("put items")]
    assert ["running" in order[0], "lineages" in order[1]] == [True, True]
    assert order[2].endswith(".verdict")
    assert points_prefix(ITEM.id) in order[3]


@pytest.mark.parametrize("is_done", [False, True], ids=["lost", "done"])
@pytest.mark.parametrize("last", range(1, len(CALLS) + 1))
def test_a_job_that_dies_at_any_call_leaves_a_whole_point_or_nothing(
    last: int, is_done: bool
) -> None:
    vault = new_vault()
    with pytest.raises(SqlbakError):
        Job(CrashingStore(vault.store, last=last, is_done=is_done)).run()
    sweep(vault.store, ITEM.id, is_live=lambda record: False, now=NOW)
    is_there = assert_whole_or_nothing(vault)
    assert vault.store.sweep_unfinished("", older_than=NOW + timedelta(days=9)) == 0
    # The decision is the verdict, and nothing before it.
    verdict = next(index for index, call in enumerate(CALLS, 1) if call.endswith(".verdict"))
    assert is_there == (last > verdict or (last == verdict and is_done))


@pytest.mark.parametrize("is_done", [False, True], ids=["lost", "done"])
@pytest.mark.parametrize("job_dies_at", [1, 8, *range(len(CALLS) - 6, len(CALLS) + 1)])
def test_a_sweep_that_dies_too_is_finished_by_the_next(job_dies_at: int, is_done: bool) -> None:
    for sweep_dies_at in range(1, 40):
        vault = new_vault()
        with pytest.raises(SqlbakError):
            Job(CrashingStore(vault.store, last=job_dies_at, is_done=is_done)).run()
        try:
            sweep(
                CrashingStore(vault.store, last=sweep_dies_at, is_done=is_done),
                ITEM.id,
                is_live=lambda record: False,
                now=NOW,
            )
        except SqlbakError:
            sweep(vault.store, ITEM.id, is_live=lambda record: False, now=NOW)
            assert_whole_or_nothing(vault)
        else:
            assert_whole_or_nothing(vault)
            return
    raise AssertionError("the sweep never came to its end")


def test_an_aborted_job_leaves_only_what_is_known_of_lineages() -> None:
    vault = new_vault()
    with pytest.raises(KeyError), Job(vault.store).writer as writer:
        with writer.sink.stream("base.tar") as stream:
            stream.write(CONTENT)
        raise KeyError
    assert keys(vault.store) == []


def test_a_fence_that_fails_leaves_no_point() -> None:
    vault = new_vault()
    job = Job(vault.store)

    def fence() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError), job.writer:
        job.fill()
        job.commit(fence=fence)
    assert {key.split("/")[2] for key in keys(vault.store)} <= {"lineages"}
    assert keys(vault.store, lineages_prefix(ITEM.id))


def test_the_first_error_is_told_even_if_cleaning_up_fails_too() -> None:
    vault = new_vault()
    job = Job(CrashingStore(vault.store, last=3))
    with pytest.raises(ZeroDivisionError) as caught, job.writer:
        raise ZeroDivisionError
    assert "could not be removed" in caught.value.__notes__[0]


class Interleaved(CrashingStore):
    """Lets another party act right before one chosen call."""

    def __init__(self, inner: ObjectStore, at: int, act: object) -> None:
        super().__init__(inner)
        self._at = at
        self._act = act

    def pass_on(self, what, call):  # type: ignore[no-untyped-def]
        if len(self.calls) + 1 == self._at:
            self._at = 0
            self._act()  # type: ignore[operator]
        return super().pass_on(what, call)


@pytest.mark.parametrize("at", range(2, len(CALLS) + 1))
def test_a_sweep_at_any_moment_of_a_job_that_lost_its_lease(at: int) -> None:
    vault = new_vault()

    def act() -> None:
        sweep(vault.store, ITEM.id, is_live=lambda record: False, now=NOW)

    job = Job(Interleaved(vault.store, at, act))
    try:
        point = job.run()
    except SqlbakError:
        # What the job wrote after it was swept away is an orphan, and goes when it is old.
        later = NOW + timedelta(days=2)
        sweep(vault.store, ITEM.id, is_live=lambda record: False, now=later)
        assert not assert_whole_or_nothing(vault)
    else:
        assert_whole_or_nothing(vault)
        assert [one.id for one in vault.points(ITEM.id)] == [point.id]


def test_a_job_that_commits_at_any_moment_of_a_sweep() -> None:
    for at in range(1, 40):
        vault = new_vault()
        job = Job(vault.store)
        job.begin()
        job.fill()
        failures: list[SqlbakError] = []

        def act(job: Job = job, failures: list[SqlbakError] = failures) -> None:
            try:
                job.commit()
            except SqlbakError as error:
                failures.append(error)

        store = Interleaved(vault.store, at, act)
        sweep(store, ITEM.id, is_live=lambda record: False, now=NOW)
        has_acted = store._at == 0
        job.writer.abort()
        assert assert_whole_or_nothing(vault) == (has_acted and not failures)
        if not has_acted:
            return
    raise AssertionError("the sweep never came to its end")


def test_a_live_job_is_left_alone() -> None:
    vault = new_vault()
    job = Job(vault.store)
    job.begin()
    job.fill()
    later = NOW + timedelta(days=30)
    report = sweep(vault.store, ITEM.id, is_live=lambda record: True, now=later)
    assert report.live == [job.record.job_id]
    point = job.commit()
    assert assert_whole_or_nothing(vault)
    assert vault.points(ITEM.id) == [point]


def test_payload_that_nothing_names_goes_after_a_day_of_grace() -> None:
    vault = new_vault()
    job = Job(vault.store)
    job.begin()
    job.fill()
    vault.store.delete(keys(vault.store, running_prefix(ITEM.id)))
    for age, expected in ((timedelta(hours=23), []), (timedelta(hours=25), [job.writer.point_id])):
        report = sweep(vault.store, ITEM.id, is_live=lambda record: False, now=NOW + age)
        assert report.orphaned == expected
    assert keys(vault.store) == []
    job.writer.abort()


def test_the_payload_of_a_point_in_the_trash_is_kept() -> None:
    vault = new_vault()
    point = Job(vault.store).run()
    manifest = vault.manifest(ITEM.id, point.id)
    vault.store.copy(point_key(ITEM.id, manifest.name), f"items/{ITEM.id}/trash/{manifest.name}")
    vault.store.delete([point_key(ITEM.id, manifest.name)])
    before = keys(vault.store)
    sweep(vault.store, ITEM.id, is_live=lambda record: False, now=NOW + timedelta(days=9))
    assert keys(vault.store) == before


def test_small_files_of_killed_processes_are_swept_and_those_of_living_ones_stay(
    tmp_path: Path,
) -> None:
    store = FileStore(tmp_path / "vault")
    small = (
        running_key(ITEM.id, "dead"),
        point_key(ITEM.id, "x.json"),
        lease_key(f"{ITEM.id}.log"),
        tail_prefix(ITEM.id) + "piece",
        cancelled_prefix(ITEM.id) + "full.json",
        lineages_prefix(ITEM.id) + "2.history",
    )
    for key in small:
        writer = store.writer(key)
        writer.write(b"half")
        os.close(writer._descriptor)  # as the kernel does for a killed process
    with store.writer(running_key(ITEM.id, "living")) as living:
        sweep(store, ITEM.id, is_live=lambda record: False, now=datetime.now(UTC))
        unfinished = (tmp_path / "vault" / ".sqlbak" / "unfinished").rglob("*")
        (left,) = [path.name for path in unfinished if path.is_file()]
        assert left.startswith("living.json")
        living.abort()


def test_foreign_files_among_the_payload_are_told_and_left_alone() -> None:
    vault = new_vault()
    key = data_prefix(ITEM.id) + "README/notes.txt"
    vault.store.put(key, b"mine")
    later = NOW + timedelta(days=9)
    assert sweep(vault.store, ITEM.id, is_live=lambda record: False, now=later).unknown == [key]
    assert vault.store.get(key) == b"mine"


@settings(deadline=None, max_examples=300)
@given(choices=st.lists(st.integers(0, 5), max_size=80), is_aborting=st.booleans())
def test_a_job_and_two_sweeps_in_any_order_agree(choices: list[int], is_aborting: bool) -> None:
    vault = new_vault()
    turns = Turns(vault.store, chain(choices, repeat(0)))
    job = Job(vault.store)
    job.begin()
    job.fill()

    def finish(store: ObjectStore) -> None:
        job.writer._store = store
        if is_aborting:
            job.writer.sink._store = store
            job.writer.abort()
        else:
            job.commit()

    def clear(store: ObjectStore) -> None:
        sweep(store, ITEM.id, is_live=lambda record: False, now=NOW)

    turns.party("job", finish)
    turns.party("sweep 1", clear)
    turns.party("sweep 2", clear)
    turns.run()
    job.writer.abort()
    assert turns.failures.keys() <= {"job"}
    is_committed = not is_aborting and "job" not in turns.failures
    if not is_committed and not is_aborting:
        assert isinstance(turns.failures["job"], LeaseLost)
    # A late verdict of the sweeps may be left over; the next sweep removes it.
    clear(vault.store)
    assert assert_whole_or_nothing(vault) == is_committed


def test_a_verdict_that_comes_after_all_is_cleared_is_not_rolled_forward() -> None:
    # One sweep sees the job; another clears it away; the job wakes and sends its verdict; only
    # then the first sweep goes on.
    vault, elsewhere = new_vault(), new_vault()
    Job(elsewhere.store).run()
    manifest = elsewhere.store.get(keys(elsewhere.store, points_prefix(ITEM.id))[0])
    job = Job(vault.store)
    job.begin()
    job.fill()

    def clear(store: ObjectStore) -> None:
        sweep(store, ITEM.id, is_live=lambda record: False, now=NOW)

    def others_act() -> None:
        clear(vault.store)
        put_commit_verdict(vault.store, ITEM.id, job.record.job_id, manifest)

    # A sweep's first calls: the listing of the payload, that of the records, the record.
    clear(Interleaved(vault.store, 4, others_act))
    assert keys(vault.store) == []
    job.writer.abort()

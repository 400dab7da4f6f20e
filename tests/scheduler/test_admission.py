from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from sqlbak.model import PointType
from sqlbak.policy.calendar import Slot
from sqlbak.scheduler.admission import Busy, Candidate, Room, admit
from sqlbak.scheduler.due import DueJob

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
FULL, DIFFERENTIAL, LOG = PointType.FULL, PointType.DIFFERENTIAL, PointType.LOG


def candidate(
    item: str, kind: PointType = LOG, *, vault: str = "main", age: int = 0, **more: datetime
) -> Candidate:
    at = NOW - timedelta(minutes=age)
    slot = Slot(kind, at, at.date(), f"{kind}@{at.isoformat()}")
    return Candidate(DueJob(item, kind, slot, "due"), item.partition("/")[0], vault, **more)


def started(candidates: list[Candidate], room: Room, busy: list[Busy] | None = None) -> list[str]:
    admission = admit(candidates, busy or [], room, NOW)
    assert len(admission.start) + len(admission.waiting) == len(candidates)
    return [f"{job.item}:{job.type}" for job in admission.start]


def why(candidates: list[Candidate], room: Room, busy: list[Busy] | None = None) -> list[str]:
    return [waiting.why for waiting in admit(candidates, busy or [], room, NOW).waiting]


def test_logs_go_before_fulls_and_the_oldest_slot_goes_first() -> None:
    waiting = [candidate("a", FULL, age=90), candidate("b", age=1), candidate("c", age=16)]
    assert started(waiting, Room(10)) == ["c:log", "b:log", "a:full"]


def test_fulls_never_take_the_place_that_is_kept_for_logs() -> None:
    fulls = [candidate(f"f{n}", FULL) for n in range(5)]
    assert len(started(fulls, Room(4))) == 3
    assert "3 run at once" in why(fulls, Room(4))[0]
    busy = [Busy(f"f{n}", FULL, f"f{n}", "main") for n in range(3)]
    assert started([candidate("b")], Room(4), busy) == ["b:log"]


def test_logs_leave_a_place_for_a_full_that_waits() -> None:
    logs = [candidate(f"l{n}") for n in range(9)]
    assert len(started(logs, Room(4))) == 4
    assert started([*logs, candidate("f", FULL)], Room(4))[-1] == "f:full"
    assert len(started([*logs, candidate("f", FULL)], Room(4))) == 4


def test_one_place_is_for_everything() -> None:
    assert started([candidate("a", FULL), candidate("b")], Room(1)) == ["b:log"]
    assert started([candidate("a", FULL)], Room(1)) == ["a:full"]


def test_an_instance_and_a_vault_have_their_own_limits() -> None:
    room = Room(10, of_instances={"erp": 2}, of_vaults={"far": 1})
    many = [candidate(f"erp/{n}") for n in range(5)]
    assert len(started(many, room)) == 2
    assert "limits.jobs is 2" in why(many, room)[0]
    far = [candidate(f"x{n}", vault="far") for n in range(3)]
    assert len(started([*many, *far], room)) == 3
    assert len(started(far, room, [Busy("y", LOG, "y", "far")])) == 0


def test_quiet_hours_hold_up_fulls_and_no_logs() -> None:
    evening = NOW + timedelta(hours=6)
    waiting = [candidate("a", FULL, quiet_until=evening), candidate("a", LOG, quiet_until=evening)]
    admission = admit(waiting, [], Room(4), NOW)
    assert [job.type for job in admission.start] == [LOG]
    assert [(one.why, one.until) for one in admission.waiting] == [
        ("for the end of the quiet hours", evening)
    ]


def test_an_item_waits_for_its_turn_and_for_itself() -> None:
    later = NOW + timedelta(seconds=9)
    assert why([candidate("a", not_before=later)], Room(4)) == ["for its turn: starts are spread"]
    busy = [Busy("a", FULL, "a", "main")]
    assert started([candidate("a", DIFFERENTIAL), candidate("a")], Room(4), busy) == ["a:log"]


kinds = st.sampled_from(list(PointType))
items = st.integers(0, 30).map(lambda n: f"i{n % 4}/{n}")


@given(
    st.lists(st.tuples(items, kinds, st.integers(0, 60)), max_size=40, unique_by=lambda c: c[:2]),
    st.lists(st.tuples(items, kinds), max_size=4, unique=True),
    st.integers(1, 8),
    st.integers(1, 5),
)
def test_no_limit_is_ever_passed_and_nothing_waits_without_need(
    wanted: list[tuple[str, PointType, int]],
    running: list[tuple[str, PointType]],
    jobs: int,
    per_instance: int,
) -> None:
    room = Room(jobs, of_instances={f"i{n}": per_instance for n in range(4)})
    busy = [Busy(item, kind, item.partition("/")[0], "main") for item, kind in running[:jobs]]
    waiting = [candidate(item, kind, age=age) for item, kind, age in wanted]
    admission = admit(waiting, busy, room, NOW)
    assert len(admission.start) + len(busy) <= max(jobs, len(busy))
    counts = Counter(one.instance for one in busy)
    before = Counter(counts)
    counts.update(job.item.partition("/")[0] for job in admission.start)
    for name, count in counts.items():
        assert count <= max(per_instance, before[name])
    if waiting and not busy:
        assert admission.start

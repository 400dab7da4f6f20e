"""The pages: what they tell, and that nobody who asks badly holds up who asks well."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from io import StringIO

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sqlbak.errors import UsageError
from sqlbak.model import PointType
from sqlbak.monitor import web
from sqlbak.monitor.metrics import FleetCollector, Tally, Vitals
from sqlbak.monitor.status import status_of
from sqlbak.monitor.watch import Sight
from sqlbak.monitor.web import Address, Pages, WebServer, parse_address
from sqlbak.scheduler.logs import event_log
from tests.monitor.watching import MINUTE, NOON, look, served, watched


@dataclass
class Told:
    """What the pages are made of."""

    sight: Sight | None = None
    not_alive: str | None = None
    not_ready: str | None = None


def statuses(count: int) -> Sight:
    item = watched(served(NOON), look=look(), running={PointType.FULL: NOON})
    one = status_of(item, NOON)
    return Sight(tuple(replace(one, name=f"db-{number}") for number in range(count)), NOON, 0.5)


@contextmanager
def serving(told: Told, diary: StringIO | None = None) -> Iterator[str]:
    collector = FleetCollector(
        lambda: told.sight,
        lambda: Vitals([PointType.LOG, PointType.LOG], 1.5),
        lambda: (),
        Tally(),
        now=lambda: NOON + MINUTE,
    )
    pages = Pages(collector, lambda: told.not_alive, lambda: told.not_ready)
    server = WebServer(Address("127.0.0.1", 0), pages, event_log(diary or StringIO(), as_json=True))
    server.start()
    try:
        yield f"http://127.0.0.1:{server.address.port}"
    finally:
        server.close()


def ask(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_scrape_tells_what_is_known_and_how_old_it_is_by_now() -> None:
    told = Told(statuses(1))
    with serving(told) as url:
        code, text = ask(f"{url}/metrics")
    assert code == 200
    found = samples(text)
    item = (("item", "db-0"),)
    # A minute has passed since the look.
    assert found["sqlbak_rpo_seconds", item] == 60
    assert found["sqlbak_backup_running_seconds", (*item, ("type", "full"))] == 60
    assert found["sqlbak_rpo_limit_seconds", item] == 22.5 * 60
    assert found["sqlbak_item_health", (("health", "healthy"), *item)] == 1
    assert found["sqlbak_item_health", (("health", "at_risk"), *item)] == 0
    assert found["sqlbak_server_up", item] == 1
    assert found["sqlbak_backups_waiting", (("type", "log"),)] == 2
    assert found["sqlbak_newest_restorable_timestamp_seconds", item] == NOON.timestamp()
    assert any(name == "process_resident_memory_bytes" for name, _ in found)


def test_the_number_of_series_is_bounded_by_the_number_of_items() -> None:
    counts = []
    for items in (0, 1, 2):
        with serving(Told(statuses(items))) as url:
            counts.append(len(samples(ask(f"{url}/metrics")[1])))
    assert counts[2] - counts[1] == counts[1] - counts[0]
    assert counts[1] - counts[0] <= 35


def test_before_the_first_look_there_are_metrics_all_the_same() -> None:
    with serving(Told()) as url:
        code, text = ask(f"{url}/metrics")
    assert code == 200
    assert ("sqlbak_scheduler_idle_seconds", ()) in samples(text)
    never = ("kind", "backup_data_deleted"), ("severity", "critical")
    assert samples(text)["sqlbak_events_total", never] == 0


def test_health_says_why_it_is_not_well() -> None:
    told = Told()
    with serving(told) as url:
        assert ask(f"{url}/healthz") == (200, "ok\n")
        told.not_ready = "the fleet was not looked at yet"
        assert ask(f"{url}/healthz")[0] == 200
        assert ask(f"{url}/readyz") == (503, "the fleet was not looked at yet\n")
        told.not_alive = "stuck"
        assert ask(f"{url}/healthz") == (503, "stuck\n")
        assert ask(f"{url}/elsewhere")[0] == 404


def test_who_asks_and_says_nothing_holds_up_nobody_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web._Handler, "timeout", 0.2)
    with serving(Told()) as url, ExitStack() as stack:
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        silent = [
            stack.enter_context(socket.create_connection(address))
            for _ in range(web._MOST_AT_ONCE + 4)
        ]
        # Those for whom no thread is left are hung up on at once, the others after their time.
        for one in silent:
            one.settimeout(30)
            assert one.recv(1) == b""
        assert ask(f"{url}/healthz") == (200, "ok\n")


def test_a_defect_in_a_page_is_said_and_ends_nothing() -> None:
    diary = StringIO()
    told = Told(statuses(1))
    with serving(told, diary) as url:
        told.sight = "no sight"  # type: ignore[assignment]
        with pytest.raises(OSError):
            ask(f"{url}/metrics")
        assert ask(f"{url}/healthz")[0] == 200
    (line,) = [json.loads(line) for line in diary.getvalue().splitlines()]
    assert line["event"] == "page failed, by a defect"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9187", Address("127.0.0.1", 9187)),
        ("[::1]:9187", Address("::1", 9187)),
        ("host.example:0", Address("host.example", 0)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["9187", ":9187", "host:", "host:http", "host:65536", "host:-1"])
def test_what_is_no_address_is_a_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match="--listen"):
        parse_address(text)


def test_an_address_that_is_taken_is_a_wrong_usage() -> None:
    with serving(Told()) as url:
        collector = FleetCollector(lambda: None, lambda: Vitals((), 0.0), lambda: (), Tally())
        pages = Pages(collector, lambda: None, lambda: None)
        with pytest.raises(UsageError, match=r"cannot listen at 127\.0\.0\.1"):
            taken = Address("127.0.0.1", int(url.rpartition(":")[2]))
            WebServer(taken, pages, event_log(StringIO()))

"""Continuous shipping inside the scheduler: one thread for each item whose policy asks for it.

A thread does nothing but try again: whatever ends its shipping (a server that restarts, another
scheduler that holds the lease, a gap that the next log backup heals) is told once and then waited
for. Who starts the threads joins them.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from sqlbak.errors import Interrupted, LeaseHeld, SqlbakError
from sqlbak.fleet import Fleet
from sqlbak.jobs.shipping import ship_log
from sqlbak.model import LogPosition, ShippedLog
from sqlbak.scheduler.logs import EventLog
from sqlbak.stopping import StopSignal

__all__ = ["Shippers"]

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class _Shipper:
    """One running thread."""

    thread: threading.Thread
    stop: StopSignal


class Shippers:
    """The shipping threads of one scheduler. ``serve`` and ``close`` are called from one thread."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._fleet: Fleet | None = None
        self._running: list[_Shipper] = []

    def serve(self, fleet: Fleet) -> None:
        """Let exactly those instances of ``fleet`` be shipped whose policies ask for it; another
        fleet than before replaces all threads."""
        if fleet is self._fleet:
            return
        # Those of the fleet before end by themselves, however slow a store is; until then they
        # keep their leases, and the new ones wait for these.
        self.request_stop()
        self._running = [shipper for shipper in self._running if shipper.thread.is_alive()]
        self._fleet = fleet
        for instance in fleet.instances():
            interval = fleet.policy(instance).shipping_interval_seconds
            if interval is None:
                continue
            stop = StopSignal()
            fleet.enter()
            thread = threading.Thread(
                target=self._work, args=(fleet, instance, interval, stop), name=f"ship-{instance}"
            )
            self._running.append(_Shipper(thread, stop))
            thread.start()

    def request_stop(self) -> None:
        """Ask all threads to end; ``close`` waits for them."""
        for shipper in self._running:
            shipper.stop.request("the service is stopping")

    def close(self) -> None:
        """End all threads and wait for them."""
        self.request_stop()
        for shipper in self._running:
            shipper.thread.join()
        self._running.clear()
        self._fleet = None

    def _work(self, fleet: Fleet, instance: str, interval: int, stop: StopSignal) -> None:
        try:
            self.ship(fleet, instance, interval, stop)
        finally:
            fleet.leave()

    def ship(self, fleet: Fleet, instance: str, interval: int, stop: StopSignal) -> None:
        """Ship one item's log in the thread that calls, until ``stop``; ``interval`` in seconds."""
        wait = FIRST_WAIT_SECONDS
        told: tuple[str, str] | None = None
        shipped = threading.Event()

        def started(position: LogPosition) -> None:
            self._log.info(
                "log shipping started", item=instance, lineage=position.lineage, lsn=position.lsn
            )

        def noted(_piece: ShippedLog) -> None:
            shipped.set()

        while not stop.is_requested:
            shipped.clear()
            try:
                ship_log(
                    fleet,
                    instance,
                    interval_seconds=interval,
                    stop=stop,
                    on_start=started,
                    on_shipped=noted,
                )
            except Interrupted:
                break
            except LeaseHeld as error:
                if told != (error.code, ""):
                    told = (error.code, "")
                    self._log.info("log shipping left to another", item=instance, why=error.message)
                wait = FIRST_WAIT_SECONDS
            except SqlbakError as error:
                if shipped.is_set():
                    told, wait = None, FIRST_WAIT_SECONDS
                if told != (error.code, error.message):
                    told = (error.code, error.message)
                    self._log.warning(
                        "log shipping interrupted",
                        item=instance,
                        code=error.code,
                        error=error.message,
                        hint=error.hint,
                    )
            except Exception as error:  # noqa: BLE001 - the service must outlive a defect in it
                self._log.exception(
                    "log shipping failed by a defect", item=instance, error=repr(error)
                )
                wait = LONGEST_WAIT_SECONDS
            if stop.wait(wait):
                break
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)

"""``sqlbak run`` with a clock that goes faster: a day of schedules in minutes. Run with:
``python -m tests.acceptance.hurried_scheduler FACTOR STARTED`` (seconds since the epoch).
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from sqlbak.cli.signals import stop_on_signals
from sqlbak.scheduler.configuration_watch import ConfigurationWatch
from sqlbak.scheduler.logs import event_log
from sqlbak.scheduler.service import Limits, Service


def main(config: str, factor: float, started: float) -> None:
    def now() -> datetime:
        return datetime.fromtimestamp(started + (time.time() - started) * factor, UTC)

    limits = Limits(jobs_at_once=4, tick_seconds=0.5, catalog_age_seconds=20, grace_seconds=10)
    with stop_on_signals() as stop:
        watch = ConfigurationWatch(Path(config))
        Service(watch, event_log(as_json=True), stop, limits=limits, now=now).run()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))

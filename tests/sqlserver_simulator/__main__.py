"""The simulator as a process: ``python -m tests.sqlserver_simulator --folder /backup=/tmp/x``.

Prints one JSON line with host, port, user and password once it listens, then runs until it is
terminated or its standard input ends.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from pathlib import Path

from .simulator import Simulator


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.sqlserver_simulator")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--year", type=int, default=2022, choices=[2016, 2017, 2019, 2022, 2025])
    parser.add_argument("--zone", default="UTC", help="the server's zone, such as Europe/Berlin")
    parser.add_argument("--platform", default="Linux", choices=["Linux", "Windows"])
    parser.add_argument(
        "--folder", action="append", default=[], metavar="SERVER=LOCAL", help="may be repeated"
    )
    parser.add_argument("--s3", action="append", default=[], metavar="HOST=ENDPOINT")
    parser.add_argument("--tls", default="off", choices=["off", "login", "on"])
    parser.add_argument("--password", default="Str0ng!Passw0rd", help="of sa")
    parser.add_argument(
        "--execute", action="append", default=[], metavar="SQL", help="batches to begin with"
    )
    parser.add_argument("--until-eof", action="store_true", help="stop when standard input ends")
    chosen = parser.parse_args()
    folders = {}
    for pair in chosen.folder:
        server, _, local = pair.partition("=")
        folders[server] = Path(local)
    simulator = Simulator(
        folders,
        year=chosen.year,
        zone=chosen.zone,
        platform=chosen.platform,
        tls=chosen.tls,
        sa_password=chosen.password,
        s3_endpoints=dict(pair.split("=", 1) for pair in chosen.s3),
        port=chosen.port,
    )
    for batch in chosen.execute:
        simulator.execute(batch)
    with simulator:
        print(
            json.dumps(
                {
                    "host": simulator.host,
                    "port": simulator.port,
                    "user": "sa",
                    "password": simulator.sa_password,
                }
            ),
            flush=True,
        )
        if chosen.until_eof:
            sys.stdin.read()
        else:
            threading.Event().wait()


if __name__ == "__main__":
    main()

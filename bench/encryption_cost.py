"""What encryption costs: a full and a restore of one PostgreSQL cluster, with and without it.

Runs alternate, so that whatever else the machine does meets both alike. CPU is that of sqlbak's
process and all its children, user and system; the database server's own is not in it. Printed
are medians and the median of the paired ratios (encrypted / plain).

    python -m bench.encryption_cost --megabytes 300 --rounds 7
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.site import COMMAND, Site, encrypted_site
from tests.engines.postgres.clusters import available_majors, running_cluster


@dataclass(frozen=True)
class Cost:
    """Seconds."""

    wall: float
    cpu: float


def cost_of(site: Site, *words: str | Path) -> Cost:
    before, began = os.times(), time.monotonic()
    command = [*COMMAND, *map(str, words), "--quiet", "--json"]
    subprocess.run(command, env=site.environ, check=True, capture_output=True)
    wall, after = time.monotonic() - began, os.times()
    cpu = after.children_user + after.children_system
    return Cost(wall, cpu - before.children_user - before.children_system)


def measure(sites: dict[str, Site], scratch: Path, rounds: int) -> dict[str, dict[str, list[Cost]]]:
    found: dict[str, dict[str, list[Cost]]] = {
        "backup": {name: [] for name in sites},
        "restore": {name: [] for name in sites},
    }
    for number in range(rounds):
        # Who goes first alternates, too.
        for name, site in list(sites.items())[:: 1 if number % 2 else -1]:
            found["backup"][name].append(cost_of(site, "backup", "orders", "--type", "full"))
            into = scratch / "restored"
            words = ("restore", "orders", "--to", "latest", "--into", into)
            found["restore"][name].append(cost_of(site, *words))
            shutil.rmtree(into)
            for old in (site.root / "vault").glob("items/*/*"):
                if old.name in ("points", "data"):
                    shutil.rmtree(old)
    return found


def summary(costs: dict[str, list[Cost]]) -> dict[str, float]:
    told: dict[str, float] = {}
    for what in ("wall", "cpu"):
        plain, encrypted = ([getattr(c, what) for c in costs[n]] for n in ("plain", "encrypted"))
        told[f"plain_{what}_seconds"] = round(statistics.median(plain), 2)
        told[f"encrypted_{what}_seconds"] = round(statistics.median(encrypted), 2)
        ratios = [one / other for one, other in zip(encrypted, plain, strict=True)]
        told[f"{what}_ratio"] = round(statistics.median(ratios), 3)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        running_cluster(available_majors()[-1]) as cluster,
    ):
        # Half noise, half text: about what compresses as databases do.
        cluster.execute(
            "CREATE TABLE bulk AS SELECT n, sha512(n::text::bytea) AS noise, "
            "repeat('order ' || n %% 1000, 6) AS text FROM generate_series(1, %s) AS n",
            [asked.megabytes * 6000],
        )
        (size,) = cluster.execute("SELECT sum(pg_database_size(oid)) FROM pg_database")[0]
        root = Path(folder)
        for name in ("plain", "encrypted"):
            (root / name).mkdir()
        sites = {
            "plain": Site(root / "plain", cluster.dsn()),
            "encrypted": encrypted_site(root / "encrypted", cluster.dsn()),
        }
        found = measure(sites, root, asked.rounds)
    document: dict[str, object] = {"cluster_bytes": int(size), "rounds": asked.rounds}
    print(json.dumps(document | {what: summary(costs) for what, costs in found.items()}, indent=2))


if __name__ == "__main__":
    main()

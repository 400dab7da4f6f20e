"""The clusters that the other tests stand on really are what they say."""

from __future__ import annotations

import pytest

from tests.engines.postgres.clusters import Cluster, available_majors, running_cluster

pytestmark = pytest.mark.postgres


def test_a_cluster_of_each_major_version_runs(cluster: Cluster) -> None:
    version = cluster.execute("SHOW server_version_num")[0][0]
    assert int(version) // 10000 == cluster.major
    assert cluster.execute("SHOW data_checksums") == [("on",)]


def test_segment_size_checksums_and_tablespaces_can_be_chosen() -> None:
    with running_cluster(
        available_majors()[0], wal_segment_megabytes=1, has_checksums=False
    ) as cluster:
        assert cluster.execute("SHOW wal_segment_size") == [("1MB",)]
        assert cluster.execute("SHOW data_checksums") == [("off",)]
        directory = cluster.make_directory("space")
        cluster.execute(f"CREATE TABLESPACE space LOCATION '{directory}'")
        cluster.restart()
        assert cluster.execute("SELECT count(*) FROM pg_tablespace") == [(3,)]

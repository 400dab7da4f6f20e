"""The S3 servers as fixtures of the whole suite: one of each a test process, started when first
asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.vault.ceph import ceph_folder, start_ceph
from tests.vault.s3_servers import (
    S3Server,
    ministack_program,
    rclone_program,
    start_ministack,
    start_moto,
    start_rclone,
)


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with start_moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    program = ministack_program()
    if program is None:
        pytest.skip("ministack is not here: run tests/vault/install_ministack.sh")
    with start_ministack(tmp_path_factory.mktemp("ministack"), program) as server:
        yield server


@pytest.fixture(scope="session")
def ceph() -> Iterator[S3Server]:
    folder = ceph_folder()
    if folder is None:
        pytest.skip("Ceph is not here: run tests/vault/install_ceph.sh")
    with start_ceph(folder) as server:
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    program = rclone_program()
    if program is None:
        pytest.skip("rclone is not here: it comes with the test extra")
    with start_rclone(tmp_path_factory.mktemp("rclone"), program) as server:
        yield server

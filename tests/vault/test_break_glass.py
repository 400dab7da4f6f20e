"""Payload can be restored with ``zstd`` and ``tar`` alone, as docs/format.md says."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path
from random import Random

import pytest

from sqlbak.vault.file_store import FileStore
from sqlbak.vault.payload import PayloadWriter

ITEM = "orders-0123456789abcdef"
POINT = "20240501T120000Z-abcdefghij"

needs_programs = pytest.mark.skipif(
    shutil.which("zstd") is None or shutil.which("tar") is None,
    reason="zstd or tar is not installed",
)


def make_payload(root: Path) -> dict[str, bytes]:
    files = {f"base/16384/{number}": Random(number).randbytes(30_000) for number in range(20)}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    writer = PayloadWriter(FileStore(root), ITEM, POINT, frame_bytes=64 << 10, volume_bytes=200_000)
    with writer.stream("base.tar") as stream:
        stream.write(archive.getvalue())
    writer.seal()
    return files


@needs_programs
def test_cat_zstd_and_tar_bring_everything_back(tmp_path: Path) -> None:
    files = make_payload(tmp_path / "vault")
    target = tmp_path / "restored"
    target.mkdir()
    data = tmp_path / "vault" / "items" / ITEM / "data" / POINT
    assert len(list(data.glob("base.tar.*.zst"))) > 2
    subprocess.run(
        ["sh", "-ec", f"cat {data}/base.tar.*.zst | zstd -dc | tar -x -C {target}"], check=True
    )
    assert {name: (target / name).read_bytes() for name in files} == files


@needs_programs
def test_zstd_itself_refuses_a_volume_with_a_flipped_bit(tmp_path: Path) -> None:
    make_payload(tmp_path / "vault")
    volume = tmp_path / "vault" / "items" / ITEM / "data" / POINT / "base.tar.00001.zst"
    content = bytearray(volume.read_bytes())
    content[1000] ^= 1
    volume.chmod(0o600)
    volume.write_bytes(content)
    assert subprocess.run(["zstd", "-tq", str(volume)], check=False, capture_output=True).returncode

"""Nothing that sqlbak prints, stores or shows in the process list holds a secret."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import pytest

from tests.acceptance.aftermath import own_slots, remove_restored
from tests.acceptance.s3_sites import s3_site
from tests.acceptance.site import Answer, Site
from tests.engines.postgres.clusters import (
    Cluster,
    available_majors,
    running_cluster,
    scratch_directory,
)
from tests.vault.faulty_proxy import Fault, faulty_proxy
from tests.vault.s3_servers import rclone_program, start_moto, start_rclone

pytestmark = pytest.mark.postgres

PASSWORD = "tell-nobody-this-password-4711"
SECRET_KEY = "tell-nobody-this-secret-key-4712"
ROLE = "backup"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Cluster]:
    """A cluster whose backup role needs a password."""
    hba = (
        "local all postgres trust\n"
        f"host all {ROLE} 127.0.0.1/32 scram-sha-256\n"
        f"host replication {ROLE} 127.0.0.1/32 scram-sha-256\n"
    )
    settings = {"track_commit_timestamp": "on"}
    with running_cluster(available_majors()[-1], hba=hba, settings=settings) as cluster:
        cluster.execute(f"CREATE ROLE {ROLE} LOGIN REPLICATION PASSWORD '{PASSWORD}'")
        for function in ("pg_create_physical_replication_slot(name, bool, bool)",):
            cluster.execute(f"GRANT EXECUTE ON FUNCTION {function} TO {ROLE}")
        yield cluster


@pytest.fixture(autouse=True)
def _own_slots(guarded: Cluster) -> Iterator[None]:
    with own_slots(guarded):
        yield


@contextmanager
def watched_processes() -> Iterator[list[str]]:
    """Every command line that was seen on the machine meanwhile."""
    seen: list[str] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.02):
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.append(entry.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
                except OSError:
                    continue

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def guarded_site(root: Path, cluster: Cluster, *, password: str = PASSWORD) -> Site:
    return Site(root, cluster.dsn(user=ROLE, password=password, over_tcp=True))


def assert_silent(*answers: Answer) -> None:
    for answer in answers:
        for secret in (PASSWORD, SECRET_KEY):
            assert secret not in answer.out
            assert secret not in answer.err


def assert_files_silent(folder: Path) -> None:
    found = [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and any(secret.encode() in path.read_bytes() for secret in (PASSWORD, SECRET_KEY))
    ]
    assert found == []


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
def test_a_whole_life_shows_no_secret(guarded: Cluster, tmp_path: Path) -> None:
    site = guarded_site(tmp_path, guarded)
    with watched_processes() as processes, scratch_directory() as home:
        answers = [
            site.run(*words)
            for words in (
                ("validate",),
                ("inspect", "orders"),
                ("backup", "orders", "--type", "full"),
                ("backup", "orders", "--type", "log"),
                ("list",),
                ("windows",),
                ("plan",),
                ("vault", "check"),
                ("restore", "--to", "latest", "--into", home / "data", "--start"),
            )
        ]
        assert [answer.code for answer in answers] == [0] * len(answers), answers
        assert_files_silent(home / "data" / "sqlbak")
        for name in ("postgresql.auto.conf", "postmaster.opts"):
            assert PASSWORD not in (home / "data" / name).read_text()
        remove_restored(guarded, home / "data")
    assert_silent(*answers)
    assert_files_silent(tmp_path)
    assert any("sqlbak" in line for line in processes)
    assert not any(PASSWORD in line for line in processes)


def test_failing_to_connect_shows_no_secret(guarded: Cluster, tmp_path: Path) -> None:
    site = guarded_site(tmp_path, guarded)
    away = site.dsn.replace(f"port={guarded.port}", "port=1")
    wrong = site.dsn.replace(f"user={ROLE}", "user=nobody_at_all")
    dsns = [
        guarded.dsn(user=ROLE, password=PASSWORD + "x", over_tcp=True),
        away,
        wrong,
        site.dsn.replace("dbname=postgres", "dbname=nowhere"),
        f"postgresql://{ROLE}:{PASSWORD}@127.0.0.1:{guarded.port}/nowhere",
        f"postgresql://{ROLE}:{PASSWORD}@127.0.0.1:notaport/postgres",
        f"postgresql://{ROLE}:{PASSWORD}@[::1/postgres",
        f"host=127.0.0.1 password={PASSWORD} pasword=x",
        f"host=127.0.0.1 password='{PASSWORD}",
        f"{PASSWORD}",
        f"postgresql://{ROLE}:%zz{PASSWORD}@127.0.0.1/postgres",
        f"host=no.such.host.invalid user={ROLE} password={PASSWORD}",
        f"host=127.0.0.1 user={ROLE} password={PASSWORD} sslmode={PASSWORD}",
    ]
    for dsn, words in zip(
        dsns, cycle((("backup", "orders", "--type", "full"), ("inspect", "orders"))), strict=False
    ):
        answer = replace(site, dsn=dsn).run(*words)
        assert answer.code in (1, 2), (answer.out, answer.err)
        assert "Traceback" not in answer.err, answer.err
        assert_silent(answer)
    assert_files_silent(tmp_path)


def test_a_secret_in_a_policy_file_is_refused_without_repeating_it(
    guarded: Cluster, tmp_path: Path
) -> None:
    site = guarded_site(tmp_path, guarded)
    file = site.config / "orders.yaml"
    good = file.read_text()
    for line in (
        f"postgresql://backup:{PASSWORD}@127.0.0.1/postgres",
        f"host=127.0.0.1 password={PASSWORD}",
        f"password={PASSWORD} pasword",
    ):
        file.write_text(good.replace("env:ORDERS_DSN", f'"{line}"'))
        for words in (("validate",), ("backup", "orders"), ("run",)):
            answer = site.run(*words)
            assert answer.code == 2
            assert_silent(answer)


def test_a_dsn_in_a_file_shows_no_secret(guarded: Cluster, tmp_path: Path) -> None:
    site = guarded_site(tmp_path, guarded)
    with scratch_directory() as home:
        (home / "dsn").write_text(site.dsn + "\n")
        file = site.config / "orders.yaml"
        file.write_text(file.read_text().replace("env:ORDERS_DSN", f"file:{home}/dsn"))
        here = replace(site, dsn="")
        file.write_text(file.read_text().replace("env:ORDERS_DSN", f"file:{home}/dsn"))
        assert_silent(answer := here.run("backup", "orders", "--type", "full"))
        assert answer.code == 0, answer.err
        (home / "dsn").write_text(f"{PASSWORD}\nhost=x\n")
        assert_silent(answer := here.run("backup", "orders", "--type", "log"))
        assert answer.code in (1, 2)
        assert "Traceback" not in answer.err
    assert_files_silent(tmp_path)


def test_the_scheduler_s_log_shows_no_secret(guarded: Cluster, tmp_path: Path) -> None:
    for password in (PASSWORD + "x", PASSWORD):  # the first full is due until it is taken
        site = guarded_site(tmp_path, guarded, password=password)
        process = site.start("run", "--tick", "0.2", "--grace", "5")
        assert process.stderr is not None
        lines: list[str] = []
        while not any(word in "".join(lines) for word in ("backup done", "backup failed")):
            lines.append(process.stderr.readline())
            assert lines[-1]
        process.terminate()
        out, err = process.communicate(timeout=60)
        assert_silent(Answer(process.returncode, out, "".join(lines) + err))
    assert_files_silent(tmp_path)


@pytest.mark.s3
def test_buckets_and_their_errors_show_no_secret(guarded: Cluster, tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    dsn = guarded.dsn(user=ROLE, password=PASSWORD, over_tcp=True)
    with start_moto(tmp_path / "server") as moto, faulty_proxy(moto.endpoint) as proxy:
        here = s3_site(tmp_path, dsn, moto, endpoint=proxy.endpoint, secret_key=SECRET_KEY)
        with watched_processes() as processes:
            answers = [
                here.site.run("backup", "orders", "--type", kind) for kind in ("full", "log")
            ]
            assert [answer.code for answer in answers] == [0, 0]
            for fault in (
                Fault("*", "answer", 403, "SignatureDoesNotMatch", times=100),
                Fault("PutObject", "answer", 403, "AccessDenied", times=100, skip=3),
                Fault("*", "answer", 501, body=f"<x>{'y' * 50}", times=100),
            ):
                proxy.faults[:] = [fault]
                answer = here.site.run("backup", "orders", "--type", "full")
                assert answer.code in (1, 3)
                assert "Traceback" not in answer.err, answer.err
                answers.append(answer)
            proxy.faults.clear()
        assert_silent(*answers)
        assert not any(s in line for line in processes for s in (PASSWORD, SECRET_KEY))
        for key, content in here.contents().items():
            assert SECRET_KEY.encode() not in content, key
            assert PASSWORD.encode() not in content, key
        wrong = here.site.text().replace("env:VAULT_SECRET_KEY", SECRET_KEY)
        (here.site.config / "orders.yaml").write_text(wrong)
        answer = here.site.run("validate")
        assert answer.code == 2
        assert_silent(answer)


@pytest.mark.s3
def test_a_wrong_secret_key_is_not_repeated(guarded: Cluster, tmp_path: Path) -> None:
    program = rclone_program()
    if program is None:
        pytest.skip("rclone is not here: it comes with the test extra")
    (tmp_path / "server").mkdir()
    dsn = guarded.dsn(user=ROLE, password=PASSWORD, over_tcp=True)
    with start_rclone(tmp_path / "server", program) as rclone:
        here = s3_site(tmp_path, dsn, rclone, secret_key=SECRET_KEY)
        for words in (("backup", "orders"), ("list",), ("vault", "check")):
            answer = here.site.run(*words)
            assert answer.code == 1
            assert answer.document["error"]["code"] == "access_denied"
            assert_silent(answer)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_the_restored_server_does_not_inherit_the_environment(
    guarded: Cluster, tmp_path: Path
) -> None:
    site = guarded_site(tmp_path, guarded)
    site.backup("full")
    with scratch_directory() as home:
        site.restore("latest", home / "data", "--start").ok()
        pid = (home / "data" / "postmaster.pid").read_text().split()[0]
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        remove_restored(guarded, home / "data")
    assert PASSWORD.encode() not in environment
    assert os.fsencode("ORDERS_DSN") not in environment

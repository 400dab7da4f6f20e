"""Sessions with the simulated server: encryption, refusals, progress, stopping, lost wires."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sqlbak.engines.sqlserver import connection as module
from sqlbak.engines.sqlserver import watching
from sqlbak.engines.sqlserver.address import ServerAddress, Wire
from sqlbak.engines.sqlserver.connection import ConnectionLost, Session, StatementFailed
from sqlbak.errors import Interrupted, ServerRefused, ServerUnreachable, UsageError
from sqlbak.stopping import StopSignal
from tests.sqlserver_simulator import Simulator
from tests.vault.certificates import make_certificates

BACKUP = "BACKUP DATABASE [Sales] TO DISK = N'/b/x.bak' WITH FORMAT, STATS = 10"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with Simulator({"/b": tmp_path_factory.mktemp("b")}) as simulator:
        simulator.create_database("Sales", rows=["one"], filler_bytes=100_000)
        yield simulator


@pytest.fixture
def simulator(server: Simulator) -> Iterator[Simulator]:
    server.faults.clear()
    yield server
    server.faults.clear()


def address(simulator: Simulator, wire: Wire = Wire.CLEAR, **options: object) -> ServerAddress:
    return ServerAddress(
        simulator.host,
        simulator.port,
        "sa",
        simulator.sa_password,
        wire,
        **options,  # type: ignore[arg-type]
    )


def test_rows_are_read_by_name_and_exactly(simulator: Simulator) -> None:
    with Session.open(address(simulator)) as session:
        (row,) = session.rows(
            "SELECT CONVERT(numeric(25,0), 1234567890123456789012345) AS big, N'数' AS t",
            doing="testing",
        )
        assert int(row["big"]) == 1234567890123456789012345
        assert row["t"] == "数"


def test_progress_is_heard_while_the_statement_runs(simulator: Simulator) -> None:
    heard: list[tuple[float, str]] = []
    simulator.faults.pace = 0.5
    with Session.open(address(simulator)) as session:
        said = session.run(
            BACKUP, doing="testing", hear=lambda text: heard.append((time.monotonic(), text))
        )
    assert [text for text in said if text == "100 percent processed."]
    assert any("successfully processed" in text for text in said)
    assert heard[-1][0] - heard[0][0] > 0.1


def test_an_error_has_its_number_and_every_text(simulator: Simulator) -> None:
    with Session.open(address(simulator)) as session:
        with pytest.raises(StatementFailed) as failed:
            session.run(BACKUP.replace("/b/", "/nowhere/"), doing="testing")
        assert failed.value.number == 3201
        assert any("terminating abnormally" in text for text in failed.value.error.texts)
        assert session.rows("SELECT 1 AS one", doing="going on") == [{"one": 1}]


def test_a_stop_cancels_the_statement_and_keeps_the_session(simulator: Simulator) -> None:
    fault = simulator.faults.add("pause", at_percent=30, seconds=60)
    stop = StopSignal()
    asking = threading.Thread(target=lambda: fault.reached.wait(30) and stop.request("enough"))
    asking.start()
    with Session.open(address(simulator)) as session:
        with pytest.raises(Interrupted, match="enough"):
            session.run(BACKUP, doing="testing", stop=stop)
        asking.join()
        assert session.rows("SELECT 1 AS one", doing="going on") == [{"one": 1}]


def test_a_statement_is_not_cancelled_while_the_server_talks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The driver's cancel, called while its other thread reads, takes that one's answer away."""
    monkeypatch.setattr(watching, "_SILENT_SECONDS", 20)
    stop, cancelled = StopSignal(), threading.Event()
    stop.request("enough")
    with watching.Watch(cancelled.set, stop, grace_seconds=0) as watch:
        for _ in range(50):
            watch.heard()
            assert not cancelled.wait(0.02)
        monkeypatch.setattr(watching, "_SILENT_SECONDS", 0)
        assert cancelled.wait(30)


def test_a_server_that_does_not_even_cancel_is_left(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator.faults.answers_attention = False
    simulator.faults.add("pause", at_percent=30, seconds=5)

    class Impatient(watching.Watch):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options, grace_seconds=0.3)  # type: ignore[arg-type]

    session = Session.open(address(simulator))
    monkeypatch.setattr(module, "Watch", Impatient)
    began = time.monotonic()
    with session, pytest.raises(ConnectionLost):
        session.run(BACKUP, doing="testing", limit_seconds=0.3)
    assert time.monotonic() - began < 4


def test_a_lost_connection_is_told_apart_from_a_refusal(simulator: Simulator) -> None:
    simulator.faults.add("drop", at_percent=50, command="BACKUP DATABASE")
    with Session.open(address(simulator)) as session, pytest.raises(ConnectionLost):
        session.run(BACKUP, doing="testing")


def test_a_kill_is_a_lost_connection_or_a_failure_but_never_a_success(
    simulator: Simulator,
) -> None:
    simulator.faults.add("kill", at_percent=50, command="BACKUP DATABASE")
    session = Session.open(address(simulator))
    with session, pytest.raises((ConnectionLost, StatementFailed)):
        session.run(BACKUP, doing="testing")


def test_login_failures_are_known_even_after_other_ones(simulator: Simulator) -> None:
    wrong = ServerAddress(simulator.host, simulator.port, "sa", "not it", Wire.CLEAR)
    nowhere = ServerAddress("127.0.0.1", 9, "sa", "secret", Wire.CLEAR, None, 2)
    for _ in range(2):
        with pytest.raises(ServerRefused) as refused:
            Session.open(wrong)
        assert "not it" not in str(refused.value) + refused.value.hint
        with pytest.raises(ServerUnreachable, match="nothing answers"):
            Session.open(nowhere)


def test_an_address_never_shows_its_password(simulator: Simulator) -> None:
    assert simulator.sa_password not in repr(address(simulator))


def test_a_verified_wire_needs_certificates_and_only_it() -> None:
    with pytest.raises(UsageError):
        ServerAddress("h", 1, "sa", "p", Wire.VERIFIED)
    with pytest.raises(UsageError):
        ServerAddress("h", 1, "sa", "p", Wire.REQUIRED, Path("/ca.pem"))


def test_nothing_falls_back_to_an_unencrypted_wire(simulator: Simulator) -> None:
    with pytest.raises(ServerUnreachable):
        Session.open(address(simulator, Wire.REQUIRED))


def test_a_server_that_breaks_off_never_gets_the_password_in_clear() -> None:
    """Left to itself, the driver would try older protocols, which log in without TLS."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            while True:
                try:
                    accepted, _ = listening.accept()
                except OSError:
                    return
                with accepted:
                    received.append(accepted.recv(4096))

        answering = threading.Thread(target=answer)
        answering.start()
        where = ("127.0.0.1", listening.getsockname()[1], "sa", "S3cret")
        with pytest.raises(ServerUnreachable):
            Session.open(ServerAddress(*where, Wire.REQUIRED, None, 2))
        listening.shutdown(socket.SHUT_RDWR)
        answering.join()
    prelogin = 0x12
    assert received
    assert all(packet[0] == prelogin for packet in received if packet)


def test_only_the_right_certificate_is_trusted(tmp_path: Path) -> None:
    with Simulator(tls="on") as secure, Simulator(tls="on") as other:
        assert secure.certificate is not None
        good, bad = tmp_path / "good.pem", make_certificates(tmp_path).authority
        good.write_bytes(secure.certificate)
        with pytest.raises(ServerUnreachable):
            Session.open(address(secure, Wire.VERIFIED, ca_file=bad))
        with Session.open(address(secure, Wire.VERIFIED, ca_file=good)) as session:
            assert session.rows("SELECT 1 AS one", doing="testing") == [{"one": 1}]
        # What is trusted for one server is not trusted for the next.
        with pytest.raises(ServerUnreachable):
            Session.open(address(other, Wire.VERIFIED, ca_file=bad))
        with Session.open(address(secure, Wire.VERIFIED, ca_file=good)):
            pass
        with pytest.raises(ServerUnreachable):
            Session.open(address(secure, Wire.CLEAR))


def test_a_certificate_for_another_host_is_refused(tmp_path: Path) -> None:
    with Simulator(tls="on") as simulator:
        assert simulator.certificate is not None
        good = tmp_path / "good.pem"
        good.write_bytes(simulator.certificate)
        # Another way to write 127.0.0.1, which the certificate does not name.
        where = ("127.1", simulator.port, "sa", simulator.sa_password)
        with Session.open(ServerAddress(*where, Wire.REQUIRED)):
            pass
        with pytest.raises(ServerUnreachable):
            Session.open(ServerAddress(*where, Wire.VERIFIED, good))


def test_an_encrypted_wire_without_a_check_is_encrypted(tmp_path: Path) -> None:
    with (
        Simulator(tls="on") as simulator,
        Session.open(address(simulator, Wire.REQUIRED)) as session,
    ):
        assert session.session_id > 0

"""What the server says is turned into one error and the line that mends it."""

from __future__ import annotations

import pytest

from sqlbak.engines.postgres.failures import (
    ServerMessage,
    explain_connection_failure,
    explain_server_message,
    quote_identifier,
)
from sqlbak.errors import (
    BackupFailed,
    EngineError,
    LogChainBroken,
    ServerNotReady,
    ServerRefused,
    ServerUnreachable,
)

FAILED = 'connection failed: connection to server at "db1" (10.0.0.9), port 5432 failed: FATAL:  '


@pytest.mark.parametrize(
    ("said", "code", "error", "remedy"),
    [
        (
            'no pg_hba.conf entry for replication connection from host "10.0.0.5", user "sqlbak",'
            " no encryption",
            "hba_replication_missing",
            ServerRefused,
            "host  replication  sqlbak  10.0.0.5/32  scram-sha-256",
        ),
        (
            'no pg_hba.conf entry for replication connection from host "fe80::1%eth0",'
            ' user "Back Up", SSL encryption',
            "hba_replication_missing",
            ServerRefused,
            'hostssl  replication  "Back Up"  fe80::1/128  scram-sha-256',
        ),
        (
            'no pg_hba.conf entry for host "[local]", user "sqlbak", database "postgres",'
            " no encryption",
            "hba_missing",
            ServerRefused,
            "local  postgres  sqlbak  scram-sha-256",
        ),
        (
            'pg_hba.conf rejects replication connection for host "10.0.0.5", user "sqlbak",'
            " no encryption",
            "hba_replication_missing",
            ServerRefused,
            "host  replication  sqlbak  10.0.0.5/32  scram-sha-256",
        ),
        (
            "must be superuser or replication role to start walsender",
            "role_lacks_replication",
            ServerRefused,
            'ALTER ROLE "me" WITH REPLICATION;',
        ),
        (
            "permission denied to start WAL sender\nDETAIL:  Only roles with the REPLICATION"
            " attribute may start a WAL sender process.",
            "role_lacks_replication",
            ServerRefused,
            'ALTER ROLE "me" WITH REPLICATION;',
        ),
        (
            'number of requested standby connections exceeds "max_wal_senders" (currently 10)',
            "no_free_wal_sender",
            ServerNotReady,
            "max_wal_senders = 20",
        ),
        (
            'permission denied for database "app"\nDETAIL:  User does not have CONNECT privilege.',
            "no_connect_privilege",
            ServerRefused,
            'GRANT CONNECT ON DATABASE "app" TO "me";',
        ),
        ('database "x" does not exist', "no_such_database", ServerRefused, "dbname=postgres"),
        ('role "who" does not exist', "no_such_role", ServerRefused, 'CREATE ROLE "who"'),
        ('password authentication failed for user "me"', "login_refused", ServerRefused, "me"),
        ('Peer authentication failed for user "me"', "login_refused", ServerRefused, "password"),
        ("sorry, too many clients already", "no_free_connection", ServerNotReady, "max_conn"),
        ("the database system is starting up", "server_not_accepting", ServerUnreachable, "wait"),
        ("something else in any language", "server_unreachable", ServerUnreachable, "pg_isready"),
    ],
)
def test_a_failed_connection_names_its_remedy(
    said: str, code: str, error: type[EngineError], remedy: str
) -> None:
    failure = explain_connection_failure(FAILED + said, where="PostgreSQL at db1:5432", user="me")
    assert (failure.code, failure.error) == (code, error)
    assert remedy in failure.remedy
    assert said.splitlines()[0] in failure.what
    assert isinstance(failure.as_error(), error)


@pytest.mark.parametrize(
    ("message", "error", "hint"),
    [
        (ServerMessage("42501", "permission denied"), ServerRefused, "WITH REPLICATION"),
        (
            ServerMessage("42501", "permission denied for function pg_control_system"),
            ServerRefused,
            "GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system",
        ),
        (
            ServerMessage("53400", "all replication slots are in use"),
            ServerNotReady,
            "max_replication_slots",
        ),
        (
            ServerMessage("58P01", "requested WAL segment 0001 has already been removed"),
            LogChainBroken,
            "full",
        ),
        (
            ServerMessage("55000", "the standby was promoted during online backup"),
            BackupFailed,
            "again",
        ),
        (
            ServerMessage(
                "55000",
                "WAL generated with full_page_writes=off was replayed since last restartpoint",
            ),
            BackupFailed,
            "full_page_writes = on",
        ),
        (ServerMessage("XX001", "checksum verification failure"), BackupFailed, "pg_amcheck"),
        (ServerMessage("57P01", "terminating connection"), BackupFailed, "again"),
        (ServerMessage("XX000", "whatever"), BackupFailed, "log"),
    ],
)
def test_a_failed_command_is_one_of_our_errors(
    message: ServerMessage, error: type[EngineError], hint: str
) -> None:
    raised = explain_server_message(message, where="here", doing="doing it", user="me")
    assert type(raised) is error
    assert message.primary in raised.message
    assert "while doing it" in raised.message
    assert hint in raised.hint


def test_names_are_quoted_as_sql_wants_them() -> None:
    assert quote_identifier('a"b') == '"a""b"'

"""Connection strings: any form is read, and no piece of a password is ever shown."""

from __future__ import annotations

import pytest

from sqlbak.engines.postgres.dsn import ConnectionString
from sqlbak.errors import UsageError


def parse(dsn: str) -> ConnectionString:
    return ConnectionString.parse(dsn, connect_timeout_seconds=7)


@pytest.mark.parametrize(
    "dsn",
    [
        "host=db1 port=5433 user=backup password=hunter2 dbname=postgres",
        "postgresql://backup:hunter2@db1:5433/postgres",
        "postgres://backup:hunter2@db1:5433/postgres?sslmode=require",
    ],
)
def test_any_form_is_read_and_only_host_port_and_role_are_shown(dsn: str) -> None:
    target = parse(dsn)
    assert target.where == "PostgreSQL at db1:5433"
    assert target.user == "backup"
    assert target.for_sql()["password"] == "hunter2"
    assert "hunter2" not in repr(target)


@pytest.mark.parametrize(
    "dsn",
    [
        "host=db1 password = hun ter2",
        "hunter2",
        "password='hunter2",
        "postgresql://backup:hun@ter2@db1/postgres",
        "postgresql://backup:hun/ter2@db1/postgres",
        "postgresql://backup:123/hunter2@db1/postgres",
        "postgresql://backup:hunter2@db1:hunter2/postgres",
        "postgresql://backup:hun%ter2@db1/postgres",
    ],
)
def test_an_unreadable_string_is_refused_without_repeating_it(dsn: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(dsn)
    shown = f"{refused.value.message} {refused.value.hint} {refused.value.__cause__}"
    assert "ter2" not in shown
    assert "hun" not in shown


def test_we_say_who_we_are_and_notice_a_network_that_vanishes() -> None:
    parameters = parse("host=db1").for_replication()
    assert parameters["application_name"] == "sqlbak"
    assert parameters["replication"] == "true"
    assert parameters["connect_timeout"] == "7"
    assert parameters["keepalives_idle"] == "30"
    assert "target_session_attrs" not in parameters


def test_what_the_string_says_goes_before_our_defaults() -> None:
    parameters = parse("host=db1 application_name=mine connect_timeout=3").for_sql()
    assert parameters["application_name"] == "mine"
    assert parameters["connect_timeout"] == "3"


def test_of_several_hosts_the_primary_is_meant() -> None:
    assert parse("host=db1,db2 port=5432,5433").for_sql()["target_session_attrs"] == "primary"
    given = parse("host=db1,db2 target_session_attrs=any").for_sql()
    assert given["target_session_attrs"] == "any"

"""What PostgreSQL's transport does when the server, the line, another session or a row fails."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import gevent
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pillows.errors import AccessError, AwayError, ConfigError, FencedError, RetryableError
from pillows.models import DocumentRows, write_version
from pillows.transports.postgres.open_connection import open_connection
from pillows.transports.postgres.options import PostgresConnection, PostgresOutput
from pillows.transports.postgres.transport import PostgresTransport
from tests.conformance.steps import assert_applied, opened, rows, write_until_answered
from tests.conformance.target import KEY, OTHER_KEY, at, batch, document, gone
from tests.integration.transports.postgres_database import PostgresDatabase, address, options
from tests.servers.tcp_proxy import TcpProxy
from tests.support.sizes import size
from tests.support.waiting import wait_until


@pytest.fixture
def database(postgres_dsn: str) -> PostgresDatabase:
    return PostgresDatabase(postgres_dsn)


@pytest.fixture
def proxied(postgres_dsn: str, tcp_proxy: Callable[[Any], TcpProxy]) -> PostgresDatabase:
    return PostgresDatabase(postgres_dsn, proxy=tcp_proxy(address(postgres_dsn)))


@contextmanager
def sleeping_on(database: PostgresDatabase, table: str, *, seconds: float = 300) -> Iterator[None]:
    """While open, every write to a table takes that long."""
    database.query(
        f"create function rest() returns trigger language plpgsql as"
        f" $$ begin perform pg_sleep({seconds}); return new; end $$"
    )
    database.query(
        f"create trigger resting before insert or update on {table} for each row execute function rest()"
    )
    yield
    database.query("drop function if exists rest() cascade")


def is_running(database: PostgresDatabase, statement: str) -> bool:
    return any(statement in query for query in database.running())


def is_held(database: PostgresDatabase, id: str) -> bool:
    """Whether some transaction has changed a document of `docs` and not ended."""
    try:
        database.query(f"select 1 from docs where _id = '{id}' for update nowait")
    except psycopg.errors.LockNotAvailable:
        return True
    return False


def terminate(database: PostgresDatabase) -> None:
    """Ends the transports' sessions, as an administrator does."""
    database.query(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where application_name like 'pillowd%%' and datname = current_database()"
    )


# ---------------------------------------------------------------------- two owners


def test_of_two_owners_the_second_fences_the_first_out(database: PostgresDatabase) -> None:
    with opened(database, "docs") as first, opened(database, "docs") as second:
        with pytest.raises(FencedError):
            first.write(batch(document("a", 1, {"n": 1}), checkpoint=at("5-x")))
        with pytest.raises(FencedError):
            first.acquire(at("0", epoch=9))
        with pytest.raises(FencedError):
            first.write(batch(gone("b", 1), first_pass=True))
        assert_applied(second.write(batch(document("a", 1, {"n": 2}), checkpoint=at("6-x"))))
    assert rows(database) == {"a": [{"n": 2}]}
    assert database.query("select seq, epoch from pillowd_checkpoint") == [{"seq": "6-x", "epoch": 1}]


def test_a_claim_waits_for_a_write_and_then_outranks_it(database: PostgresDatabase) -> None:
    """Either the first owner's batch is there before the second owner reads, or it never comes."""
    with opened(database, "docs", lock_timeout="20s") as first:
        second = database.transport("docs", lock_timeout="20s")
        second.open()
        with closing(second), sleeping_on(database, "docs", seconds=1):
            writing = gevent.spawn(first.write, batch(document("a", 1, {"n": 1}), checkpoint=at("5-x")))
            wait_until(lambda: writing.ready() or is_running(database, "insert into"))
            second.acquire(at("0"))
            assert rows(database) == {"a": [{"n": 1}]}
            assert_applied(writing.get(timeout=60))
            with pytest.raises(FencedError):
                first.write(batch(document("b", 1, {"n": 1})))


def test_nobody_writes_without_a_claim(database: PostgresDatabase) -> None:
    with opened(database, "docs", claim=False) as transport, pytest.raises(FencedError):
        transport.write(batch(document("a", 1, {"n": 1})))


def test_two_pillows_write_side_by_side(database: PostgresDatabase) -> None:
    """The fence of one tail never waits for another tail's."""
    mine, theirs = opened(database, "docs"), opened(database, "other", key=OTHER_KEY)
    with mine as my_transport, theirs as their_transport, sleeping_on(database, "docs"):
        writing = gevent.spawn(my_transport.write, batch(document("a", 1, {"n": 1})))
        wait_until(lambda: is_running(database, "insert into"))
        with gevent.Timeout(60):
            assert_applied(their_transport.write(batch(document("a", 1, {"n": 2}, output="other"))))
        writing.kill(timeout=60)


# ---------------------------------------------------------------------- all or nothing


@pytest.mark.parametrize("how", ["greenlet-killed", "session-terminated", "line-cut"])
@pytest.mark.parametrize("first_pass", [False, True], ids=["staged", "direct"])
def test_killed_between_rows_and_checkpoint_neither_is_visible(
    proxied: PostgresDatabase, how: str, first_pass: bool
) -> None:
    database = proxied
    with opened(database, "docs", "lines") as transport:
        transport.write(batch(document("a", 1, {"n": 1}, lines=[{}]), checkpoint=at("1-x")))
        new = batch(
            document("a", 2, {"n": 2}),
            document("b", 1, {"n": 1}),
            first_pass=first_pass,
            checkpoint=at("2-x"),
        )
        with sleeping_on(database, "pillowd_checkpoint"):
            writing = gevent.spawn(transport.write, new)
            wait_until(lambda: is_running(database, 'update "public"."pillowd_checkpoint"'))
            if how == "greenlet-killed":
                writing.kill(timeout=60)
            elif how == "session-terminated":
                terminate(database)
            else:
                assert database.proxy
                database.proxy.reset()
            if how != "greenlet-killed":
                with pytest.raises(RetryableError):
                    writing.get(timeout=60)
                terminate(database)
        assert rows(database) == {"a": [{"n": 1}]}
        assert rows(database, "lines") == {"a": [{}]}
        assert database.query("select seq from pillowd_checkpoint") == [{"seq": "1-x"}]
        assert_applied(write_until_answered(transport, new))
        assert database.query("select seq from pillowd_checkpoint") == [{"seq": "2-x"}]


def test_a_transport_goes_on_after_the_server_ended_its_session(database: PostgresDatabase) -> None:
    with opened(database, "docs") as transport:
        transport.write(batch(document("a", 1, {"n": 1})))
        terminate(database)
        with pytest.raises(RetryableError):
            transport.write(batch(document("b", 1, {"n": 1})))
        assert_applied(transport.write(batch(document("b", 1, {"n": 1}))))
        assert database.open_connections() == 1


# ---------------------------------------------------------------------- kills and timeouts


@pytest.mark.parametrize("how", ["kill", "timeout", "close"])
def test_a_query_that_nobody_waits_for_is_ended_in_the_server(database: PostgresDatabase, how: str) -> None:
    with opened(database, "docs") as transport, sleeping_on(database, "docs"):

        def write() -> None:
            with gevent.Timeout(3 if how == "timeout" else 60):
                transport.write(batch(document("a", 1, {"n": 1})))

        writing = gevent.spawn(write)
        wait_until(lambda: is_running(database, "insert into"))
        if how == "kill":
            writing.kill(timeout=60)
        elif how == "close":
            transport.close()
            with pytest.raises(RetryableError):
                writing.get(timeout=60)
        else:
            with pytest.raises(gevent.Timeout):
                writing.get(timeout=60)
        wait_until(lambda: database.open_connections() == 0)
        database.query("drop function rest() cascade")
        assert_applied(transport.write(batch(document("a", 1, {"n": 2}))))
    assert rows(database) == {"a": [{"n": 2}]}


def test_who_waits_for_a_connection_hears_at_once_that_another_closed_it(database: PostgresDatabase) -> None:
    connection = open_connection(options(database.dsn), "pillowd test")
    waiting = gevent.spawn(connection.execute, "select pg_sleep(300)")
    wait_until(lambda: is_running(database, "pg_sleep(300)"))
    connection.close()
    with pytest.raises(psycopg.OperationalError, match="was closed"):
        waiting.get(timeout=5)


def test_others_go_on_while_one_sends_and_awaits_more_than_a_socket_holds(database: PostgresDatabase) -> None:
    turns = 0

    def take_turns() -> None:
        nonlocal turns
        while True:
            gevent.sleep(0.01)
            turns += 1

    other = gevent.spawn(take_turns)
    text = "x" * 20_000_000
    with closing(open_connection(options(database.dsn), "pillowd test")) as connection:
        found = connection.execute("select %s, pg_sleep(0.5)::text", (text,)).fetchone()
    other.kill()
    assert found == (text, "")
    assert turns > 5


def test_a_server_that_falls_silent_is_given_up_in_time(proxied: PostgresDatabase) -> None:
    assert proxied.proxy
    with opened(proxied, "docs", write_timeout="3s") as transport:
        proxied.proxy.stall()
        began = time.monotonic()
        with pytest.raises(RetryableError, match=r"did not finish within 3 s"):
            transport.write(batch(document("a", 1, {"n": 1})))
        assert time.monotonic() - began < size(ci=30, proof=5)
        proxied.proxy.flow()
        assert_applied(write_until_answered(transport, batch(document("a", 1, {"n": 1}))))


def test_a_server_that_never_greets_is_given_up_in_time(proxied: PostgresDatabase) -> None:
    assert proxied.proxy
    proxied.proxy.stall()
    transport = proxied.transport("docs", write_timeout="3s")
    with pytest.raises(RetryableError):
        transport.open()
    transport.close()


def test_a_statement_that_takes_too_long_is_retryable(database: PostgresDatabase) -> None:
    with opened(database, "docs", statement_timeout="1s") as transport:
        with sleeping_on(database, "docs"), pytest.raises(RetryableError, match="57014"):
            transport.write(batch(document("a", 1, {"n": 1})))
        assert_applied(transport.write(batch(document("a", 1, {"n": 1}))))


def test_a_real_deadlock_is_retryable(database: PostgresDatabase) -> None:
    """Another session holds b and waits for a; we hold a, come to b last, and so are the ones to notice."""
    hasty = make_conninfo(database.dsn, options="-c deadlock_timeout=20ms")
    with opened(PostgresDatabase(hasty), "docs", lock_timeout="30s") as transport:
        transport.write(batch(document("a", 1, {"n": 1}), document("b", 1, {"n": 1})))
        written = batch(document("a", 2, {"n": 2}), document("b", 2, {"n": 2}))
        with psycopg.connect(database.dsn) as other, sleeping_on(database, "docs", seconds=1):
            other.execute("set deadlock_timeout = '60s'")
            other.execute("set session_replication_role = replica")  # its own writes do not sleep
            other.execute("update docs set _rev = 'held' where _id = 'b'")
            writing = gevent.spawn(transport.write, written)
            wait_until(lambda: is_held(database, "a"))  # and now it rests before b
            other.execute("update docs set _rev = 'held' where _id = 'a'")
            with pytest.raises(RetryableError, match="40P01"):
                writing.get(timeout=60)
            other.rollback()
        assert_applied(write_until_answered(transport, written))
    assert rows(database) == {"a": [{"n": 2}], "b": [{"n": 2}]}


# ---------------------------------------------------------------------- rows that can never be written


def with_bad(count: int, bad: set[str], value: object) -> list[DocumentRows]:
    """Documents d0000, d0001, ... with their number in `n`, and that value in the bad ones."""
    ids = [f"d{n:04}" for n in range(count)]
    rows = [{"n": value if id in bad else n} for n, id in enumerate(ids)]
    return [document(id, 1, row, output="typed") for id, row in zip(ids, rows, strict=True)]


def attempts(database: PostgresDatabase) -> int:
    """How often something was tried that might have to be undone."""
    assert database.proxy
    return database.proxy.count(b"savepoint pillowd; set constraints all deferred", "to_server")


@pytest.mark.parametrize("first_pass", [False, True], ids=["staged", "direct"])
def test_ten_bad_values_in_a_thousand_are_found_at_once(proxied: PostgresDatabase, first_pass: bool) -> None:
    bad = {f"d{n:04}" for n in range(37, 1000, 100)}
    with opened(proxied, "typed") as transport:
        result = transport.write(batch(*with_bad(1000, bad, "x"), first_pass=first_pass))
    assert result.dead == dict.fromkeys(bad, "Column n: invalid input syntax for type integer: ...")
    assert proxied.query("select count(*) as n from typed") == [{"n": 990}]
    assert attempts(proxied) <= 5  # straight, the plain ones, staging (for its characters), probing, moving


def test_ten_bad_documents_in_a_thousand_are_found_by_halving(proxied: PostgresDatabase) -> None:
    """A document that only the insert itself can refuse is found with about log2(1000) attempts."""
    bad = {f"d{n:04}" for n in range(37, 1000, 100)}
    with opened(proxied, "typed") as transport:
        proxied.query("alter table typed add constraint small check (n < 1000)")
        result = transport.write(batch(*with_bad(1000, bad, 5000)))
    assert set(result.dead) == bad
    assert all("small" in reason for reason in result.dead.values())
    assert proxied.query("select count(*) as n from typed") == [{"n": 990}]
    assert attempts(proxied) < 160


def test_bad_values_and_refused_rows_in_one_batch(database: PostgresDatabase) -> None:
    with opened(database, "typed", "docs") as transport:
        database.query("alter table typed add constraint small check (n < 1000)")
        transport.write(batch(document("newer", 5, {"n": 1}, output="typed")))
        result = transport.write(
            batch(
                document("value", 1, {"n": "x"}, output="typed"),
                document("check", 1, {"n": 1000}, output="typed"),
                document("both", 1, b'{"t": "\\ud800"}', typed=[{"n": "x"}]),
                document("newer", 4, {"n": "x"}, output="typed"),
                document("fine", 1, {"n": 1}, output="typed"),
                gone("gone", 1),
            )
        )
    assert set(result.dead) == {"value", "check", "both"}
    assert result.refused == {"newer": write_version(1, 5)}
    assert set(database.read("typed")) == {"newer", "fine"}
    assert rows(database) == {}
    assert database.write_version("docs", "gone") == write_version(1, 1)


def test_a_dead_letter_never_quotes_the_document(database: PostgresDatabase) -> None:
    with opened(database, "typed", "docs") as transport:
        result = transport.write(
            batch(
                document("a", 1, {"n": 'tops"3cret'}, output="typed"),
                document("b", 1, {"n": 99999999993}, output="typed"),
                document("c", 1, b'{"tops3cret": tops3cret}'),
            )
        )
    assert set(result.dead) == {"a", "b", "c"}
    assert not any(part in reason for reason in result.dead.values() for part in ("3cret", "99999999993"))
    assert result.dead["b"] == "Column n: value ... is out of range for type integer"


def test_many_bad_documents_do_not_break_the_server_nor_the_good_ones(database: PostgresDatabase) -> None:
    count = size(ci=200, proof=1000)
    documents = [document(f"d{n}", 1, {"n": "x" if n % 2 else n}, output="typed") for n in range(count)]
    with opened(database, "typed") as transport:
        result = transport.write(batch(*documents))
    assert len(result.dead) == count // 2
    assert database.query("select count(*) as n from typed") == [{"n": count // 2}]


CONSTRAINTS = {
    "check": "alter table typed add constraint small check (n < 100)",
    "unique": "alter table typed add constraint once unique (n)",
    "foreign-key": "create table known (n int primary key); insert into known select generate_series(1, 50);"
    " alter table typed add constraint known foreign key (n) references known",
    "deferred": "create table known (n int primary key); insert into known select generate_series(1, 50);"
    " alter table typed add constraint known foreign key (n) references known deferrable initially deferred",
    "not-null": "alter table typed alter column n set not null",
    "trigger": "create function judge() returns trigger language plpgsql as"
    " $$ begin if new.n = 1000 then raise exception 'not this one'; end if; return new; end $$;"
    " create trigger judging before insert on typed for each row execute function judge()",
}


@pytest.mark.parametrize("kind", CONSTRAINTS)
@pytest.mark.parametrize("first_pass", [False, True], ids=["staged", "direct"])
def test_what_the_operators_constraints_refuse_is_dead(
    database: PostgresDatabase, kind: str, first_pass: bool
) -> None:
    bad = {"unique": 1, "not-null": None}.get(kind, 1000)
    with opened(database, "typed") as transport:
        database.query(CONSTRAINTS[kind])
        good = [document(f"d{n:02}", 1, {"n": n}, output="typed") for n in range(1, 21)]
        result = transport.write(
            batch(*good, document("e-bad", 1, {"n": bad}, output="typed"), first_pass=first_pass)
        )
        assert set(result.dead) == {"e-bad"}
        assert len(database.read("typed")) == 20
        assert_applied(transport.write(batch(document("f", 1, {"n": 30}, output="typed"))))


def test_a_document_that_one_table_refuses_is_written_into_none(database: PostgresDatabase) -> None:
    with opened(database, "docs", "typed", "lines") as transport:
        transport.write(batch(document("a", 1, {"n": 1}, typed=[{"n": 1}], lines=[{}, {}])))
        both = batch(
            document("a", 2, {"n": 2}, typed=[{"n": "x"}], lines=[{}]),
            document("b", 1, {"n": 1}, typed=[{"n": 1}], lines=[{}]),
        )
        assert set(transport.write(both).dead) == {"a"}
    assert rows(database) == {"a": [{"n": 1}], "b": [{"n": 1}]}
    assert rows(database, "lines") == {"a": [{}, {}], "b": [{}]}
    assert [database.write_version(o, "a") for o in ("docs", "typed", "lines")] == [write_version(1, 1)] * 3


def test_an_id_beyond_the_index_is_dead_alone(database: PostgresDatabase) -> None:
    """A primary key can hold about 2,700 bytes of incompressible text; the server's error names the limit."""
    seeded = random.Random(1)
    long = "".join(chr(seeded.randint(0x4E00, 0x9FFF)) for _ in range(2000))
    with opened(database, "docs") as transport:
        result = transport.write(batch(document(long, 1, {"n": 1}), document("short", 1, {"n": 1})))
    assert set(result.dead) == {long}
    assert "index row size" in result.dead[long]
    assert set(rows(database)) == {"short"}


# ---------------------------------------------------------------------- being let in, and being allowed


@pytest.fixture
def role(database: PostgresDatabase) -> Iterator[str]:
    """A role without any right but to connect; its password is `tops3cret`."""
    name = f"clerk_{time.monotonic_ns()}"
    database.query(f"create role {name} login password 'tops3cret'")
    yield name
    database.query(f"drop owned by {name}")
    database.query(f"drop role {name}")


def opening(dsn: str, **more: Any) -> PostgresTransport:
    """A transport of one table of documents."""
    return PostgresTransport("w", KEY, options(dsn, **more), {"docs": PostgresOutput(table="docs")})


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"password": "wr0ng-tops3cret"}, AccessError),
        ({"user": "nobody_tops3cret"}, AccessError),
        ({"dbname": "no_such_database"}, ConfigError),
        ({"port": "1"}, AwayError),
        ({"host": "no-such-host.invalid"}, AwayError),
    ],
)
def test_who_is_not_let_in_hears_why(
    database: PostgresDatabase, changed: dict[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error) as refused:
        opening(make_conninfo(database.dsn, **changed)).open()
    assert "wr0ng" not in str(refused.value)
    assert type(refused.value) is error


def test_a_password_of_its_own_goes_before_the_dsn(database: PostgresDatabase, role: str) -> None:
    dsn = make_conninfo(database.dsn, user=role, password="wrong")
    with pytest.raises(AccessError):
        opening(dsn).open()
    with pytest.raises(ConfigError, match="permission denied"):
        opening(dsn, password="tops3cret").open()


def test_no_connection_left_for_the_role_is_retryable(database: PostgresDatabase, role: str) -> None:
    """53300 comes after the password was taken, where only the SQLSTATE tells it from a wrong one."""
    database.query(f"alter role {role} connection limit 0")
    with pytest.raises(RetryableError, match="53300"):
        opening(make_conninfo(database.dsn, user=role, password="tops3cret")).open()


def test_a_missing_right_is_a_config_error_with_the_statement(database: PostgresDatabase, role: str) -> None:
    transport = opening(make_conninfo(database.dsn, user=role, password="tops3cret"))
    with pytest.raises(ConfigError, match="permission denied") as refused:
        transport.open()
    assert 'create table "public"."pillowd_checkpoint"' in refused.value.remedy


def test_a_role_that_owns_nothing_can_write_into_tables_that_are_there(
    database: PostgresDatabase, role: str
) -> None:
    with opened(database, "docs", "lines"):
        pass
    database.query(f'grant usage on schema "child rows" to {role}')
    for schema in ("public", '"child rows"'):
        database.query(f"grant select, insert, update, delete on all tables in schema {schema} to {role}")
    clerk = PostgresDatabase(make_conninfo(database.dsn, user=role, password="tops3cret"))
    with opened(clerk, "docs", "lines") as transport:
        assert_applied(transport.write(batch(document("a", 1, {"n": 1}, lines=[{}]), checkpoint=at("1-x"))))
        database.query(f"revoke insert on docs from {role}")
        with pytest.raises(ConfigError, match="42501"):
            transport.write(batch(document("b", 1, {"n": 1})))


def test_a_table_that_was_dropped_is_a_config_error(database: PostgresDatabase) -> None:
    with opened(database, "docs") as transport:
        database.query("drop table docs")
        with pytest.raises(ConfigError, match="restart the pillow"):
            transport.write(batch(document("a", 1, {"n": 1})))


def test_secrets_are_in_no_message_and_no_representation() -> None:
    connection = PostgresConnection(dsn="postgresql://me:tops3cret@localhost/db", password="0ther")
    assert "tops3cret" not in repr(connection) + str(connection.model_dump())
    assert "0ther" not in repr(connection) + str(connection.model_dump())
    with pytest.raises(ValueError, match="is not a connection string") as refused:
        PostgresConnection(dsn="host=localhost password=tops3cret oops tops3cret")
    assert "tops3cret" not in str(refused.value)


@pytest.fixture
def latin1(postgres_dsn: str) -> Iterator[PostgresDatabase]:
    """A database whose encoding has no emoji."""
    with closing(psycopg.connect(postgres_dsn, autocommit=True)) as admin:
        name = "pillowd_latin1"
        admin.execute(f"drop database if exists {name} with (force)")
        admin.execute(
            f"create database {name} encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' template template0"
        )
        yield PostgresDatabase(make_conninfo(postgres_dsn, dbname=name, client_encoding="UTF8"))
        admin.execute(f"drop database {name} with (force)")


@pytest.mark.parametrize("first_pass", [True, False])
@pytest.mark.parametrize("mapped", [True, False])
def test_b2_a_character_that_the_database_has_not_is_a_dead_letter(
    latin1: PostgresDatabase, first_pass: bool, mapped: bool
) -> None:
    owl = document("owl", 1, {"n": 1, "t": "🦉"})
    documents = [document(f"é{n}", 1, {"n": n, "t": "é"}) for n in range(50)]
    with opened(latin1, "docs", "typed") if mapped else opened(latin1, "docs") as transport:
        result = transport.write(batch(*documents, owl, document("🦉", 1, {"n": 1}), first_pass=first_pass))
        assert set(result.dead) == {"owl", "🦉"}
        assert "LATIN1" in result.dead["owl"] or "..." in result.dead["owl"]
        assert set(rows(latin1)) == {each.id for each in documents}
        assert transport.finish_pass(2, kept=[*(each.id for each in documents), "🦉"]) == 0
        (page,) = transport.stored("docs", ["🦉", "é1"])
        assert [each.id for each in page] == ["é1"]
    assert set(rows(latin1)) == {each.id for each in documents}


def test_b2_check_warns_about_a_database_that_is_not_utf8(
    latin1: PostgresDatabase, database: PostgresDatabase
) -> None:
    assert "its encoding is LATIN1" in latin1.transport("docs").check()
    assert "encoding" not in database.transport("docs").check()

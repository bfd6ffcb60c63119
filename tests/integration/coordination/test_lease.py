"""The lease and its state on a real PostgreSQL: who holds it, and what a replaced holder can write."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import psycopg
import pytest
from gevent.event import Event

from checkpoints import StoreWriteError
from daemon.coordination import lease as lease_module
from daemon.coordination.coordinator import Grant
from daemon.coordination.lease import LeaseCoordinator, find_holder
from pillows.transports.postgres.options import PostgresConnection
from tests.support.sizes import size
from tests.support.waiting import wait_until

MakeCoordinator = Callable[..., LeaseCoordinator]


@pytest.fixture
def make_coordinator(postgres_dsn: str) -> Iterator[MakeCoordinator]:
    made: list[LeaseCoordinator] = []

    def make(service: str = "reports", **options: Any) -> LeaseCoordinator:
        made.append(LeaseCoordinator(PostgresConnection(**{"dsn": postgres_dsn} | options), service))
        return made[-1]

    yield make
    for each in made:
        each.close()


def acquire(coordinator: LeaseCoordinator) -> Grant:
    grant = coordinator.acquire(Event(), lambda _: None)
    assert grant is not None
    assert grant.shared is not None
    return grant


def try_to_acquire(coordinator: LeaseCoordinator, seconds: float) -> str:
    """Waits for a lease that somebody holds. Returns why it has to wait."""
    stop, told = Event(), list[str]()
    gevent.spawn_later(seconds, stop.set)
    assert coordinator.acquire(stop, told.append) is None
    return told[-1]


def shared(grant: Grant) -> Any:
    return grant.shared


def test_one_holds_the_lease_and_the_next_one_has_a_higher_term(make_coordinator: MakeCoordinator) -> None:
    first, second = make_coordinator(), make_coordinator()
    assert acquire(first).term == 1
    assert "holds the lease since" in try_to_acquire(second, 1.2)
    assert acquire(make_coordinator("others")).term == 1, "another service has a lease of its own"
    first.close()
    assert acquire(second).term == 2


def test_the_state_is_read_by_the_next_holder(make_coordinator: MakeCoordinator) -> None:
    first = make_coordinator()
    state = shared(acquire(first))
    replica = state.open_replica("checkpoints")
    assert replica.read() is None
    odd = ("checkpoint", "\0 ü \ud800", "x" * 4096)
    entries = {("checkpoint", str(number), "couch/db"): b'{"n":%d}' % number for number in range(1200)}
    replica.write({**entries, odd: b'"\\u0000"'})
    replica.write({("checkpoint", "7", "couch/db"): None, ("checkpoint", "8", "couch/db"): b"8"})
    state.open_replica("pauses").write({("a",): b"true"})
    state.set_filled()
    first.close()
    state = shared(acquire(make_coordinator()))
    assert state.is_filled
    expected = {**entries, ("checkpoint", "8", "couch/db"): b"8", odd: b'"\\u0000"'}
    del expected["checkpoint", "7", "couch/db"]
    assert state.open_replica("checkpoints").read() == expected
    assert state.open_replica("pauses").read() == {("a",): b"true"}
    assert state.open_replica("dead-letters").read() == {}


def test_a_state_that_was_put_there_by_half_is_not_read(make_coordinator: MakeCoordinator) -> None:
    first = make_coordinator()
    shared(acquire(first)).open_replica("checkpoints").write({("a",): b"1"})
    first.close()
    state = shared(acquire(make_coordinator()))
    assert not state.is_filled
    assert state.open_replica("checkpoints").read() is None
    state.set_filled()
    assert state.open_replica("checkpoints").read() == {}


def test_a_silent_holder_is_replaced_and_can_write_no_more(
    make_coordinator: MakeCoordinator, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "SILENT_SECONDS", 1.5)
    monkeypatch.setattr(lease_module, "HEARTBEAT_SECONDS", 0.5)
    silent, other = make_coordinator(), make_coordinator()
    replica = shared(acquire(silent)).open_replica("checkpoints")
    replica.write({("a",): b"1"})
    assert "holds the lease" in try_to_acquire(other, 3.0), "its heartbeats keep it"
    assert silent._keeper is not None
    silent._keeper.kill()  # it hangs
    assert acquire(other).term == 2
    with pytest.raises(StoreWriteError, match="session that held the lease has ended"):
        replica.write({("a",): b"2"})
    with psycopg.connect(postgres_dsn) as reader:
        assert reader.execute("select value from pillowd_state").fetchall() == [("1",)]


def test_of_many_failovers_each_has_one_holder_and_no_former_one_writes(
    make_coordinator: MakeCoordinator, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ends, crashes and hangs; a holder that hung tries to write after the next one has the lease."""
    monkeypatch.setattr(lease_module, "SILENT_SECONDS", 0.8)
    monkeypatch.setattr(lease_module, "HEARTBEAT_SECONDS", 0.2)
    monkeypatch.setattr(lease_module, "STEP_SECONDS", 0.05)
    chance, refused = random.Random(19), 0
    holder = make_coordinator()
    state = shared(acquire(holder))
    replica = state.open_replica("checkpoints")
    state.set_filled()
    ways: Counter[str] = Counter()
    failovers = size(ci=10, proof=200)
    for term in range(2, failovers + 2):
        replica.write({("a",): str(term).encode()})
        way = chance.choice(["end", "crash", "hang"])
        ways[way] += 1
        with psycopg.connect(postgres_dsn, autocommit=True) as admin:
            (pid,) = admin.execute("select backend_pid from pillowd_lease").fetchone() or (0,)
            if way == "end":
                holder.close()
            elif way == "crash":  # the server sees that the connection is gone
                admin.execute("select pg_terminate_backend(%s)", (pid,))
            else:
                assert holder._keeper is not None
                holder._keeper.kill()
        standby = make_coordinator()
        grant = acquire(standby)
        assert grant.term == term
        if way != "end":
            with pytest.raises(StoreWriteError):
                replica.write({("a",): b"of a former holder"})
            refused += 1
        holder.close()
        holder, replica = standby, shared(grant).open_replica("checkpoints")
        assert replica.read() == {("a",): str(term).encode()}
    print(dict(ways), f"{refused} writes of former holders, none accepted")


def test_a_holder_that_wakes_up_is_told_once(make_coordinator: MakeCoordinator, postgres_dsn: str) -> None:
    holder, told = make_coordinator(), list[str]()
    acquire(holder)
    holder.watch(told.append)
    with psycopg.connect(postgres_dsn, autocommit=True) as admin:
        admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pillowd lease'"
        )
    wait_until(lambda: told)
    gevent.sleep(0.6)
    assert len(told) == 1
    holder.watch(told.append)
    assert len(told) == 2, "who asks later is told at once"


def test_a_holder_without_an_answer_stops_before_another_may_have_the_lease(
    make_coordinator: MakeCoordinator, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lease_module.LOST_SECONDS + 2 < lease_module.SILENT_SECONDS
    monkeypatch.setattr(lease_module, "LOST_SECONDS", 1.5)
    monkeypatch.setattr(lease_module, "HEARTBEAT_SECONDS", 0.5)
    holder, told = make_coordinator(), list[str]()
    acquire(holder)
    holder.watch(told.append)
    with psycopg.connect(postgres_dsn) as reader:
        (pid,) = reader.execute("select backend_pid from pillowd_lease").fetchone() or (0,)
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: told, seconds=20)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "silent" in told[0]


def test_a_tail_that_is_killed_while_it_saves_does_not_end_the_session(
    make_coordinator: MakeCoordinator,
) -> None:
    state = shared(acquire(make_coordinator()))
    replica = state.open_replica("checkpoints")
    for number in range(20):
        saving = gevent.spawn(replica.write, {("a",): b"%d" % number})
        gevent.sleep(0.0005 * number)
        saving.kill()
    replica.write({("a",): b"20"})
    state.set_filled()
    assert state.open_replica("checkpoints").read() == {("a",): b"20"}


def test_commands_elsewhere_learn_who_holds_the_lease(
    make_coordinator: MakeCoordinator, postgres_dsn: str
) -> None:
    options = PostgresConnection(dsn=postgres_dsn)
    assert find_holder(options, "reports") == "no daemon has held the lease yet"
    with psycopg.connect(postgres_dsn) as reader:
        assert reader.execute("select 1 from pg_tables where tablename ~ '^pillowd_'").fetchall() == []
    acquire(make_coordinator())
    assert "holds the lease since" in find_holder(options, "reports")


def test_a_schema_of_its_own_has_the_tables(make_coordinator: MakeCoordinator, postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as admin:
        admin.execute('create schema "Leases and more"')
        acquire(make_coordinator(schema="Leases and more"))
        found = admin.execute(
            "select schemaname from pg_tables where tablename like 'pillowd\\_%'"
        ).fetchall()
    assert set(found) == {("Leases and more",)}

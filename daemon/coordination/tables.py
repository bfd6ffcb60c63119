"""The tables of the lease database, and the statements on them. Nothing here waits.

`pillowd_lease` has a row for each service: who holds its lease. The lease itself is an advisory lock of the
holder's session, which the server gives back when the session ends. `pillowd_state` has the service's
checkpoints, dead letters, pauses and builds.
"""

from __future__ import annotations

import hashlib

#: The first number of our advisory locks ("pill"); the second one depends on the service.
LOCK_CLASS = 0x70696C6C

#: Creating a table that another session creates at the same time fails even with `if not exists`.
CREATE = f"""
    begin;
    select pg_advisory_xact_lock({LOCK_CLASS}, 0);
    create table if not exists pillowd_lease (
        service text primary key,
        term bigint not null,
        host text not null,
        backend_pid integer not null,
        since timestamptz not null,
        heartbeat timestamptz not null,
        is_filled boolean not null
    );
    create table if not exists pillowd_state (
        service text not null,
        store text not null,
        id text not null,
        key text not null,
        value text not null,
        primary key (service, store, id)
    );
    commit
"""

TRY_LOCK = "select pg_try_advisory_lock(%(class)s, %(number)s)"

#: Stores the new holder, whose term is one higher than the last.
TAKE = """
    insert into pillowd_lease as lease (service, term, host, backend_pid, since, heartbeat, is_filled)
    values (%(service)s, 1, %(host)s, pg_backend_pid(), clock_timestamp(), clock_timestamp(), false)
    on conflict (service) do update set term = lease.term + 1, host = excluded.host,
        backend_pid = excluded.backend_pid, since = excluded.since, heartbeat = excluded.heartbeat
    returning term, is_filled
"""

HEARTBEAT = "update pillowd_lease set heartbeat = clock_timestamp() where service = %(service)s"

#: Null if there is no table yet.
FIND = "select to_regclass('pillowd_lease')"

HOLDER = """
    select host, since, extract(epoch from clock_timestamp() - heartbeat)::float8
    from pillowd_lease where service = %(service)s
"""

#: Terminates the session that holds the lock if it was silent. Every statement of a session updates its
#: `state_change`, also the first one of a new holder, whose row still has the heartbeat of its predecessor.
#: If the server hides `state_change`, the heartbeat in the row is used.
TERMINATE_SILENT = """
    select pg_terminate_backend(held.pid)
    from pg_locks held
    join pg_stat_activity session on session.pid = held.pid
    left join pillowd_lease lease on lease.service = %(service)s
    where held.locktype = 'advisory' and held.granted and held.objsubid = 2
        and held.database = (select oid from pg_database where datname = current_database())
        and held.classid = %(class)s::bigint::oid and held.objid = %(number)s::bigint::oid
        and coalesce(session.state_change, lease.heartbeat)
            < clock_timestamp() - make_interval(secs => %(silent)s)
"""

SET_FILLED = "update pillowd_lease set is_filled = true where service = %(service)s"

CLEAR = "delete from pillowd_state where service = %(service)s"

READ = """
    select id, key, value from pillowd_state
    where service = %(service)s and store = %(store)s and id > %(after)s order by id limit %(limit)s
"""

DELETE = "delete from pillowd_state where service = %(service)s and store = %(store)s and id = any(%(ids)s)"

PUT = """
    insert into pillowd_state as state (service, store, id, key, value)
    select %(service)s, %(store)s, entry.id, entry.key, entry.value
    from unnest(%(ids)s::text[], %(keys)s::text[], %(values)s::text[]) as entry (id, key, value)
    on conflict (service, store, id) do update set value = excluded.value
"""


def lock_number(service: str) -> int:
    """Return the second number of a service's advisory lock, between 1 and 2^31 - 1."""
    digest = hashlib.sha256(service.encode()).digest()
    return int.from_bytes(digest[:4], "big") % (2**31 - 1) + 1

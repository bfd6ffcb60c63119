"""Fixtures for all tests: real servers (see `tests.servers`), a clock that needs no time, faults on the line.

Servers start when the first test asks for one and serve the whole run. PILLOWD_TEST_COUCHDB_URL,
PILLOWD_TEST_ELASTICSEARCH_URL, PILLOWD_TEST_OPENSEARCH_URL, PILLOWD_TEST_KAFKA (host and port) and
PILLOWD_TEST_POSTGRES_DSN name servers that already run instead. A server that cannot be had fails the tests
under CI=true, and skips them with the reason on a laptop.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import hypothesis
import psycopg
import pytest
import requests

from tests.runner.shared_servers import ask_for_server
from tests.servers.couch_client import CouchDatabase
from tests.servers.couchdb.process import CouchDB
from tests.servers.elasticsearch import Elasticsearch
from tests.servers.kafka import Kafka
from tests.servers.opensearch import OpenSearch
from tests.servers.postgres import Postgres
from tests.servers.process import Server, ServerUnavailable
from tests.servers.scripted import ScriptedServer
from tests.servers.source import source
from tests.servers.tcp_proxy import TcpProxy
from tests.support.clock import FakeClock
from tests.support.databases import Databases
from tests.support.sizes import proving, soaking

# A test is never timed: on a busy machine one example takes as long as it takes, and so does drawing it.
hypothesis.settings.register_profile(
    "pillowd",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    derandomize="PILLOWD_TEST_DERANDOMIZE" in os.environ,  # a mutant must not survive by chance
)
hypothesis.settings.load_profile("pillowd")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects what only runs at full size or for long, unless the environment asks for it."""
    closed = {"proof": not proving(), "soak": not soaking()}
    left_out = [
        item for item in items if any(closed[name] and item.get_closest_marker(name) for name in closed)
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


# --- servers of the whole run


@dataclass(frozen=True, slots=True, kw_only=True)
class CouchServer:
    """A CouchDB server: that of the tests, or a real one that PILLOWD_TEST_COUCHDB_URL names.

    Attributes:
        url: without credentials and without a slash at its end.
        auth: user and password, if it wants some.
    """

    url: str
    auth: tuple[str, str] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, for a proxy."""
        parts = urlsplit(self.url)
        return (parts.hostname or "127.0.0.1", parts.port or (443 if parts.scheme == "https" else 80))

    def database(self, name: str) -> CouchDatabase:
        """Returns a client of a database, which may not exist."""
        return CouchDatabase(self.url, name, auth=self.auth)


def start_for_tests(stack: ExitStack, server: Server) -> None:
    """Start a server, or end the test as the machine's role demands."""
    with ending_without_server():
        stack.enter_context(server)


@contextmanager
def ending_without_server() -> Iterator[None]:
    """End the test if a server cannot be had: with CI=true it fails, otherwise it is skipped."""
    try:
        yield
    except ServerUnavailable as unavailable:
        if os.environ.get("CI") == "true":
            pytest.fail(str(unavailable), pytrace=False)
        pytest.skip(str(unavailable))


def shared_server(name: str) -> dict[str, Any] | None:
    """Return the address of a server that the run's workers share, if there are workers."""
    with ending_without_server():
        return ask_for_server(name)


def _given(url: str) -> CouchServer:
    named = source(url, environ={})
    return CouchServer(url=named.url, auth=named.auth)


@pytest.fixture(scope="session")
def couch() -> Iterator[CouchServer]:
    """A CouchDB server for the whole run; it is never stopped (take `couch_server` for that)."""
    if given := os.environ.get("PILLOWD_TEST_COUCHDB_URL"):
        yield _given(given)
        return
    if shared := shared_server("couchdb"):
        yield CouchServer(url=shared["url"], auth=shared["auth"] and tuple(shared["auth"]))
        return
    with ExitStack() as stack:
        server = CouchDB()
        start_for_tests(stack, server)
        yield CouchServer(url=server.url, auth=server.auth)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Connection string of a PostgreSQL server for the whole run; its user may create databases."""
    if given := os.environ.get("PILLOWD_TEST_POSTGRES_DSN"):
        yield given
        return
    if shared := shared_server("postgres"):
        yield shared["dsn"]
        return
    with ExitStack() as stack:
        server = Postgres()
        start_for_tests(stack, server)
        yield server.dsn


@pytest.fixture(scope="session")
def elasticsearch() -> Iterator[str]:
    """URL of an Elasticsearch server for the whole run."""
    if given := os.environ.get("PILLOWD_TEST_ELASTICSEARCH_URL"):
        yield given.rstrip("/")
        return
    if shared := shared_server("elasticsearch"):
        yield shared["url"]
        return
    with ExitStack() as stack:
        server = Elasticsearch()
        start_for_tests(stack, server)
        yield server.url


@pytest.fixture(scope="session")
def opensearch() -> Iterator[str]:
    """URL of an OpenSearch server for the whole run."""
    if given := os.environ.get("PILLOWD_TEST_OPENSEARCH_URL"):
        yield given.rstrip("/")
        return
    if shared := shared_server("opensearch"):
        yield shared["url"]
        return
    with ExitStack() as stack:
        server = OpenSearch()
        start_for_tests(stack, server)
        yield server.url


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """Host and port of a Kafka broker for the whole run."""
    if given := os.environ.get("PILLOWD_TEST_KAFKA"):
        yield given
        return
    if shared := shared_server("kafka"):
        yield shared["where"]
        return
    with ExitStack() as stack:
        server = Kafka()
        start_for_tests(stack, server)
        yield server.where


# --- servers of one test, to stop, kill and set up otherwise


@pytest.fixture
def couch_server() -> Iterator[Callable[..., CouchDB]]:
    """Starts CouchDB servers of the test's own: `couch_server(admin="u:p")`; arguments as for CouchDB."""
    with ExitStack() as stack:
        yield _starter(stack, CouchDB)


@pytest.fixture
def postgres_server() -> Iterator[Callable[..., Postgres]]:
    """Starts PostgreSQL servers of the test's own; arguments as for Postgres."""
    with ExitStack() as stack:
        yield _starter(stack, Postgres)


@pytest.fixture
def elasticsearch_server() -> Iterator[Callable[..., Elasticsearch]]:
    """Starts Elasticsearch servers of the test's own (5 s each); arguments as for Elasticsearch."""
    with ExitStack() as stack:
        yield _starter(stack, Elasticsearch)


@pytest.fixture
def opensearch_server() -> Iterator[Callable[..., OpenSearch]]:
    """Starts OpenSearch servers of the test's own (4 s each); arguments as for OpenSearch."""
    with ExitStack() as stack:
        yield _starter(stack, OpenSearch)


@pytest.fixture
def kafka_server() -> Iterator[Callable[..., Kafka]]:
    """Starts Kafka brokers of the test's own (5 s each); arguments as for Kafka."""
    with ExitStack() as stack:
        yield _starter(stack, Kafka)


def _starter(stack: ExitStack, kind: Callable[..., Any]) -> Callable[..., Any]:
    def start(**arguments: Any) -> Any:
        server = kind(**arguments)
        start_for_tests(stack, server)
        return server

    return start


# --- a fresh piece of a server for each test


@pytest.fixture
def couch_db(couch: CouchServer) -> Iterator[CouchDatabase]:
    """A fresh database with a small client (put, bulk, delete, changes ...); dropped afterwards."""
    database = couch.database(f"test-{uuid.uuid4().hex[:12]}").create()
    yield database
    if database.exists():
        database.drop()
    database.close()


@pytest.fixture
def postgres_dsn(postgres: str) -> Iterator[str]:
    """Connection string of a fresh database; dropped afterwards, whoever is still connected."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute(f"create database {name} template template0")
        yield _dsn_of(postgres, name)
        admin.execute(f"drop database if exists {name} with (force)")


def _dsn_of(dsn: str, database: str) -> str:
    """Returns the connection string with another database; a URL stays a URL."""
    if "://" in dsn:
        return urlunsplit(urlsplit(dsn)._replace(path=f"/{database}"))
    return psycopg.conninfo.make_conninfo(dsn, dbname=database)


@pytest.fixture
def elasticsearch_url(elasticsearch: str, es_prefix: str) -> Iterator[str]:
    """URL of an Elasticsearch server; indices that begin with `es_prefix` are deleted afterwards."""
    yield elasticsearch
    _delete_indices(elasticsearch, es_prefix)


@pytest.fixture
def opensearch_url(opensearch: str, es_prefix: str) -> Iterator[str]:
    """URL of an OpenSearch server; indices that begin with `es_prefix` are deleted afterwards."""
    yield opensearch
    _delete_indices(opensearch, es_prefix)


def _delete_indices(url: str, prefix: str) -> None:
    listed = requests.get(f"{url}/_cat/indices/{prefix}*?h=index&expand_wildcards=all", timeout=30)
    for index in listed.text.split():  # by name: a wildcard delete may be forbidden
        requests.delete(f"{url}/{index}", timeout=30).raise_for_status()


@pytest.fixture
def es_prefix() -> str:
    """The prefix of the names of this test's indices and aliases."""
    return f"test-{uuid.uuid4().hex[:12]}-"


@pytest.fixture
def kafka_prefix() -> str:
    """The prefix of the names of this test's topics."""
    return f"test-{uuid.uuid4().hex[:12]}-"


@pytest.fixture(scope="module")
def updates_server() -> Iterator[CouchServer]:
    """A server with the database `_global_changes`."""
    with ExitStack() as stack:
        if given := os.environ.get("PILLOWD_TEST_COUCHDB_URL"):
            server = _given(given)
        else:
            own = CouchDB()
            start_for_tests(stack, own)
            server = CouchServer(url=own.url, auth=own.auth)
        global_changes = server.database("_global_changes")
        if not global_changes.exists():
            global_changes.create()
        yield server


@pytest.fixture
def databases(updates_server: CouchServer) -> Iterator[Databases]:
    """Databases whose names begin alike; dropped afterwards."""
    made = Databases(updates_server, f"user-{uuid.uuid4().hex[:8]}-")
    yield made
    made.drop()


# --- faults


@pytest.fixture
def tcp_proxy() -> Iterator[Callable[[Any], TcpProxy]]:
    """Puts a proxy before a server: `tcp_proxy(couch)`, `tcp_proxy(server)` or `tcp_proxy((host, port))`."""
    with ExitStack() as stack:

        def start(target: Any) -> TcpProxy:
            address = target if isinstance(target, tuple) else target.address
            return stack.enter_context(TcpProxy(address))

        yield start


@pytest.fixture
def scripted_server() -> Iterator[Callable[[], ScriptedServer]]:
    """Starts servers that play bytes: see `tests.servers.scripted`."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(ScriptedServer())


# --- time


@pytest.fixture
def clock() -> FakeClock:
    """Time that passes by itself once everybody waits; `FakeClock(auto=False)` waits for `advance`."""
    return FakeClock()

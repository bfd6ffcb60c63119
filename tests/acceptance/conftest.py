"""Fixtures of the end-to-end proofs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.house import House
from tests.acceptance.world import World
from tests.servers.couch_client import CouchDatabase
from tests.servers.tcp_proxy import TcpProxy


@pytest.fixture
def world(
    tmp_path: Path,
    couch: Any,
    couch_db: CouchDatabase,
    tcp_proxy: Callable[[Any], TcpProxy],
    postgres_dsn: str,
    elasticsearch_url: str,
    es_prefix: str,
) -> Iterator[World]:
    """A source behind a proxy, three targets, and daemons that end with the test."""
    world = World(
        tmp_path,
        couch=couch_db,
        proxy=tcp_proxy(couch),
        postgres_dsn=postgres_dsn,
        elasticsearch_url=elasticsearch_url,
        prefix=es_prefix,
    )
    yield world
    world.close()


@pytest.fixture
def password_known(couch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A given server's password, where the configuration that a mirror wrote looks for it."""
    if couch.auth:
        monkeypatch.setenv("COUCHDB_PASSWORD", couch.auth[1])


@pytest.fixture
def house(tmp_path: Path, couch_db: CouchDatabase) -> Iterator[Callable[..., House]]:
    made: list[House] = []

    def make(**more: Any) -> House:
        made.append(House(tmp_path, couch_db, **more))
        return made[-1]

    yield make
    for each in made:
        each.daemon.__exit__()

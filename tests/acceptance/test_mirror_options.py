"""`pillowd mirror` with certificates, paths, and names of databases that are more than letters."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import requests

from tests.acceptance.process import PILLOWD
from tests.conftest import CouchServer
from tests.servers.couch_client import CouchDatabase
from tests.support.fronts import make_certificate, serve_prefix, serve_tls
from tests.support.sizes import size

Mirror = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def mirror(couch: CouchServer, tmp_path: Path) -> Mirror:
    """Types `pillowd mirror ... --once`."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environ = os.environ | {"COUCHDB_PASSWORD": couch.auth[1] if couch.auth else ""}
        command = [*PILLOWD, "mirror", *arguments, "--once"]
        return subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120, check=False
        )

    return run


@pytest.fixture
def make_database(couch: CouchServer) -> Iterator[Callable[[str], CouchDatabase]]:
    """Makes databases, with one document each, named like them."""
    made: list[CouchDatabase] = []

    def make(name: str) -> CouchDatabase:
        database = couch.database(name).create()
        made.append(database)
        database.put("a", {"from": name})
        return database

    yield make
    for database in made:
        database.drop()
        database.close()


def url_of(couch: CouchServer, path: str, *, scheme: str = "http", port: int | None = None) -> str:
    user = f"{couch.auth[0]}@" if couch.auth else ""
    host, known = couch.address
    return f"{scheme}://{user}{host}:{port or known}/{path}"


@pytest.fixture(
    params=["sqlite"]
    + [
        pytest.param(one, marks=pytest.mark.proof)
        for one in ("jsonl", "postgresql", "elasticsearch", "opensearch")
    ]
)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Callable[[str], Any]]:
    """A target as it is typed, and what reads the documents in one place of it."""
    if request.param == "sqlite":

        def read_table(name: str) -> Any:
            with closing(sqlite3.connect(tmp_path / "out.sqlite")) as database:
                return [json.loads(doc) for (doc,) in database.execute(f"select doc from {name}")]

        return "sqlite:///out.sqlite", read_table
    if request.param == "jsonl":

        def read_lines(name: str) -> Any:
            lines = (tmp_path / "lines" / f"{name}.jsonl").read_text().splitlines()
            return [json.loads(line)["doc"] for line in lines]

        return "jsonl:lines", read_lines
    if request.param == "postgresql":
        dsn = request.getfixturevalue("postgres_dsn")

        def read_postgres(name: str) -> Any:
            with psycopg.connect(dsn) as connection:
                return [doc for (doc,) in connection.execute(f"select doc from {name}".encode()).fetchall()]

        return dsn, read_postgres
    url = request.getfixturevalue(f"{request.param}_url")

    def read_index(name: str) -> Any:
        requests.post(f"{url}/{name}/_refresh", timeout=60).raise_for_status()
        hits = requests.get(f"{url}/{name}/_search", timeout=60).json()["hits"]["hits"]
        return [hit["_source"] for hit in hits]

    return f"{request.param}+{url}", read_index


def test_f3_databases_of_one_name_are_told_apart_by_the_remedy(
    couch: CouchServer,
    make_database: Callable[[str], CouchDatabase],
    mirror: Mirror,
    target: tuple[str, Callable[[str], Any]],
    es_prefix: str,
) -> None:
    """`a-b` and `a/b` are both named `a_b`; the remedy of the second takes nothing from the first."""
    place, read = target
    base = es_prefix.rstrip("-")
    first, second = make_database(f"{base}-b"), make_database(f"{base}/b")
    name = f"{base}-b".replace("-", "_")
    assert mirror(url_of(couch, first.name), place).returncode == 0
    refused = mirror(url_of(couch, quote(second.name, safe="")), place)
    assert refused.returncode != 0
    assert "Remedy: add `--name OTHER` to the same command" in refused.stderr
    assert "checkpoint reset" not in refused.stderr, "that would take over the other's place"
    other = f"{es_prefix}other"
    done = mirror(url_of(couch, quote(second.name, safe="")), place, "--name", other.replace("-", "_"))
    assert done.returncode == 0, done.stderr
    assert [each["from"] for each in read(name)] == [first.name]
    assert [each["from"] for each in read(other.replace("-", "_"))] == [second.name]


def test_f3_a_slash_in_the_name_of_a_database_is_hinted_at(
    couch: CouchServer, make_database: Callable[[str], CouchDatabase], mirror: Mirror, es_prefix: str
) -> None:
    """`db/x` and `db/+x` as they are; what the hint says works. In CI one name has to be enough."""
    for name in ("a/+x", "a/b")[: size(ci=1, proof=2)]:
        database = make_database(f"{es_prefix}{name}")
        refused = mirror(url_of(couch, database.name), "sqlite:///out.sqlite")
        assert refused.returncode != 0
        hint = f"for the database {re.escape(database.name)}, (http://\\S+)"
        (found,) = re.findall(hint, refused.stderr)
        user = f"{couch.auth[0]}@" if couch.auth else ""
        done = mirror(found.replace("://", f"://{user}"), "sqlite:///out.sqlite")
        assert done.returncode == 0, done.stderr
        assert "1 changes so far" in done.stdout


@pytest.mark.parametrize("kind", ["elasticsearch", pytest.param("opensearch", marks=pytest.mark.proof)])
def test_f3_certificates_and_a_path_before_the_cluster(
    request: pytest.FixtureRequest,
    couch: CouchServer,
    make_database: Callable[[str], CouchDatabase],
    mirror: Mirror,
    tmp_path: Path,
    es_prefix: str,
    kind: str,
) -> None:
    """Source and target are reached by TLS only, the target behind a path."""
    url = request.getfixturevalue(f"{kind}_url")
    database = make_database(f"{es_prefix}tls")
    certificate, key = make_certificate(tmp_path)
    with (
        serve_tls(couch.address, certificate, key) as source_port,
        serve_prefix(url, "/search/v1") as behind,
        serve_tls(("127.0.0.1", int(behind.split(":")[2].split("/")[0])), certificate, key) as target_port,
    ):
        source = url_of(couch, database.name, scheme="https", port=source_port)
        place = f"{kind}+https://127.0.0.1:{target_port}/search/v1/"
        name = ("--name", es_prefix + "docs")
        untrusted = mirror(source, place, *name)
        assert "not trusted" in untrusted.stderr
        assert "`--source-ca FILE`" in untrusted.stderr
        untrusted = mirror(source, place, *name, "--source-ca", "certificate.pem")
        assert "not trusted" in untrusted.stderr
        assert "`--target-ca FILE`" in untrusted.stderr
        done = mirror(
            source, place, *name, "--source-ca", "certificate.pem", "--target-ca", "certificate.pem"
        )
        assert done.returncode == 0, done.stderr
    requests.post(f"{url}/{es_prefix}docs/_refresh", timeout=60).raise_for_status()
    found = requests.get(f"{url}/{es_prefix}docs/_search", timeout=60).json()["hits"]["hits"]
    assert [hit["_source"]["from"] for hit in found] == [database.name]

"""This version opens the targets of earlier ones, goes on where they stopped, and reads nothing again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.golden.targets import FOLDER, Servers, change, put_back, remove_indices
from tests.servers.couchdb.process import CouchDB

VERSIONS = sorted(path.name for path in FOLDER.iterdir())


@pytest.fixture(params=VERSIONS)
def servers(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    couch_server: Callable[..., CouchDB],
    postgres_dsn: str,
    elasticsearch: str,
) -> Iterator[Servers]:
    """Return everything as that version left it."""
    put_back(FOLDER / request.param, tmp_path, postgres_dsn, elasticsearch)
    data_dir = tmp_path / "couchdb"
    shutil.copytree(tmp_path / "source", data_dir / "databases")
    couch = couch_server(data_dir=data_dir)
    yield Servers(folder=tmp_path, couch=couch, dsn=postgres_dsn, elasticsearch=elasticsearch)
    remove_indices(elasticsearch)


def test_targets_of_an_earlier_version_are_gone_on_with(servers: Servers) -> None:
    lines = servers.folder / "lines"
    lines_before = _lines(lines)
    change(servers.cases, "case-00", {"n": 100})
    servers.cases.put("new", {"n": 101, "at": "2026-04-01T00:00:00Z"})
    servers.cases.delete("case-02")

    with servers.running() as daemon:
        names = ("cases", "alone", "lines", "copy")
        daemon.wait_for(lambda: all(daemon.status(name)["pending"] == 0 for name in names))
        for pillow in ("cases", "alone", "copy"):
            verified = daemon.command("verify", pillow, "--content", "--json")
            assert verified.returncode == 0, verified.stdout + verified.stderr
        changes = {pillow: daemon.status(pillow)["changes"] for pillow in names}
        daemon.wait_for(lambda: len(_lines(lines)) == len(lines_before) + 2)

    before = json.loads((servers.folder / "changes.json").read_bytes())
    assert changes == {pillow: count + 3 for pillow, count in before.items()}, "none is read again"
    assert {line["_id"] for line in _lines(lines)[len(lines_before) :]} == {"case-00", "new"}


def _lines(folder: Path) -> list[dict[str, object]]:
    texts = (path.read_text() for path in sorted(folder.glob("*.jsonl")))
    return [json.loads(line) for text in texts for line in text.split("\n") if line]

"""A pillow goes on where an older system stopped: nothing before that position, everything after it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import stores
from tests.acceptance.process import PILLOWD
from tests.servers.couch_client import CouchDatabase


def pillowd(folder: Path, *words: str, code: int = 0) -> str:
    done = subprocess.run(
        [*PILLOWD, *words], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout


@pytest.mark.usefixtures("password_known")
@pytest.mark.parametrize("system", ["logstash", "couchdb-progress", "pillowtop"])
def test_it_goes_on_from_the_imported_position(system, couch: Any, couch_db: CouchDatabase, tmp_path: Path):
    couch_db.fill(10)
    position = couch_db.info()["update_seq"]
    before = set(couch_db.documents())
    couch_db.put("later", {"n": 1})
    login = f"{couch.auth[0]}:{couch.auth[1]}@" if couch.auth else ""
    url = f"{couch.url.replace('://', f'://{login}')}/{couch_db.name}"
    mirror = ("mirror", url, "sqlite:///out.sqlite", "--name", "cases")
    pillowd(tmp_path, *mirror, "--write-config", "pillowd.yaml")
    written = {
        "logstash": str(position),
        "couchdb-progress": f"seq,source\n{position},{couch_db.name}\n",
        "pillowtop": json.dumps({"_id": "pillowtop_x", "seq": position}),
    }
    (tmp_path / "old").write_text(written[system])

    said = pillowd(
        tmp_path, "checkpoint", "import", "cases", "old", "--from", system, "--config", "pillowd.yaml"
    )
    pillowd(tmp_path, *mirror, "--once")

    assert "was at none" in said
    rows = stores.sqlite(tmp_path / "out.sqlite", "cases")
    assert set(rows) == {"later"}
    assert before.isdisjoint(rows)

    config = ("--config", "pillowd.yaml", "--json")
    (found,) = json.loads(pillowd(tmp_path, "verify", "cases", *config, code=3))["targets"]
    assert set(found["examples"]["missing"]) == before, "which was chosen, as the page says"
    pillowd(tmp_path, "verify", "cases", "--repair", *config)
    assert set(stores.sqlite(tmp_path / "out.sqlite", "cases")) == before | {"later"}

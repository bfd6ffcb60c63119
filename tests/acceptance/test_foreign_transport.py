"""A transport of another distribution works everywhere with nothing but its entry point."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from daemon.checks.transports import check_transports
from daemon.config.load import load
from daemon.config.problems import ConfigErrors
from daemon.config_digests import pipeline_digest
from daemon.mirror.config import parse_mirror, prepare
from daemon.process import failpoints
from docs.generate import configuration
from pillows import registry
from tests.acceptance.process import PILLOWD, ROOT
from tests.servers.couch_client import CouchDatabase

TOY = Path(__file__).parent / "toy" / "pillowd_toy.py"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an installed distribution with the toy transport."""
    site = tmp_path / "site"
    info = site / "pillowd_toy-1.0.dist-info"
    info.mkdir(parents=True)
    shutil.copy(TOY, site)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pillowd-toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pillowd.transports]\ntoy = pillowd_toy:ToyTransport\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "pillowd_toy", raising=False)
    return site


def write_config(folder: Path, *boxes: str, **output: Any) -> Path:
    pillows = {
        f"p{number}": {
            "source": {"connection": "couch", "database": f"db{number}"},
            "transport": [{"connection": connection, "box": box, **output}],
        }
        for number, (connection, box) in enumerate(each.split("/") for each in boxes)
    }
    toys = folder / "toys"
    connections = {
        "couch": {"type": "couchdb", "url": "http://127.0.0.1:9"},
        "toys": {"type": "toy", "folder": str(toys)},
        "same": {"type": "toy", "folder": f"{toys}/../toys"},
    }
    path = folder / "pillowd.yaml"
    path.write_text(json.dumps({"version": 1, "connections": connections, "pillows": pillows}))
    return path


def test_check_knows_its_settings_and_makes_it(installed: Path, tmp_path: Path) -> None:
    config = load(write_config(tmp_path, "toys/cases", patience="2s"), {}, checks=[check_transports])
    (output,) = config.pillows["p0"].transport[0].outputs.values()
    assert output.model_dump()["patience"] == 2.0
    with pytest.raises(ConfigErrors, match="did you mean `patience`"):
        load(write_config(tmp_path, "toys/cases", patince="2s"), {})


@pytest.mark.parametrize("other", ["toys/cases", "same/cases"])
def test_two_pillows_cannot_own_one_of_its_addresses(installed: Path, tmp_path: Path, other: str) -> None:
    load(write_config(tmp_path, "toys/cases", "toys/visits"), {})
    with pytest.raises(ConfigErrors, match=r"belongs to `p0`"):
        load(write_config(tmp_path, "toys/cases", other), {})


def test_digests_leave_out_what_shapes_no_row(installed: Path, tmp_path: Path) -> None:
    def digest(**output: Any) -> str:
        return pipeline_digest(load(write_config(tmp_path, "toys/cases", **output), {}).pillows["p0"])

    assert digest() == digest(patience="9s")
    assert digest() != digest(columns={"n": "n numeric"})


def test_its_writes_are_failpoints(installed: Path) -> None:
    for name in ("before-toy", "after-toy"):
        place = failpoints.find_place(name)
        assert place is not None
        assert failpoints.find(place) == (registry.transport("toy"), "write")


def test_the_generated_reference_lists_its_keys(installed: Path) -> None:
    page = configuration()
    assert "## A connection of type `toy`" in page
    assert "no row depends on it" in page


def test_mirror_reads_its_targets_and_columns(installed: Path, tmp_path: Path) -> None:
    wanted = parse_mirror("http://couch:5984/cases", f"toys:{tmp_path}/toys", name=None, state_dir=tmp_path)
    config = prepare(wanted, lambda _: {"n": "n numeric", "doc": "doc jsonb"}, {})
    (output,) = config.pillows["cases"].transport[0].outputs.values()
    assert output.model_dump()["columns"] == {"n": "n numeric", "doc": "doc jsonb"}


def test_it_mirrors_survives_a_crash_and_verifies(
    installed: Path, tmp_path: Path, couch_db: CouchDatabase, couch: Any
) -> None:
    for n in range(20):
        couch_db.put(f"d{n}", {"name": f"name {n}", "n": n})
    parts = urlsplit(couch.url)
    user = f"{couch.auth[0]}@" if couch.auth else ""
    url = f"{parts.scheme}://{user}{parts.netloc}/{couch_db.name}"
    environ = os.environ | {"PYTHONPATH": f"{installed}:{ROOT}"}
    environ |= {"COUCHDB_PASSWORD": couch.auth[1]} if couch.auth else {}

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PILLOWD, *arguments],
            cwd=tmp_path,
            env=environ | more,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    command = ("mirror", url, "toys:toys", "--once", "--name", "cases")
    done = run(*command)
    assert done.returncode == 0, done.stderr
    (config,) = tmp_path.glob("pillowd-state/*/pillowd.yaml")
    couch_db.put("d20", {"name": "name 20", "n": 20})
    killed = run("run", "--config", str(config), PILLOWD_FAILPOINT="after-toy:1", PILLOWD_TESTING="1")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert run(*command).returncode == 0
    table = json.loads((tmp_path / "toys" / "top" / "cases.json").read_text())
    assert table["columns"] == {"_id": "text", "n": "numeric", "name": "text", "doc": "jsonb"}
    assert table["rows"]["d20"][2][0]["doc"]["name"] == "name 20"

    equal = run("verify", "cases", "--config", str(config))
    assert equal.returncode == 0, equal.stdout + equal.stderr
    del table["rows"]["d3"]
    (tmp_path / "toys" / "top" / "cases.json").write_text(json.dumps(table))
    lost = run("verify", "cases", "--config", str(config), "--json")
    assert lost.returncode == 3, lost.stdout + lost.stderr
    assert '"missing": 1' in lost.stdout

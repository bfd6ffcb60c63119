"""The bench takes a server that wants to know who we are, and shows its password nowhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from bench import corpus
from bench.servers import CONFIG
from daemon.config.load import load
from tests.servers.source import PASSWORD, USER, Source, source

ROOT = Path(__file__).parents[2]
ODD = 'p@ss:/ "w\\'


def test_credentials_are_taken_out_of_the_url():
    found = source(f"http://ad%40min:{quote(ODD, safe='')}@couch:5984/db/", {})
    assert found == Source(url="http://couch:5984/db", auth=("ad@min", ODD))
    assert ODD not in repr(found)


@pytest.mark.parametrize("environ", [{}, {USER: "joe", PASSWORD: ODD}])
def test_credentials_that_the_url_does_not_hold_come_from_the_environment(environ):
    found = source("http://couch:5984", environ)
    assert found.url == "http://couch:5984"
    assert found.environ == environ


@pytest.mark.parametrize("auth", [None, ("joe", ODD)])
def test_pillowd_takes_the_connection_and_the_file_has_no_password(tmp_path: Path, auth):
    given = Source(url="http://couch:5984", auth=auth)
    file = tmp_path / "pillowd.yaml"
    target = f"{{ type: sqlite, path: {tmp_path}/x.sqlite }}"
    text = CONFIG.format(
        folder=tmp_path,
        couch=given.settings,
        database="db",
        documents="auto",
        workers=0,
        target=target,
        output="table: t",
    )
    file.write_text(text)
    connection: Any = load(file, given.environ).connections["couch"].options
    assert connection.url == given.url
    assert (connection.auth and connection.auth.password.get_secret_value()) == (auth and ODD)
    assert "p@ss" not in text


def test_bulk_get_reads_from_a_server_with_a_password(couch_server):
    server = couch_server(admin=f"joe:{ODD}", memory=True)
    entered = f"{server.url}/db".replace("//", f"//joe:{quote(ODD, safe='')}@")
    corpus.load(source(entered, {}), 500)

    def bulk_get(url: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bench.bulk_get", url]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    read, refused = bulk_get(entered), bulk_get(f"{server.url}/db")
    assert read.returncode == 0, read.stderr
    assert "p@ss" not in read.stdout + read.stderr
    assert refused.returncode == 1
    assert "401" in refused.stderr

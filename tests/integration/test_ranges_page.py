"""The how-to page on an analysis in several processes does what it says, also after kill -9."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from pillows import Ranges
from tests.support.sizes import size
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "analyse-in-several-processes.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
DOCUMENTS = size(ci=400, proof=100_000)
STEP = size(ci=20, proof=1000)


@pytest.fixture
def readings(couch: Any, couch_db: Any) -> dict[str, int]:
    """Fills the database; returns what the analysis must find."""
    ids = [f"2026-11-{1 + n // 480:02}T{n // 20 % 24:02}:{n % 20:02}" for n in range(DOCUMENTS)]
    couch_db.bulk({"_id": id, **({"value": n} if n % 7 else {})} for n, id in enumerate(ids))
    return {"documents": DOCUMENTS, "values": sum(1 for n in range(DOCUMENTS) if n % 7)}


def start(folder: Path, couch: Any, couch_db: Any, program: str) -> subprocess.Popen[str]:
    url = couch_db.url.replace("//", f"//{couch.auth[0]}:{couch.auth[1]}@") if couch.auth else couch_db.url
    replaced = {
        "http://127.0.0.1:5984/readings": url,
        "[::1000]": f"[::{STEP}]",
    }
    for old, new in replaced.items():
        assert old in program, f"the page does not say {old} any more"
        program = program.replace(old, new)
    (folder / "program.py").write_text(program)
    environ = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "program.py"], cwd=folder, env=environ, stdout=subprocess.PIPE, text=True
    )


def test_it_is_short() -> None:
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 20


def test_it_goes_on_after_kill_9_and_finds_what_is_there(tmp_path, couch, couch_db, readings):
    with start(tmp_path, couch, couch_db, BLOCKS[0]) as first:
        shown = [first.stdout.readline() for _ in range(3)]
        children = psutil.Process(first.pid).children()
        first.send_signal(signal.SIGKILL)
        shown += first.stdout.readlines()
    assert re.match(r"1 of \d+ ranges done, [\d.]+/s, \d+ s to go", shown[0])
    wait_until(lambda: not any(child.is_running() for child in children), seconds=10)
    with Ranges(tmp_path / "quality") as ranges:
        done = ranges.progress.done
        assert len([line for line in shown if line]) <= done < len(ranges)
    with start(tmp_path, couch, couch_db, BLOCKS[0]) as second:
        *progress, documents, values, _ = second.stdout.read().splitlines()
        assert second.wait(60) == 0
    assert len(progress) == len(list(range(0, DOCUMENTS, STEP))) + 1 - done
    assert [documents, values] == [f"{name} {number}" for name, number in readings.items()]


def test_what_failed_is_listed_and_done_again(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Ranges("quality") as ranges:
        ranges.plan(["b"])
        first, second = ranges.unfinished()
        ranges.fail(second, "it is bad")
        ranges.finish(first, {})
    exec(BLOCKS[1], {})
    assert capsys.readouterr().out == "1 b it is bad\n"
    with Ranges("quality") as ranges:
        assert list(ranges.unfinished()) == [second]
    namespace: dict[str, Any] = {}
    exec(BLOCKS[2], namespace)
    assert namespace["limits"].hang_seconds == 120

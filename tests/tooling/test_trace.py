"""The path of one change through a running tail, as `make trace` prints it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CALLS, MODULES, BUFFERS = 200, 40, 4


@pytest.fixture(scope="module")
def trace() -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.trace", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_it_leads_from_the_row_to_the_checkpoint(trace: dict[str, Any]) -> None:
    passed = {module for modules in trace["path"].values() for module in modules}
    assert passed >= {
        "pillows.feed.parsing.changes_parser",
        "pillows.pillow",
        "pillows.delivery.batch_delivery",
        "pillows.transports.sqlite.transport",
        "checkpoints.checkpoint_store",
    }
    assert trace["buffers"]


def test_a_change_waits_in_four_buffers_at_most(trace: dict[str, Any]) -> None:
    assert len(trace["buffers"]) <= BUFFERS


def test_it_takes_few_calls_and_modules(trace: dict[str, Any]) -> None:
    figures = (trace["calls"], trace["modules"])
    assert all(figure <= limit for figure, limit in zip(figures, (CALLS, MODULES), strict=True)), figures

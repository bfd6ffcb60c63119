"""A function as a transport."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pillows.errors import ConfigError
from pillows.models import WriteResult
from pillows.transports.python import PythonConnection, PythonOutput, PythonTransport
from tests.conformance.target import KEY, batch, document
from tests.support.list_feed import ListFeed, change
from tests.support.list_feed import batch as feed_batch
from tests.support.recorder import Recorder
from tests.support.tails import plan

MODULE = """
from pillows import WriteResult

batches = []

def write(batch):
    batches.append(batch)

def refuse(batch):
    return WriteResult(dead={each.id: "too odd" for each in batch.documents if each.id == "bad"})

def confuse(batch):
    return "done"

number = 5
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"sending_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def calling(path: str) -> PythonTransport:
    return PythonTransport("mine", KEY, PythonConnection(function=path), {"cases": PythonOutput()})


def test_g5_a_function_gets_each_batch(module: str) -> None:
    transport = calling(f"{module}:write")
    sent = batch(document("a", 1, {"n": 1}))
    assert transport.write(sent) == WriteResult()
    assert transport._function.__globals__["batches"] == [sent]
    assert transport.check() == f"calls {module}:write"


def test_g5_what_a_function_refuses_is_a_dead_letter(module: str, tmp_path: Path, running: Any) -> None:
    seen = Recorder()
    feed = ListFeed([feed_batch(1, change("a"), change("bad"), caught_up=True)])
    run = running(plan(tmp_path, feed, calling(f"{module}:refuse"), observer=seen))
    run.until(lambda: seen.of("dead_letter"))
    assert [(each["id"], each["error"]) for each in seen.of("dead_letter")] == [("bad", "too odd")]


def test_g5_a_function_that_returns_something_else_is_refused(module: str) -> None:
    with pytest.raises(ConfigError, match=r"confuse returned str"):
        calling(f"{module}:confuse").write(batch(document("a", 1, {"n": 1})))


@pytest.mark.parametrize(
    ("name", "reason"),
    [("nosuch", "can't be imported"), ("number", "is not a function but a int")],
)
def test_g5_a_function_that_is_not_there_is_refused(module: str, name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        calling(f"{module}:{name}")


def test_g5_a_module_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="can't be imported"):
        calling("no_such_module_anywhere:write")

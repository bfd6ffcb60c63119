"""The manifest of a file transport belongs to one tail, whatever its file is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from checkpoints import TailKey
from pillows.errors import ConfigError
from pillows.transports.jsonl.options import JsonlConnection, JsonlOutput
from pillows.transports.jsonl.transport import JsonlTransport
from tests.conformance.target import at, batch, document


def transport(folder: Path, database: str) -> JsonlTransport:
    outputs = {"docs": JsonlOutput(file="docs.jsonl")}
    return JsonlTransport(
        "files", TailKey("cases", f"couch/{database}"), JsonlConnection(folder=folder), outputs
    )


def test_a_tail_does_not_take_the_files_and_the_checkpoint_of_another_for_its_own(tmp_path):
    """`a+b` and `a$b` are two databases; both are `a_b` in the name of a file."""
    first = transport(tmp_path, "a+b")
    first.open()
    first.acquire(at("7-x"))
    first.write(batch(document("a", 1, {"n": 1})))
    first.close()

    second = transport(tmp_path, "a$b")
    with pytest.raises(ConfigError, match=r"cases@couch/a\+b.*another folder"):
        second.open()
    second.close()
    assert (tmp_path / "docs.jsonl").read_bytes()
    assert transport_reopens(tmp_path)


def transport_reopens(folder: Path) -> bool:
    again = transport(folder, "a+b")
    try:
        return again.open().checkpoint is not None
    finally:
        again.close()

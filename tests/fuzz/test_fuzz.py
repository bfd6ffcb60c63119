"""Kept and random inputs of every parser end as it promises; `make fuzz` finds new ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import __main__ as fuzz
from tests.fuzz.http_head import ask
from tests.fuzz.parsers import PARSERS
from tests.fuzz.random_inputs import run_random
from tests.support.sizes import size

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", PARSERS)
def test_random_inputs_end_as_the_parser_promises(name: str) -> None:
    parse, seeds = PARSERS[name]
    kept = [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]

    for data in (*seeds, *kept):
        parse(data)
    assert run_random(parse, [*seeds, *kept], size(ci=0.3, proof=60.0)) > 10


def test_a_version_without_a_dot_is_refused_in_words() -> None:
    assert ask(b"GET / HTTP/1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 400 ")


@pytest.mark.proof
def test_inputs_that_take_new_branches_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("atheris")
    monkeypatch.setattr(fuzz, "FOUND", tmp_path / "found")
    monkeypatch.setattr(fuzz, "CORPUS", tmp_path / "kept")
    (tmp_path / "found" / "token").mkdir(parents=True)
    for number, seed in enumerate(PARSERS["token"][1]):
        (tmp_path / "found" / "token" / str(number)).write_bytes(seed)

    fuzz.keep("token")

    kept = {path.read_bytes() for path in (tmp_path / "kept" / "token").iterdir()}
    assert kept
    assert kept <= set(PARSERS["token"][1])

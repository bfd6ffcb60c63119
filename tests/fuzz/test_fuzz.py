"""Kept and random inputs of every parser end as it promises; `make fuzz` finds new ones."""

from __future__ import annotations

from pathlib import Path

import pytest

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

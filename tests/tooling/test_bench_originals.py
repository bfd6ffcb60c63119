"""The figures of `bench/peers/originals.py`: that it runs, in CI; that they hold, in a proof."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.peers.originals import COMPARED, PARTS, compare, install_originals, measure

#: Two runs of one program differ by a tenth, and those of some milliseconds by more. The figures of threads
#: need idle cores: with ten times as many runnable programs as cores, the ratio of `blocks` was 0.5 to 1.1.
LEAST = {"lines": 0.9, "read": 0.7, "bulk": 0.9, "blocks": 0.9}


def url_of(couch: Any) -> str:
    login = f"{couch.auth[0]}:{couch.auth[1]}@" if couch.auth else ""
    return str(couch.url.replace("://", f"://{login}"))


@pytest.mark.parametrize("part", ["lines", "read"])
def test_e3_a_part_runs_in_a_process_of_its_own(part: str, tmp_path: Path) -> None:
    assert 0 < measure(part, "ours", tmp_path, patched=False) < 60


@pytest.mark.proof
def test_e3_each_part_beside_its_original_plain_and_patched(couch: Any, tmp_path: Path) -> None:
    install_originals(tmp_path)
    figures = compare(tmp_path, url_of(couch))
    print(figures)
    assert len(figures) == 2 * len(PARTS)
    ratios = {name: each["ratio"] for name, each in figures.items() if "ratio" in each}
    assert len(ratios) == 2 * len(COMPARED)
    slower = {name: ratio for name, ratio in ratios.items() if ratio < LEAST[name.split()[0]]}
    assert slower == {}, ratios

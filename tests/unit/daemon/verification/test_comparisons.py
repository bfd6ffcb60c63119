"""The last comparisons outlive the process; a file that cannot be trusted is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from checkpoints import IntegrityError, TailKey
from daemon.verification.comparisons import Comparison, Comparisons

KEY = TailKey("cases", "couch/cases")


def test_a_comparison_is_kept(tmp_path: Path) -> None:
    made = Comparison(at=7.5, differences={"pg": {"missing": 2, "extra": 1}}, repaired=4)
    Comparisons(tmp_path / "file").put(KEY, made)
    found = Comparisons(tmp_path / "file").get(KEY)
    assert found == made
    assert made.total == 3
    assert Comparisons(tmp_path / "file").get(TailKey("other", "couch/cases")) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "delete it"), ('{"format": 9, "comparisons": {}}', "run the newer pillowd")],
)
def test_a_file_that_cannot_be_read_is_refused_with_the_remedy(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(IntegrityError, match=words):
        Comparisons(tmp_path / "file")


def test_a_comparison_that_cannot_be_written_counts_all_the_same(tmp_path: Path) -> None:
    comparisons = Comparisons(tmp_path / "missing" / "file")
    with pytest.raises(OSError, match="No such file"):
        comparisons.put(KEY, Comparison(at=1.0))
    assert comparisons.get(KEY) == Comparison(at=1.0), "or it would be made again at once"

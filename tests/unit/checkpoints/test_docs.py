"""The tutorial runs as it is printed, and the reference names everything there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import checkpoints
from checkpoints import SharedTracker, Tracker
from tests.unit.checkpoints.scripts import ROOT

DOCS = ROOT / "docs"
BLOCKS = re.findall(r"```python\n(.*?)```", (DOCS / "tutorial" / "stores.md").read_text(), re.DOTALL)
PRINTED = ["{'visits': 2, 'paths': ['/', '/about']}", "100.00 %", "25 576"]


@pytest.mark.parametrize(("block", "printed"), list(zip(BLOCKS, PRINTED, strict=True)))
def test_the_tutorials_examples_print_what_it_says(tmp_path, block, printed):
    (tmp_path / "example.py").write_text(block)
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == (printed, "")


@pytest.mark.parametrize("kind", [Tracker, SharedTracker])
def test_the_reference_names_every_method(kind):
    text = (DOCS / "reference" / "stores.md").read_text()
    named = set(re.findall(r"`[\w.]*?(\w+)[^`\w]?[^`]*`", text)) | set(re.findall(r"\w+", text))
    inherited = {"popitem"}
    assert {name for name in dir(kind) if not name.startswith("_")} - inherited - named == set()


def test_the_reference_names_everything_that_is_exported():
    text = (DOCS / "reference" / "stores.md").read_text()
    of_the_checkpoints = {"Seq", "ConfigDigest", "PASS_TO_BEGIN", "Checkpoint", "TailKey"}
    assert {name for name in checkpoints.__all__ if name not in text} - of_the_checkpoints == set()


def test_each_difference_to_tastypy_has_its_reason():
    text = (DOCS / "reference" / "stores.md").read_text()
    table = text[text.index("| tastypy | here | because |") :].splitlines()
    rows = [row.strip("|").split("|") for row in table]
    assert len(rows) > 40
    assert [row for row in rows if len(row) != 3 or not all(map(str.strip, row))] == []


def test_what_tastypy_raises_is_named_with_what_is_raised_instead():
    text = (DOCS / "reference" / "stores.md").read_text()
    for name in ("Exception", "IntegrityError"):
        assert f"`PersistentOrderedDict{name}`" in text
    assert "`CalledClosedTrackerError`" in text


@pytest.mark.parametrize(
    "page", ["tutorial/stores.md", "reference/stores.md", "explanation/what-can-be-lost.md"]
)
def test_links_between_the_pages_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)", (DOCS / page).read_text())
    assert links
    assert [link for link in links if not ((DOCS / page).parent / Path(link)).exists()] == []

"""`pillowd --version` names the commit: that of the checkout, or the one that the distribution is from."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from daemon import commit
from daemon.cli.main import pillowd

ROOT = Path(__file__).parents[3]


def test_a_checkout_names_the_commit_that_is_checked_out_now() -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)

    done = CliRunner().invoke(pillowd, ["--version"])

    assert done.exit_code == 0
    found = re.fullmatch(r"pillowd (\S+) \(commit ([0-9a-f]{40})(-dirty)?\)\n", done.output)
    assert found is not None, done.output
    assert found[2] == head.stdout.strip()


def test_a_distribution_names_the_commit_that_it_was_built_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "BUILT_FROM", "0123abcd")

    assert commit.describe_version().endswith(" (commit 0123abcd)")


@pytest.mark.parametrize("is_broken", [False, True])
def test_without_a_repository_only_the_version_is_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_broken: bool
) -> None:
    monkeypatch.setattr(commit, "ROOT", tmp_path)
    if is_broken:
        (tmp_path / ".git").write_text("gitdir: /nowhere")

    assert re.fullmatch(r"pillowd \S+", commit.describe_version())

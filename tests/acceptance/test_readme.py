"""The README can be believed: its commands exist, its configuration is valid, its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.support.readme import BLOCKS, README, ROOT, find_block


def test_the_two_commands_stand_first():
    first, second = BLOCKS[:2]

    assert first.strip() == "make demo"
    assert second.strip() == "make test"


def test_every_make_target_that_it_names_exists():
    targets = set(re.findall(r"make ([a-z]+)", README))
    makefile = (ROOT / "Makefile").read_text()

    assert targets
    assert [t for t in targets if not re.search(rf"(?m)^{t}:", makefile)] == []


def test_its_configuration_is_valid(tmp_path):
    config = tmp_path / "pillowd.yaml"
    config.write_text(find_block("version: 1"))
    config.chmod(0o600)
    command = [sys.executable, "-m", "daemon", "check", "--config", str(config)]
    environment = {"COUCHDB_PASSWORD": "secret", "PATH": "/usr/bin:/bin"}

    answer = subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
    )

    assert answer.returncode == 0, answer.stderr + answer.stdout
    assert "secret" not in answer.stdout + answer.stderr


@pytest.mark.parametrize("line", find_block("pillowd check").strip().splitlines())
def test_its_commands_are_understood(line):
    """Each command is run with `--help`, so that it does nothing."""
    words = line.split()
    verb = words[: next(n for n, word in enumerate(words) if word.startswith("-"))][1:]
    options = [word for word in words if word.startswith("--")]
    command = [sys.executable, "-m", "daemon", *verb, "--help"]

    answer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=True)

    assert [option for option in options if option not in answer.stdout] == []


def test_it_is_short_and_has_one_picture():
    assert README.count("\n") < 120
    assert re.findall(r"!\[[^]]+\]\(([^)]+)\)", README) == ["docs/images/data-path.svg"]


def test_its_figures_are_those_of_the_pages_with_the_methods():
    """The same run writes both (`make chaos`, `make bench-peers`)."""
    explained = ROOT / "docs" / "explanation"
    page = (explained / "no-loss.md").read_text().partition("<!-- run: end -->")[0]
    (cycles,) = re.findall(r"\| cycles \| (\d+) in ", page)
    (changes,) = re.findall(r"\| changes \| ([\d,]+) to ", page)
    assert f"`make chaos CYCLES={cycles}` crashed pillowd {cycles} times" in README
    assert f"After {changes} changes" in README

    claimed = re.findall(r"cores, ([\d,]+) documents of 500 bytes per second into PostgreSQL", README)
    peers = (explained / "speed.md").read_text().partition("<!-- peers: end -->")[0]
    measured = re.findall(r"\| pillowd into PostgreSQL \| ([\d,]+) \|", peers)
    assert claimed == measured[:1]


def test_its_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    for path in re.findall(r"`((?:etc|docs|bench|pillows)/[^`*]*)`", README):
        assert (ROOT / path).exists(), path

"""What the wheel imports is declared, and what is declared is imported (`deptry`, in `make lint`)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("checkpoints", "pillows", "daemon")


def deptry(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deptry", "--no-ansi", "."]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_dependencies_are_declared_and_used() -> None:
    done = deptry(ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("declared", "instead", "rule"),
    [
        ('    "urllib3>=2.2",\n', "", "DEP003"),
        ('    "click>=8.1",\n', '    "click>=8.1",\n    "tenacity",\n', "DEP002"),
    ],
)
def test_a_wrong_declaration_is_reported(tmp_path: Path, declared: str, instead: str, rule: str) -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert declared in text
    (tmp_path / "pyproject.toml").write_text(text.replace(declared, instead))
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package)
    shutil.copy(ROOT / "pillowd.py", tmp_path)

    done = deptry(tmp_path)

    assert done.returncode == 1
    assert rule in done.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()

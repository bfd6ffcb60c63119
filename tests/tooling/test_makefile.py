"""What `make` does first: it names what the machine lacks, and repairs an environment that was half made."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_what_is_missing_is_named_before_anything_is_installed(tmp_path: Path) -> None:
    planned = subprocess.run(
        ["make", "-n", "test", f"VENV={tmp_path / 'none'}", "PYTHON=the-python"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    said = planned.index("the-python -m tests.servers check")
    assert said < planned.index("the-python -m venv")
    assert said < planned.index("pip install")
    assert planned.index("pip install") < planned.index("tests.servers install")


def test_it_is_named_by_a_python_without_any_package() -> None:
    """`-S`: nothing but the standard library can be imported."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", "tests.servers", "check"],
        cwd=ROOT,
        env={"PATH": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("test servers: ")
    assert "no Maven (mvn), instead nothing" in done.stdout


#: Stands for every python: `-m venv` brings pip, and whatever needs pip fails without it.
PYTHON = """\
#!/bin/sh
echo "$0 $*" >> "{folder}/calls"
case "$*" in
  "-m venv"*) touch "{folder}/has-pip" ;;
  "-m pip"*) test -e "{folder}/has-pip" ;;
esac
"""


@pytest.mark.parametrize("has_pip", [False, True])
def test_an_environment_without_pip_is_made_anew(tmp_path: Path, has_pip: bool) -> None:
    """A machine without ensurepip, or a Ctrl-C, leaves such an environment."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    (tmp_path / "etc").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for path in (tmp_path / "python", *(tmp_path / ".venv" / "bin" / name for name in ("python", "pillowd"))):
        path.write_text(PYTHON.format(folder=tmp_path))
        path.chmod(0o755)
    if has_pip:
        (tmp_path / "has-pip").touch()
    done = subprocess.run(
        ["make", "setup", "VENV=.venv", f"PYTHON={tmp_path}/python"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    made = f"{tmp_path}/python -m venv .venv" in (tmp_path / "calls").read_text()
    assert made is not has_pip

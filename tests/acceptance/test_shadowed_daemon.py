"""PyPI's `python-daemon` has a package `daemon` too: pillowd must say so instead of failing oddly."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONSOLE_SCRIPT = "import sys; from pillowd import main; sys.argv = ['pillowd', '--version']; sys.exit(main())"


def install(site: Path, distribution: str, init: str) -> None:
    """Installs a distribution that has a package `daemon` into `site`, as pip would."""
    (site / "daemon").mkdir(parents=True, exist_ok=True)
    (site / "daemon" / "__init__.py").write_text(init)
    info = site / f"{distribution.replace('-', '_')}-3.1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 3.1.2\n")
    (info / "RECORD").write_text(f"daemon/__init__.py,sha256=x,1\n{info.name}/METADATA,sha256=x,1\n")


def install_ours(site: Path) -> str:
    """Copies pillowd into `site`. Returns the text of our `daemon/__init__.py`."""
    shutil.copy(ROOT / "pillowd.py", site)
    for package in ("checkpoints", "pillows", "daemon"):
        shutil.copytree(ROOT / package, site / package, dirs_exist_ok=True)
    return (ROOT / "daemon" / "__init__.py").read_text()


def run(*arguments: str, site: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs Python outside the checkout, with `site` first on its path."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str]) -> bool:
    return (
        done.returncode == 78
        and done.stderr.startswith("pillowd: the Python package `daemon` at ")
        and "belongs to the distribution python-daemon" in done.stderr
        and "Remedy: install pillowd into a virtual environment of its own" in done.stderr
        and "Traceback" not in done.stderr
    )


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "site").mkdir()
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "site"


def test_another_daemon_before_ours_on_the_path_is_refused(site: Path, tmp_path: Path) -> None:
    install(site, "python-daemon", "from nowhere import nothing")
    assert refused(run("-c", CONSOLE_SCRIPT, site=site, cwd=tmp_path / "elsewhere"))


def test_another_daemon_installed_over_ours_is_refused(site: Path, tmp_path: Path) -> None:
    install_ours(site)
    install(site, "python-daemon", "from daemon.daemon import DaemonContext")
    assert refused(run("-c", CONSOLE_SCRIPT, site=site, cwd=tmp_path / "elsewhere"))


def test_ours_installed_over_another_is_refused_too(site: Path, tmp_path: Path) -> None:
    """The next upgrade or removal of either would break the other."""
    ours = install_ours(site)
    install(site, "python-daemon", ours)
    assert refused(run("-c", CONSOLE_SCRIPT, site=site, cwd=tmp_path / "elsewhere"))


def test_what_an_upgrade_that_was_killed_leaves_behind_is_ours(site: Path, tmp_path: Path) -> None:
    """pip renames what it replaces, and puts it back or removes it only at the end."""
    install(site, "pillowd", install_ours(site))
    (site / "pillowd-3.1.2.dist-info").rename(site / "~illowd-3.1.2.dist-info")
    done = run("-c", CONSOLE_SCRIPT, site=site, cwd=tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr


def test_python_m_daemon_in_a_merged_folder_is_refused(site: Path, tmp_path: Path) -> None:
    install_ours(site)
    install(site, "python-daemon", "")
    assert refused(run("-m", "daemon", "--version", site=site, cwd=tmp_path / "elsewhere"))


def test_a_foreign_daemon_that_nobody_claims_is_refused(site: Path, tmp_path: Path) -> None:
    (site / "daemon").mkdir()
    (site / "daemon" / "__init__.py").write_text("")
    done = run("-c", CONSOLE_SCRIPT, site=site, cwd=tmp_path / "elsewhere")
    assert done.returncode == 78
    assert f"at {site / 'daemon'} belongs to another distribution" in done.stderr


def test_ours_alone_runs_whatever_else_is_installed_elsewhere(site: Path, tmp_path: Path) -> None:
    """A `python-daemon` further down the path harms nobody."""
    install_ours(site)
    install(tmp_path / "later", "python-daemon", "")
    done = subprocess.run(
        [sys.executable, "-c", CONSOLE_SCRIPT],
        cwd=tmp_path / "elsewhere",
        env=os.environ | {"PYTHONPATH": f"{site}{os.pathsep}{tmp_path / 'later'}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")

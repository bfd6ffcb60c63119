"""`make install` into a folder of our own, as a user without rights; and its unit, as it is written."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.process import ROOT

PREFIX = "/opt/elsewhere"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that stands for `/`."""
    root = tmp_path_factory.mktemp("root")
    done = subprocess.run(
        ["make", "-s", "install", f"PREFIX={PREFIX}", f"DESTDIR={root}"],
        cwd=ROOT,
        env=os.environ | {"PIP_NO_COMPILE": "1"},  # half the time
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "daemon-reload" in done.stdout
    yield root
    shutil.rmtree(root)


def pillowd(root: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs the installed command, from where it is now."""
    return subprocess.run(
        [f"{root}{PREFIX}/bin/python", "-m", "pillowd", *words],
        cwd=root,
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.timeout(600)
def test_what_is_installed_runs_and_is_no_part_of_the_checkout(installed):
    done = pillowd(installed, "--version")

    assert done.returncode == 0, done.stderr
    where = subprocess.run(
        [f"{installed}{PREFIX}/bin/python", "-c", "import daemon; print(daemon.__file__)"],
        cwd=installed,
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(f"{installed}{PREFIX}/lib")


def test_scripts_and_unit_name_the_prefix_alone(installed):
    script = (installed / PREFIX[1:] / "bin" / "pillowd").read_text()
    unit = (installed / "etc/systemd/system/pillowd.service").read_text()

    assert script.splitlines()[0].startswith(f"#!{PREFIX}/bin/python")
    assert f"ExecStart={PREFIX}/bin/pillowd run --all --config /etc/pillowd/pillowd.yaml" in unit
    assert "/opt/pillowd" not in unit


def test_the_first_configuration_is_valid_with_its_credential(installed, tmp_path):
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "couchdb_password").write_text("s3cret-x\n")
    config = installed / "etc/pillowd/pillowd.yaml"

    done = pillowd(installed, "check", "--config", str(config), CREDENTIALS_DIRECTORY=str(credentials))

    assert done.returncode == 0, done.stderr
    assert config.stat().st_mode & 0o777 == 0o644, "the service is no owner of it"
    assert (installed / "etc/pillowd/credentials").stat().st_mode & 0o777 == 0o700


def test_the_man_page_is_there(installed):
    page = installed / PREFIX[1:] / "share/man/man1/pillowd.1"

    assert page.read_text().startswith(".TH PILLOWD 1")


def test_a_prefix_that_cannot_be_is_refused(tmp_path):
    done = subprocess.run(
        ["make", "-s", "install", "PREFIX=relative", f"DESTDIR={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert "absolute path" in done.stderr


def test_a_place_that_cannot_be_written_to_is_said_with_the_remedy():
    done = subprocess.run(
        ["make", "-s", "install", "DESTDIR=/proc/none"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode != 0
    assert "use sudo, or set DESTDIR" in done.stderr

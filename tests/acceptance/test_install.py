"""`make install` into a folder of our own, as a user without rights; and its unit, as it is written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.process import ROOT
from tests.servers.couch_client import CouchDatabase

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
        env={"PATH": os.environ["PATH"]},  # a PYTHONPATH of the tests' would name the checkout
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(f"{installed}{PREFIX}/lib")


def test_its_packages_are_typed_and_hold_no_tests(installed):
    (site,) = (installed / PREFIX[1:]).glob("lib/python3*/site-packages")

    assert {path.parent.name for path in site.glob("*/py.typed")} >= {"checkpoints", "pillows", "daemon"}
    assert not any((site / name).exists() for name in ("tests", "bench"))
    assert not (site / "daemon" / "demo").exists()


def test_what_the_page_has_typed_works_in_its_order(
    installed: Path, couch: Any, couch_db: CouchDatabase, tmp_path: Path
) -> None:
    """The commands run as on a fresh machine; the folder that systemd makes at the start is made here."""
    root = tmp_path / "root"
    shutil.copytree(installed / "etc", root / "etc")
    user, password = couch.auth or ("etl", "unused")
    _change(
        root / "etc/pillowd/pillowd.yaml",
        {
            "http://127.0.0.1:5984": couch.url,
            "username: etl": f"username: {user}",
            "database: cases": f"database: {couch_db.name}",
            "/var/lib": f"{root}/var/lib",
        },
    )
    # tests/acceptance/test_release.py installs the package.
    typed = [line for line in _typed() if not line.startswith(("make ", "apt "))]

    codes = {line: _type(line, installed, root, password) for line in typed}

    assert codes == dict.fromkeys(typed, 0)
    assert [line.split()[-1] for line in typed if line.endswith(("check", "--connect"))] == [
        "check",
        "--connect",
    ]


def _change(config: Path, replaced: dict[str, str]) -> None:
    text = config.read_text()
    for old, new in replaced.items():
        assert old in text, f"the configuration to begin with has no {old} any more"
        text = text.replace(old, new)
    config.write_text(text)


def _typed() -> list[str]:
    """The lines for root, up to a service that runs."""
    text = (ROOT / "docs" / "how-to" / "install-as-a-service.md").read_text()
    text = text[: text.index("## 4.")]
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)).splitlines()
    return [line.removeprefix("sudo ") for line in lines if line.startswith("sudo ")]


def _type(line: str, installed: Path, root: Path, password: str) -> int:
    """Types a line of the page as if `root` were `/`. Returns its exit code."""
    if line.startswith("systemctl "):
        if "enable --now" in line:
            unit = (root / "etc/systemd/system/pillowd.service").read_text()
            (folder,) = re.findall(r"(?m)^StateDirectory=(\S+)$", unit)
            (root / "var/lib" / folder).mkdir(parents=True)
        return 0
    command = line.replace("/etc/pillowd", f"{root}/etc/pillowd")
    ours = f"{installed}{PREFIX}/bin/python -m pillowd"
    done = subprocess.run(
        ["bash", "-c", command.replace("/opt/pillowd/bin/pillowd", ours)],
        cwd=installed / PREFIX[1:],
        env={"PATH": os.environ["PATH"], "PILLOWD_CONFIG": f"{root}/etc/pillowd/pillowd.yaml"},
        input=f"{password}\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode


def test_a_broken_file_beside_the_first_configuration_is_told(installed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pillowd"
    shutil.copytree(installed / "etc/pillowd", folder)
    (folder / "credentials" / "couchdb_password").write_text("s3cret-x")
    (folder / "pillows.d" / "more.yaml").write_text("pillows: {more: {sauce: 1}}\n")

    done = pillowd(
        installed,
        "check",
        "--config",
        str(folder / "pillowd.yaml"),
        CREDENTIALS_DIRECTORY=str(folder / "credentials"),
    )

    assert done.returncode == 78
    assert "more.yaml:1" in done.stderr


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

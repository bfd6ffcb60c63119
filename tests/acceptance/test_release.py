"""A release is whole, it can be built again, and it installs where nothing is."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from release.debian_package import to_debian
from release.licenses import find_refused
from tests.acceptance.process import ROOT
from tests.conftest import ending_without_server
from tests.servers.couch_client import CouchDatabase
from tests.servers.process import free_port
from tests.support.debian_machine import SHARED, DebianMachine, debian_machine
from tests.support.sizes import proving
from tests.support.waiting import wait_until

UNIT = "/lib/systemd/system/pillowd.service"
CONFIG = "/etc/pillowd/pillowd.yaml"
#: Our environment without the checkout, which an installed pillowd must do without.
CLEAN = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def make_release(
    output: Path, *options: str, python: str = sys.executable, environ: Mapping[str, str] = {}
) -> Path:
    if not shutil.which("dpkg-deb") or not Path("/usr/bin/python3").exists():
        pytest.skip("no Debian")
    done = subprocess.run(
        [python, "-m", "release", "--output", str(output), *options],
        cwd=ROOT,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    return output


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all files; making them has built sdist and wheel twice and compared."""
    return make_release(tmp_path_factory.mktemp("release"), *([] if proving() else ["--fast"]))


@pytest.fixture(scope="module")
def version(release: Path) -> str:
    (wheel,) = release.glob("*.whl")
    return wheel.name.split("-")[1]


@pytest.fixture(scope="module")
def bill(release: Path, version: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((release / f"pillowd-{version}.cdx.json").read_bytes())
    return read


@pytest.fixture(scope="module")
def told(bill: dict[str, Any]) -> str:
    """The line that `pillowd --version` must print."""
    component = bill["metadata"]["component"]
    (commit,) = [each["value"] for each in component["properties"] if each["name"] == "pillowd:commit"]
    assert re.fullmatch("[0-9a-f]{40}", commit)
    return f"pillowd {component['version']} (commit {commit})\n"


def test_every_file_is_there_with_its_checksum(release: Path, version: str) -> None:
    (package,) = release.glob("*.deb")
    listed = (release / "SHA256SUMS").read_text()
    sums = {name: digest for digest, name in re.findall(r"(?m)^([0-9a-f]{64})  (.+)$", listed)}

    assert package.name.startswith(f"pillowd_{to_debian(version)}_")
    assert sums == {
        name: hashlib.sha256((release / name).read_bytes()).hexdigest()
        for name in (
            *(f"pillowd-{version}{end}" for end in (".tar.gz", "-py3-none-any.whl", ".cdx.json")),
            package.name,
            "licenses.txt",
        )
    }


@pytest.mark.proof
def test_a_release_is_the_same_wherever_and_whenever_it_is_made(release: Path, tmp_path: Path) -> None:
    """All files are equal, the Debian package too, for a user with another mask, time zone and language."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\numask 077\nexec "{sys.executable}" "$@"\n')
    script.chmod(0o755)
    elsewhere = {"TZ": "Pacific/Chatham", "LC_ALL": "C", "TMPDIR": str(tmp_path)}
    again = make_release(tmp_path / "again", python=str(script), environ=elsewhere)
    assert (again / "SHA256SUMS").read_text() == (release / "SHA256SUMS").read_text()


@pytest.mark.parametrize(
    ("version", "debian"),
    [("0.1.0", "0.1.0"), ("0.2.0.dev7", "0.2.0~dev7"), ("1.0.0rc1", "1.0.0~rc1"), ("1.0.0b2", "1.0.0~b2")],
)
def test_what_leads_to_a_version_comes_before_it_in_debian_too(version: str, debian: str) -> None:
    assert to_debian(version) == debian


# --- wheel and sdist


def pillowd_of(environment: Path, folder: Path, *words: str) -> str:
    done = subprocess.run(
        [str(environment / "bin" / "pillowd"), *words],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_installs_into_an_empty_environment(release: Path, told: str, tmp_path: Path) -> None:
    (wheel,) = release.glob("*.whl")
    environment = tmp_path / "environment"
    uv = [sys.executable, "-m", "uv", "-q"]
    subprocess.run([*uv, "venv", "--no-project", str(environment)], env=CLEAN, check=True)
    constraints = ["--constraint", str(ROOT / "requirements.lock")]
    into = [*uv, "pip", "install", "--python", str(environment / "bin" / "python"), *constraints]
    subprocess.run([*into, str(wheel)], env=CLEAN, check=True)

    assert pillowd_of(environment, tmp_path, "--version") == told
    assert "mirror" in pillowd_of(environment, tmp_path, "--help")
    (site,) = (environment / "lib").glob("python3*/site-packages")
    ours = {"checkpoints", "pillows", "daemon", "pillowd.py"}
    assert {path.name for path in site.iterdir() if path.name in {*ours, "tests", "bench", "release"}} == ours


@pytest.mark.proof
@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_pip_installs_either_with_what_is_newest(release: Path, told: str, tmp_path: Path, kind: str) -> None:
    (file,) = release.glob(kind)
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], env=CLEAN, check=True)
    subprocess.run([str(environment / "bin" / "pip"), "install", "-q", str(file)], env=CLEAN, check=True)

    assert pillowd_of(environment, tmp_path, "--version") == told


@pytest.mark.proof
def test_pipx_runs_the_wheel(release: Path, told: str, tmp_path: Path) -> None:
    (wheel,) = release.glob("*.whl")
    done = subprocess.run(
        [sys.executable, "-m", "pipx", "run", "--spec", str(wheel), "pillowd", "--version"],
        cwd=tmp_path,
        env=CLEAN | {"PIPX_HOME": str(tmp_path / "pipx")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == told


# --- bill of materials and licenses


def test_the_bill_lists_what_the_lock_file_pins_for_this_platform(bill: dict[str, Any], version: str) -> None:
    pinned = dict(re.findall(r"(?m)^([\w.-]+)==(\S+)", (ROOT / "requirements.lock").read_text()))
    listed = {
        re.sub(r"[-_.]+", "-", each["name"]).lower(): each["version"]
        for each in bill["components"]
        if each["purl"].startswith("pkg:pypi/")
    }

    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["version"] == version
    assert {name: pinned[name] for name in listed} == listed
    elsewhere = set(pinned) - set(listed)
    conditional = re.findall(r"(?m)^([\w.-]+)==\S+ ; ", (ROOT / "requirements.lock").read_text())
    assert elsewhere <= set(conditional), "for other platforms only"


def test_the_bill_lists_the_library_of_the_page(bill: dict[str, Any]) -> None:
    assert "pkg:npm/uplot@1.6.32" in {each["purl"] for each in bill["components"]}


def test_all_licenses_are_allowed(bill: dict[str, Any]) -> None:
    assert find_refused(bill) == {}


@pytest.mark.parametrize(
    ("licenses", "is_refused"),
    [
        ([{"license": {"id": "MIT"}}], False),
        ([{"expression": "MIT OR GPL-3.0-only"}], False),
        ([{"expression": "MIT AND GPL-3.0-only"}], True),
        ([{"expression": "GPL-2.0-only WITH Classpath-exception-2.0"}], True),
        ([{"license": {"id": "LGPL-3.0-only"}}], True),
        ([{"license": {"id": "MIT"}}, {"license": {"id": "AGPL-3.0-only"}}], True),
        ([{"license": {"name": "ask me"}}], True),
        ([], True),
    ],
)
def test_a_license_that_nobody_has_allowed_is_refused(licenses: list[Any], is_refused: bool) -> None:
    component = {"name": "library", "version": "1", "licenses": licenses}

    assert bool(find_refused({"components": [component]})) is is_refused


# --- Debian package


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebianMachine]:
    with ending_without_server(), debian_machine(tmp_path_factory.mktemp("machine")) as started:
        for folder in ("etc", "run", "var/lib"):
            started.say("rm", "-rf", f"/{folder}/pillowd")  # a developer's own
        yield started


def newer(package: Path, folder: Path) -> Path:
    """The same package, under a higher version."""
    file = folder / "newer.deb"
    subprocess.run(["dpkg-deb", "-R", str(package), str(folder / "files")], check=True)
    control = folder / "files" / "DEBIAN" / "control"
    control.write_text(re.sub(r"(?m)^Version: .*", "Version: 99.0", control.read_text()))
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(folder / "files"), str(file)], check=True
    )
    return file


class Service:
    """The unit, run as systemd would run it."""

    def __init__(self, machine: DebianMachine) -> None:
        self.machine = machine
        self.unit = machine.say("cat", UNIT)

    def by_user(self, *words: str) -> list[str]:
        """The command that runs these words as the unit's user in its environment."""
        (user,) = re.findall(r"(?m)^User=(.*)$", self.unit)
        environ = [
            *("PATH=/usr/bin:/bin", "PYTHONUNBUFFERED=1", "CREDENTIALS_DIRECTORY=/run/credentials"),
            *("STATE_DIRECTORY=/var/lib/pillowd", "RUNTIME_DIRECTORY=/run/pillowd"),
        ]
        drop = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs"]
        return [*drop, "env", "-i", *environ, *words]

    def command(self, key: str) -> list[str]:
        """Returns the words of a key such as ExecStart."""
        (words,) = re.findall(rf"(?m)^{key}=(.*)$", self.unit)
        return self.by_user(*words.split())

    def prepare(self) -> None:
        """Make the folders that systemd makes, and hand over the credential."""
        for folder, mode in {
            "/var/lib/pillowd": "0700",
            "/run/pillowd": "0750",
            "/run/credentials": "0700",
        }.items():
            self.machine.say("install", "-d", "-o", "pillowd", "-g", "pillowd", "-m", mode, folder)
        password = "/etc/pillowd/credentials/couchdb_password"
        self.machine.say("install", "-o", "pillowd", "-m", "0400", password, "/run/credentials/")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start it, have it catch up, and stop it again."""
        self.machine.say(*self.command("ExecStartPre"))
        log = self.machine.shared / "log"
        with log.open("w") as file:
            started = subprocess.Popen(self.machine.command(*self.command("ExecStart")), stderr=file)
        try:
            wait_until(lambda: '"state": "live"' in log.read_text(), explain=log.read_text)
            yield
        finally:
            started.terminate()
            code = started.wait(timeout=60)
        assert code == 0, log.read_text()


ASK = """\
import sqlite3
target = sqlite3.connect("file:/var/lib/pillowd/cases.sqlite?mode=ro", uri=True)
print(*(id for id, in target.execute("select _id from cases order by 1")))
"""


def configure(machine: DebianMachine, couch: Any, database: str) -> None:
    """Change server, user and database, and store the password, as the page for operators says."""
    user, password = couch.auth or ("etl", "unused")
    text = machine.say("cat", CONFIG)
    for old, new in {
        "http://127.0.0.1:5984": couch.url,
        "username: etl": f"username: {user}",
        "type: session": "type: basic",
        "database: cases": f"database: {database}",
    }.items():
        assert old in text
        text = text.replace(old, new)
    text += f'daemon: {{ http: {{ listen: "127.0.0.1:{free_port()}" }} }}\n'
    machine.say("tee", CONFIG, text=text)
    machine.say(
        "install", "-m", "0600", "/dev/stdin", "/etc/pillowd/credentials/couchdb_password", text=password
    )


def upgrade(service: Service, package: Path, couch_db: CouchDatabase) -> None:
    """Configuration and state are kept, and it goes on where it was."""
    machine = service.machine
    shutil.copy(package, machine.shared / "newer.deb")
    machine.say("dpkg", "-i", f"{SHARED}/newer.deb")
    assert machine.say("dpkg-query", "-W", "-f", "${Version}", "pillowd") == "99.0"
    assert couch_db.name in machine.say("cat", CONFIG)
    couch_db.put("b", {"n": 2})
    with service.running():
        assert machine.say("/usr/lib/pillowd/bin/python", "-c", ASK) == "a b\n"
    stored = machine.say(*service.by_user("/usr/bin/pillowd", "checkpoint", "list", "--json"))
    assert [each["changes"] for each in json.loads(stored)] == [2], "none was read twice"


def test_the_package_is_installed_started_upgraded_removed_and_purged(
    release: Path, told: str, machine: DebianMachine, couch: Any, couch_db: CouchDatabase, tmp_path: Path
) -> None:
    (package,) = release.glob("*.deb")
    shutil.copy(package, machine.shared / "first.deb")
    couch_db.put("a", {"n": 1})

    # Installed: it says what is left to do, its user is there, and only root reads passwords.
    printed = machine.say("dpkg", "-i", f"{SHARED}/first.deb")
    assert "systemctl enable --now pillowd" in printed
    assert machine.say("pillowd", "--version") == told
    assert machine.say("getent", "passwd", "pillowd").split(":")[5:] == [
        "/var/lib/pillowd",
        "/usr/sbin/nologin\n",
    ]
    assert machine.say("stat", "-c", "%U %a", "/etc/pillowd/credentials") == "root 700\n"
    assert machine.say("zcat", "/usr/share/man/man1/pillowd.1.gz").startswith(".TH PILLOWD 1")
    assert "_PILLOWD_COMPLETE" in machine.say("cat", "/usr/share/bash-completion/completions/pillowd")
    machine.say("systemd-analyze", "verify", "--man=no", UNIT)

    # Started.
    configure(machine, couch, couch_db.name)
    service = Service(machine)
    service.prepare()
    with service.running():
        assert machine.say("/usr/lib/pillowd/bin/python", "-c", ASK) == "a\n"

    if proving():
        upgrade(service, newer(package, tmp_path), couch_db)

    # Removed: what the operator wrote stays, and so does the state.
    machine.say("dpkg", "-r", "pillowd")
    assert machine.run("pillowd", "--version").returncode != 0
    assert couch_db.name in machine.say("cat", CONFIG)
    assert "cases.sqlite" in machine.say("ls", "/var/lib/pillowd")

    # Purged: nothing is left of it.
    machine.say("dpkg", "-P", "pillowd")
    machine.say("rm", "-r", "/run/pillowd", "/run/credentials")  # systemd's
    assert machine.run("getent", "passwd", "pillowd").returncode != 0
    left = [path for path in machine.list_new() if "pillowd" in path]
    assert left == []


# --- newcomers

FIVE_MINUTES_SECONDS = 300.0
#: In an empty folder: what a newcomer types to install, and where the command is then.
INSTALL = {
    "wheel": "python3 -m venv .venv && .venv/bin/pip install -q {wheel}",
    "checkout": "git clone -q {checkout} pillowd && cd pillowd && make -s setup",
}


@pytest.mark.proof
@pytest.mark.timeout(1200)  # the release is built first
@pytest.mark.parametrize("kind", INSTALL)
def test_a_newcomer_copies_a_database_within_five_minutes(
    kind: str, release: Path, couch: Any, couch_db: CouchDatabase, tmp_path: Path
) -> None:
    """The newcomer has only the wheel or the repository; the test of the package covers `apt install`."""
    couch_db.put("a", {"n": 1})
    couch_db.put("b", {"n": 2})
    (wheel,) = release.glob("*.whl")
    user, password = couch.auth
    source = couch.url.replace("://", f"://{user}@") + f"/{couch_db.name}"
    target = f"sqlite:///{tmp_path}/copy.sqlite"
    lines = [
        INSTALL[kind].format(wheel=wheel, checkout=ROOT),
        f".venv/bin/pillowd mirror {source} {target} --once --name copied",
        f".venv/bin/pillowd mirror {source} {target} --name copied --write-config pillowd.yaml",
        ".venv/bin/pillowd verify copied --config pillowd.yaml",
    ]
    began = time.monotonic()
    done = subprocess.run(
        ["sh", "-euc", "\n".join(lines)],
        cwd=tmp_path,
        env=CLEAN | {"HOME": str(tmp_path), "COUCHDB_PASSWORD": password},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stdout + done.stderr
    with closing(sqlite3.connect(tmp_path / "copy.sqlite")) as copy:
        assert copy.execute("select _id, n from copied order by 1").fetchall() == [("a", 1), ("b", 2)]
    print(f"{kind}: {seconds:.0f} s")
    assert seconds < FIVE_MINUTES_SECONDS

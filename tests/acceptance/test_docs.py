"""The documentation can be followed: its commands run, its site builds, what is made from the code is whole.

A block of `sh` or `shell` is run, all of a page in one shell session, in an empty folder, where blocks with
`title=FILE` are such files. One that needs root, systemd or Docker says so in a comment before it:
`<!-- not run: why -->`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Any

import psycopg
import pytest
import yaml

from daemon.config.models import Config
from daemon.metrics.catalogue import CATALOGUE
from daemon.mirror.columns import infer_columns
from daemon.mirror.config import parse_mirror
from pillows import registry
from tests.acceptance.process import PILLOWD, ROOT
from tests.conftest import ending_without_server
from tests.servers.chromium import find_chromium
from tests.servers.couch_client import CouchDatabase
from tests.servers.process import free_port
from tests.support.readme import find_block
from tests.support.waiting import wait_until

DOCS = ROOT / "docs"
#: What a page writes for the reader's own server.
COUCH = "http://admin:s3cret@127.0.0.1:5984"
#: The same where the password comes from the environment, and there.
COUCH_USER, PASSWORD = "http://admin@127.0.0.1:5984", "COUCHDB_PASSWORD=s3cret"
#: The same in a configuration, where user and password have keys of their own.
COUCH_URL = "http://127.0.0.1:5984"
#: Where our packages are, and those that they need.
PATHS = (str(ROOT), sysconfig.get_path("purelib"))
#: Databases that pages make.
DATABASES = ("library", "bookshop")

_BLOCK = re.compile(
    r"(?P<mark><!-- not run: (?P<why>[^\n]*) -->\n)?```(?:sh|shell)\n(?P<text>.*?)```", re.DOTALL
)
_FILE = re.compile(r"```\w+ title=(?P<name>\S+)\n(?P<text>.*?)```", re.DOTALL)
PAGES = sorted(path for path in DOCS.rglob("*.md") if "```sh" in path.read_text())


def script(page: Path, couch: Any) -> str:
    """All that a page has its reader type and that can run here."""
    user, password = couch.auth or ("", "")
    at = {COUCH: f"{user}:{password}@" if user else "", COUCH_USER: f"{user}@" if user else ""}
    texts = [found["text"] for found in _BLOCK.finditer(page.read_text()) if not found["mark"]]
    text = "\n".join(texts).replace(PASSWORD, f"COUCHDB_PASSWORD={quote(password)}")
    for written, login in at.items():
        text = text.replace(written, couch.url.replace("://", f"://{login}"))
    return text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_commands_run(page: Path, couch: Any, tmp_path: Path):
    text = script(page, couch)
    if not text.strip():
        pytest.skip("nothing of it can run here; every block says why")
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "pillowd"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT}/pillowd.py" "$@"\n')
    command.chmod(0o755)
    (tmp_path / "bin" / "python3").symlink_to(sys.executable)
    work = tmp_path / "work"
    work.mkdir()
    for file in _FILE.finditer(page.read_text()):
        (work / file["name"]).write_text(file["text"].replace(COUCH_URL, couch.url))
    environ = os.environ | {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(PATHS),
        "PORT": str(free_port()),
    }
    with subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=work,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as page_shell:
        try:
            stdout, stderr = page_shell.communicate(timeout=250)
        finally:
            with suppress(ProcessLookupError):  # what it left in the background would write for the next page
                os.killpg(page_shell.pid, signal.SIGKILL)
            for name in DATABASES:
                database = CouchDatabase(couch.url, name, auth=couch.auth)
                if database.exists():
                    database.drop()

    assert page_shell.returncode == 0, stdout + stderr
    for shown in re.findall(r"```text\n(.*?)```", page.read_text(), flags=re.DOTALL):
        assert shown in stdout


def test_every_command_of_a_page_is_seen():
    """A fence that is written in another way would be a block that nobody runs."""
    fences = re.compile(r"(?m)^```(?:sh|shell|bash|console)\b")
    for page in DOCS.rglob("*.md"):
        text = page.read_text()
        assert len(fences.findall(text)) == len(_BLOCK.findall(text)), page


def test_the_tutorial_s_service_has_what_write_config_writes_but_for_what_the_page_changes(tmp_path: Path):
    (shown,) = re.findall(r"```yaml\n(.*?)```", (DOCS / "tutorial/first-mirror.md").read_text(), re.DOTALL)
    wanted = parse_mirror(
        "http://admin@127.0.0.1:5984/library", "sqlite:///library.sqlite", name=None, state_dir=tmp_path
    )
    books = [{"_id": "emma", "title": "Emma", "year": 1815}, {"_id": "faust", "year": 1808, "parts": [1, 2]}]
    settings = wanted.make_settings(infer_columns(books, wanted.support.COLUMN_TYPES))

    del settings["daemon"]
    settings["connections"]["target"]["path"] = "/var/lib/pillowd/library.sqlite"
    settings["connections"]["couch"]["auth"]["password"] = "${credential:couchdb_password}"

    assert yaml.safe_load(shown) == settings


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_not_run_says_why(page: Path):
    reasons = {found["why"].partition(";")[0] for found in _BLOCK.finditer(page.read_text()) if found["mark"]}
    known = {"root", "systemd", "docker", "logstash", "couch2pg", "pillowtop", "it is what the tests run in"}
    known |= {"a server of your own", "another machine", "a terminal to look at", "the wheel"}

    assert reasons <= known


def test_every_command_of_ours_that_is_not_run_exists():
    """Command and options, of the blocks that cannot run here."""
    for page in PAGES:
        for found in _BLOCK.finditer(page.read_text()):
            for line in found["text"].splitlines() if found["mark"] else ():
                words = line.partition("pillowd ")[2].split() if re.search(r"(bin/|^)pillowd ", line) else []
                if not words:
                    continue
                verbs = [word for word in words[:2] if re.fullmatch(r"[a-z-]+", word)]
                verbs = verbs if verbs[0] in {"checkpoint", "dead-letter", "config", "store"} else verbs[:1]
                answer = subprocess.run(
                    [sys.executable, str(ROOT / "pillowd.py"), *verbs, "--help"],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert answer.returncode == 0, line
                options = [word for word in words if word.startswith("--")]
                assert [each for each in options if each not in answer.stdout] == [], line


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from a copy with warnings as errors, as `make docs` does."""
    folder = tmp_path_factory.mktemp("docs")
    source = folder / "docs"
    generated = shutil.ignore_patterns(
        "commands.md", "configuration.md", "metrics.md", "log-events.md", "exit-codes.md"
    )
    shutil.copytree(DOCS, source, ignore=generated)
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    for script in ("generate.py", "screenshots.py"):
        subprocess.run([sys.executable, str(source / script)], env=environ, check=True, timeout=120)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sphinx",
            "-q",
            "-W",
            "--keep-going",
            "-b",
            "html",
            str(source),
            str(folder / "site"),
        ],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "site"


def test_the_site_builds_without_a_warning(site):
    assert (site / "index.html").exists()


def test_the_site_has_pictures_of_the_page_as_it_is(site):
    with ending_without_server():
        find_chromium()
    pictures = sorted((site / "_images").glob("page-*.png"))
    assert [picture.stem for picture in pictures] == ["page-dark-narrow", "page-light-wide", "page-opened"]
    assert min(picture.stat().st_size for picture in pictures) > 50_000, "nothing but a background"


def test_i14_options_keep_their_dashes(site):
    """`--once` in plain text would become an en dash, and could not be pasted."""
    text = (site / "reference" / "commands.html").read_text()

    assert "With --once" in text
    assert not re.search("[\u2013\u2014]\\w", text)


def test_i14_pages_that_are_made_from_the_code_are_linked(site):
    index = (site / "index.html").read_text()

    for page in ("commands", "configuration", "api", "metrics", "log-events", "exit-codes"):
        assert f'href="reference/{page}.html"' in index


def test_i15_words_that_users_meet_are_explained_to_them():
    """The glossary has our own words in messages, columns of tables and JSON."""
    (section,) = re.findall(r"## For everyone\n(.*?)\n## ", (DOCS / "glossary.md").read_text(), re.DOTALL)
    explained = {word for cell in re.findall(r"(?m)^\| \*\*(.*?)\*\* ", section) for word in cell.split(", ")}

    assert explained >= {
        *("pillow", "tail", "pass", "sweep", "epoch", "fence"),
        *("generation", "phantom", "leave the set", "mark"),
        *("dead letter", "checkpoint", "lag", "head", "tombstone", "drain", "failpoint"),
    }
    first = (ROOT / "README.md").read_text().partition("```")[0].splitlines()[:8]
    assert "*pillow*" in " ".join(first), "README says at once what a pillow is"


def test_every_page_is_in_the_site(site):
    for page in DOCS.rglob("*.md"):
        assert (site / page.relative_to(DOCS)).with_suffix(".html").exists()


def test_the_reference_has_every_section_and_type(site):
    text = (site / "reference" / "configuration.html").read_text()

    for name in registry.transport_types():
        assert f">{name}<" in text
    for key in Config.model_fields:
        assert f">{key}<" in text


def test_the_reference_has_the_events_of_the_log(site):
    text = (site / "reference" / "log-events.html").read_text()

    for name in ("pillow.state", "retry", "tail.resumed", "daemon.stopping", "checkpoint.not_saved"):
        assert f">{name}<" in text


def test_the_reference_has_every_metric(site):
    text = (site / "reference" / "metrics.html").read_text()

    for name in CATALOGUE:
        assert f">{name}<" in text


def test_the_readme_s_mirror_copies_a_database(couch: Any, couch_db: CouchDatabase, tmp_path: Path):
    """The command runs as it is written, with a real server and database in place of the ones it names."""
    couch_db.fill(3)
    login = f"{couch.auth[0]}@" if couch.auth else ""
    server = couch.url.replace("http://", f"http://{login}")
    (line,) = re.findall(r"(?m)^    (pillowd mirror .*)$", (ROOT / "README.md").read_text())
    command = line.replace("http://USER@127.0.0.1:5984/DATABASE", f"{server}/{couch_db.name}").replace(
        "pillowd mirror", f"{sys.executable} {ROOT}/pillowd.py mirror"
    )

    done = subprocess.run(
        [*command.split(), "--once"],
        cwd=tmp_path,
        env=os.environ | {"COUCHDB_PASSWORD": couch.auth[1] if couch.auth else ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "3 changes so far" in done.stdout


def test_the_readme_s_pillow_and_its_commands_run(
    couch: Any, couch_db: CouchDatabase, postgres_dsn: str, tmp_path: Path
):
    """The configuration and the three commands work as they are written, on servers of ours."""
    couch_db.put("a", {"doc_type": "Case", "name": "Ada", "opened_on": "2026-03-01T09:30:00Z"})
    couch_db.put("b", {"doc_type": "Form"})
    auth = couch.auth or ("etl", "unused")
    text = find_block("version: 1").replace("http://127.0.0.1:5984", couch.url)
    text = text.replace("username: etl", f"username: {auth[0]}").replace(
        "database: cases", f"database: {couch_db.name}"
    )
    text = text.replace("postgresql://pillowd@127.0.0.1/reporting", postgres_dsn)
    (tmp_path / "pillowd.yaml").write_text(text)
    (tmp_path / "pillowd.yaml").chmod(0o600)
    folders = {"STATE_DIRECTORY": str(tmp_path), "RUNTIME_DIRECTORY": str(tmp_path)}
    environ = os.environ | folders | {"COUCHDB_PASSWORD": auth[1]}
    check, run, status = (
        [*PILLOWD, *line.split()[1:]] for line in find_block("pillowd check").strip().splitlines()
    )

    def ask(command: list[str], *codes: int) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode in (0, *codes), done.stderr
        return done.stdout

    ask(check)
    with (tmp_path / "log").open("w") as log:
        daemon = subprocess.Popen(run, cwd=tmp_path, env=environ, stderr=log)
    try:
        # 75 is "later": on a busy machine the daemon may start for longer than a command waits for it.
        wait_until(lambda: " live " in ask(status, 75))
        daemon.terminate()
        assert daemon.wait(timeout=60) == 0
    finally:
        daemon.kill()

    with psycopg.connect(postgres_dsn) as connection:
        assert connection.execute("select _id, name from cases").fetchall() == [("a", "Ada")]

"""`pillowd check`: every mistake in one round, each with its place."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.cli.commands.config.check import probe_connections
from daemon.cli.main import run_command
from daemon.config.load import load
from daemon.config.problems import ConfigErrors
from pillows import registry
from pillows.clock import SystemClock
from tests.support.certificate import make_certificate
from tests.support.clock import FakeClock

GOOD = """\
version: 1
connections:
  couch: { type: couchdb, url: "http://127.0.0.1:9" }
  lite: { type: sqlite, path: t.sqlite }
pillows:
  cases:
    source: { connection: couch, database: cases }
    outputs: [x, y]
    transform: { python: "json:loads" }
    transport:
      - connection: lite
        outputs:
          x: { table: x, columns: { n: "n text" } }
          y: { table: y }
"""


def checked(folder: Path, text: str, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str, str]:
    """Exit code and what was printed."""
    (folder / "pillowd.yaml").write_text(text)
    code = run_command(["check", "--config", str(folder / "pillowd.yaml"), *more])
    said = capsys.readouterr()
    return code, said.out, said.err


def mistakes(folder: Path, text: str) -> list[tuple[int, str, str]]:
    (folder / "pillowd.yaml").write_text(text)
    with pytest.raises(ConfigErrors) as raised:
        load(folder / "pillowd.yaml", {"HOME": str(folder)})
    return [(each.place.line, each.key, each.message) for each in raised.value.problems]


def test_the_configuration_that_the_tests_break_is_valid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said, _ = checked(tmp_path, GOOD, capsys)
    assert (code, "is valid" in said) == (0, True)


def test_an_expired_certificate_of_the_admin_listener_is_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = make_certificate(tmp_path, days=1)
    listener = f"listen: 127.0.0.1:0, tls: {{ cert: {cert}, key: {key} }}"
    token = f"tokens: [{{ name: ops, sha256: {'0' * 63}a }}]"
    text = f"{GOOD}daemon: {{ admin: {{ tcp: {{ {listener}, {token} }} }} }}\n"
    assert checked(tmp_path, text, capsys)[0] == 0
    later = FakeClock(auto=False, wall=SystemClock().wall() + 2 * 86_400)
    monkeypatch.setattr("daemon.cli.commands.config.check.SystemClock", lambda: later)
    code, _, said = checked(tmp_path, text, capsys)
    assert code == 78
    assert "cert.pem expired on" in said


def test_problems_of_every_kind_are_reported_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong value, an output declared twice, no such module, no such type, an output nobody writes."""
    text = GOOD.replace("database: cases", "database: cases, page: 150").replace("[x, y]", "[x, y, x, z]")
    text = text.replace("json:loads", "no_such_module:rows").replace("n text", "n txt")
    code, _, said = checked(tmp_path, text, capsys)
    assert code == 78
    for line, path in (
        (7, "pillows.cases.source.page"),
        (8, "pillows.cases.outputs[2]"),
        (8, "pillows.cases.outputs[3]"),
        (9, "pillows.cases.transform.python"),
        (13, "pillows.cases.transport[0].outputs.x.columns.n"),
    ):
        assert f"pillowd.yaml:{line}: {path}: " in said, said
    assert said.count("pillowd.yaml:") == 5, said


@pytest.mark.parametrize(
    ("old", "new", "line", "path", "message"),
    [
        ("n text", "n txt", 13, ".columns.n", "SQLite has no type 'txt'"),
        (
            "table: x,",
            "table: pillowd_document,",
            13,
            ".table",
            "sqlite_ or pillowd_ are reserved",
        ),
        ('n: "n text"', 'N: "n text", n: "n text"', 13, ".columns", "'N' and 'n' are one name in SQLite"),
        ("n text", "n", 13, ".columns.n", "'n' is not a path and a type"),
    ],
)
def test_what_sqlite_cannot_have_is_a_problem_with_its_place(
    tmp_path: Path, old: str, new: str, line: int, path: str, message: str
) -> None:
    (found,) = mistakes(tmp_path, GOOD.replace(old, new))
    assert found[:2] == (line, f"pillows.cases.transport[0].outputs.x{path}")
    assert message in found[2]


@pytest.mark.parametrize("name", ["Db", "1st", "_local", "a b", "ä"])
def test_invalid_database_name_is_refused(tmp_path: Path, name: str) -> None:
    """The server has none of that name, and the pillow would wait for it for ever."""
    ((line, path, message),) = mistakes(tmp_path, GOOD.replace("database: cases", f"database: {name}"))
    assert (line, path) == (7, "pillows.cases.source.database")
    assert f"{name!r} is not a valid CouchDB database name" in message
    copy = GOOD.replace(
        "- connection: lite", f"- {{ connection: couch, database: {name} }}\n      - connection: lite"
    )
    ((line, path, message),) = mistakes(tmp_path, copy.replace("[x, y]", "[x, y]"))
    assert (line, path) == (11, "pillows.cases.transport[0].database")


@pytest.mark.parametrize("name", ["_users", "_replicator", "_global_changes", "a/b+c$(d)-e_1"])
def test_every_valid_database_name_is_accepted(tmp_path: Path, name: str) -> None:
    (tmp_path / "pillowd.yaml").write_text(GOOD.replace("database: cases", f"database: {name}"))
    loaded = load(tmp_path / "pillowd.yaml", {"HOME": str(tmp_path)})
    assert loaded.pillows["cases"].source.database == name


PLUGIN = """
from pillows import registry
from pillows.errors import ConfigError
from pillows.transports.null import NullTransport

@registry.register("transport", "moody")
class Moody(NullTransport):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        raise ConfigError("I would rather not.", remedy="ask tomorrow")
"""
MOODY = GOOD.replace("version: 1\n", "version: 1\ndaemon: { plugins_path: [plugins] }\n").replace(
    "pillows:\n", "  moody: { type: moody }\npillows:\n"
)
MOODY += """\
  second:
    source: { connection: couch, database: cases }
    transport: [{ connection: moody }]
"""


@pytest.fixture
def moody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A configuration with a transport whose constructor refuses what passed validation."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "moody_transport.py").write_text(PLUGIN)
    yield MOODY
    sys.modules.pop("moody_transport", None)


def test_refusal_of_a_transports_constructor_is_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], moody: str
) -> None:
    code, _, said = checked(tmp_path, moody, capsys)
    assert code == 78
    assert "pillowd.yaml:19: pillows.second.transport[0]: I would rather not.; ask tomorrow" in said


def test_one_bad_transport_does_not_hide_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], moody: str
) -> None:
    """A place that is away, one that refuses and one that is there stand in one table."""
    (tmp_path / "pillowd.yaml").write_text(moody)
    config = load(tmp_path / "pillowd.yaml", {"HOME": str(tmp_path)})
    found = {each.place: each.result for each in probe_connections(config)}
    assert found == {
        "cases: source couch/cases": "unreachable",
        "cases: transport lite": "ok",
        "second: source couch/cases": "unreachable",
        "second: transport moody": "refused",
    }


def test_a_design_document_in_a_test_is_left_out_as_the_daemon_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tested = GOOD + "    tests: [{ doc: { _id: _design/x }, rows: { x: [{ _id: _design/x }] } }]\n"
    tested = tested.replace('{ python: "json:loads" }', "{ pick: [_id] }").replace("[x, y]", "[x]")
    tested = tested.replace("          y: { table: y }\n", "")
    code, _, said = checked(tmp_path, tested, capsys)
    assert code == 78
    assert "got no rows" in said
    kept = tested.replace("database: cases", "database: cases, skip_design: false")
    assert checked(tmp_path, kept, capsys)[0] == 0


def test_test_may_set_the_change_beside_the_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A filter on conflicts, and a deletion, can be tested, too."""
    tested = GOOD.replace('transform: { python: "json:loads" }', 'filter: { jmespath: "length(revs) > `1`" }')
    tested = tested.replace("[x, y]", "[x]").replace("          y: { table: y }\n", "")
    tested += """\
    tests:
      - { doc: { _id: a }, change: { revs: [2-a, 2-b] }, rows: [{ _id: a }] }
      - { doc: { _id: a }, rows: [] }
      - { doc: { _id: a }, change: { revs: [2-a, 2-b], deleted: true }, rows: [] }
"""
    code, _, said = checked(tmp_path, tested, capsys)
    assert code == 0, said


def test_i10_connect_counts_what_cannot_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a-file").touch()
    good = GOOD.replace("path: t.sqlite", f"path: {tmp_path}/a-file/t.sqlite")
    _, said, _ = checked(tmp_path, good, capsys, "--connect")
    last = said.splitlines()[-1]
    assert last.endswith("the configuration is valid, 1 pillow; 2 of 2 sources and targets cannot work")


def test_i13_verify_says_that_files_cannot_be_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "pillowd.yaml"
    state = f"daemon: {{ state_dir: {tmp_path}/state, admin: {{ listen: 'unix:{tmp_path}/c.sock' }} }}"
    text = GOOD.replace("version: 1", f"version: 1\n{state}")
    text = text.replace("{ type: sqlite, path: t.sqlite }", f"{{ type: jsonl, folder: {tmp_path}/lines }}")
    text = text.replace('{ table: x, columns: { n: "n text" } }', "{ file: x }").replace(
        "table: y", "file: y"
    )
    config.write_text(text)
    assert run_command(["verify", "cases", "--config", str(config)]) == 78
    assert "can't be verified (lite): files, topics, streams and webhooks" in capsys.readouterr().err

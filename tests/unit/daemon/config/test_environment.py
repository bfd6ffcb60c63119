"""A configuration that is an environment variable, as containers have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.cli.main import run_command
from daemon.cli.options import find_config
from daemon.config.environment import IN_ENVIRONMENT
from daemon.config.load import ConfigErrors, load

TEXT = """\
version: 1
include: ["more.yaml"]
connections:
  couch: { type: couchdb, url: "http://127.0.0.1:1", auth: { type: basic, username: u, password: "plain-x" } }
  files: { type: jsonl, folder: . }
pillows:
  cases:
    source: { connection: couch, database: "${DATABASE}" }
    transport: [{ connection: files, file: cases.jsonl }]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more.yaml").write_text('connections: { nowhere: { type: "null" } }')
    monkeypatch.delenv("PILLOWD_CONFIG", raising=False)
    return tmp_path


def test_the_variable_is_read_as_a_file_in_the_working_directory(here: Path) -> None:
    config = load(IN_ENVIRONMENT, {"PILLOWD_CONFIG_YAML": TEXT, "DATABASE": "cases"})
    assert config.pillows["cases"].source.database == "cases"
    assert "nowhere" in config.connections
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TEXT, "$PILLOWD_CONFIG_YAML:8: pillows.cases.source.database: the environment variable DATABASE"),
        (TEXT.replace("files: {", "files {"), "$PILLOWD_CONFIG_YAML:5: "),
        ("", "version"),
    ],
)
def test_its_errors_name_the_variable_and_the_line(here: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigErrors) as raised:
        load(IN_ENVIRONMENT, {"PILLOWD_CONFIG_YAML": text})
    assert words in str(raised.value)


def test_commands_find_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "pillowd.yaml").write_text("version: 1\n")
    monkeypatch.setenv("PILLOWD_CONFIG_YAML", TEXT)
    monkeypatch.setenv("DATABASE", "cases")
    assert find_config(None) == IN_ENVIRONMENT
    assert find_config(Path("pillowd.yaml")) == Path("pillowd.yaml")
    assert run_command(["check"]) == 0
    assert "$PILLOWD_CONFIG_YAML: the configuration is valid, 1 pillow" in capsys.readouterr().out

    monkeypatch.setenv("PILLOWD_CONFIG", "pillowd.yaml")
    assert run_command(["check"]) == 78
    assert "both set" in capsys.readouterr().err
    monkeypatch.setenv("PILLOWD_CONFIG_YAML", "")
    assert find_config(None) == Path("pillowd.yaml")

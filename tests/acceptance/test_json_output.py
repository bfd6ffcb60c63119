"""What `--json` prints is what docs/reference/json.md says, key for key, for every command there is."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon.cli.introspect import list_commands
from tests.acceptance.process import PILLOWD, ROOT
from tests.servers.couch_client import CouchDatabase

PAGE = (ROOT / "docs" / "reference" / "json.md").read_text()

#: What prints no JSON, as the page says.
WITHOUT = {"run", "top", "completion"}

#: What has keys of the reader's own: fields of documents, names of outputs and transports.
BY_NAME = (".document", ".rows", ".requests", ".errors", ".trials")


def sections() -> Iterator[tuple[list[str], str]]:
    """Return the text under each heading, by the commands that the heading names."""
    for part in PAGE.split("\n## ")[1:]:
        heading, _, text = part.partition("\n")
        yield re.findall(r"`([^`]+)`", heading), text


def documented() -> dict[str, Any]:
    """Command -> an example of its output."""
    found = {}
    for commands, text in sections():
        for block in re.findall(r"```json\n(.*?)```", text, flags=re.DOTALL):
            found |= dict.fromkeys(commands, json.loads(block))
    return found


def shape(value: Any) -> Any:
    """The form of a value: keys and kinds."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    if isinstance(value, bool) or value is None:
        return type(value).__name__
    return "number" if isinstance(value, int | float) else "text"


def differences(example: Any, real: Any, at: str = "$") -> list[str]:
    """Where a real output has another form; null, and an empty list, fit anything."""
    if at.endswith(BY_NAME):
        return [] if type(example) is type(real) else [f"{at}: {real!r}"]
    if isinstance(example, dict) and isinstance(real, dict):
        wrong = (
            [f"{at}: keys {sorted(example.keys() ^ real.keys())}"] if example.keys() != real.keys() else []
        )
        return wrong + [
            each
            for key in example.keys() & real.keys()
            for each in differences(example[key], real[key], f"{at}.{key}")
        ]
    if isinstance(example, list) and isinstance(real, list):
        return differences(example[0], real[0], f"{at}[]") if example and real else []
    if at.endswith(("seq", ".before")) or example is None or real is None or shape(example) == shape(real):
        return []
    return [f"{at}: {real!r} instead of something like {example!r}"]


def test_every_command_is_on_the_page():
    named = {command for commands, _ in sections() for command in commands}
    commands = {page.name for page in list_commands() if not page.is_group and page.name}
    with_json = {
        page.name for page in list_commands() if any("--json" in each.names for each in page.options)
    }

    assert commands - with_json == WITHOUT
    assert with_json - named == set(), "describe them in docs/reference/json.md"
    assert named - with_json == set(), "there are no such commands"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("json")


@pytest.fixture
def ask(couch: Any, couch_db: CouchDatabase, folder: Path) -> Callable[..., Any]:
    """Runs a command in one folder and decodes what it printed."""

    def run(*words: str) -> Any:
        done = subprocess.run(
            [*PILLOWD, *words, "--json"], cwd=folder, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    return run


def wary_of_nothing(config: Path) -> None:
    """Has a mirror write values into its columns even if they do not fit, which mirrors no longer do."""
    settings = yaml.safe_load(config.read_text())
    (pillow,) = settings["pillows"].values()
    pillow["transport"][0]["columns"] |= {"doc": "@ jsonb", "m": "m int"}
    config.write_text(yaml.safe_dump(settings))


@pytest.mark.usefixtures("password_known")
def test_outputs_have_the_documented_form(couch, couch_db, ask, folder):
    couch_db.fill(20, n=1)
    login = f"{couch.auth[0]}:{couch.auth[1]}@" if couch.auth else ""
    url = f"{couch.url.replace('://', f'://{login}')}/{couch_db.name}"
    mirror = ("mirror", url, "sqlite:///out.sqlite", "--name", "cases", "--once")
    wary_of_nothing(Path(ask(*mirror)["config"]))
    couch_db.put("bad", {"m": "no number"})  # not an integer: a dead letter
    outputs = {"mirror": ask(*mirror)}
    config = outputs["mirror"]["config"]

    def of(command: str, *words: str) -> None:
        outputs[command] = ask(*command.split(), *words, "--config", config)

    for command in ("status", "list"):
        of(command)
    of("check", "--connect")
    of("checkpoint list")
    for command in ("checkpoint get", "checkpoint history", "dead-letter list", "verify", "pause", "resume"):
        of(command, "cases")
    of("preview", "cases", "--id", "bad")
    of("dead-letter show", "cases", "bad")
    of("dead-letter retry", "cases", "bad")
    of("dead-letter discard", "cases", "--all")
    of("backfill start", "cases", "--prefix", "b")
    of("backfill retry", "cases", "--range", "1")
    of("backfill status", "cases")
    of("checkpoint export", "cases")
    (folder / "exported.json").write_text(json.dumps(outputs["checkpoint export"]))
    of("checkpoint import", "cases", "exported.json")
    of("checkpoint set", "cases", "0")
    of("checkpoint rewind", "cases", "--beginning")
    of("checkpoint reset", "cases")
    checkpoints = str(Path(config).parent / "checkpoints")
    outputs["store check"] = ask("store", "check", checkpoints)
    outputs["store repair"] = ask("store", "repair", checkpoints, "copy")

    examples = documented()
    wrong = {
        command: found
        for command, output in outputs.items()
        if (found := differences(examples.get(command), output) if command in examples else ["no example"])
    }
    assert wrong == {}
    # These only a running daemon can, and those of a search cluster.
    daemons = {"restart", "reload", "log-level", "tap", "backfill cancel"}
    rebuilds = {each for each in examples if each.startswith("rebuild ")}  # see test_rebuild.py
    several = {"databases"}  # see test_several_databases.py
    clusters = {"index list", "index remove"}
    assert examples.keys() - outputs.keys() == daemons | clusters | rebuilds | several

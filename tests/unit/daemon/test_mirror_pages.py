"""What is made from the commands and the models themselves: man page, completion, schema, modelines."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from daemon.cli.introspect import list_commands
from daemon.cli.man_page import escape, format_man_page
from daemon.config.schema import make_schema
from tests.acceptance.process import PILLOWD, ROOT

SCHEMA = ROOT / "etc" / "pillowd.schema.json"
EXAMPLES = sorted([*(ROOT / "etc").glob("*.yaml"), *(ROOT / "etc" / "pillows.d").glob("*.yaml")])


def test_the_man_page_has_every_command_and_option():
    text = format_man_page()

    for page in list_commands():
        assert escape(page.usage) in text
        for option in page.options:
            assert escape(option.names) in text


@pytest.mark.skipif(shutil.which("groff") is None, reason="there is no groff to read it")
def test_the_man_page_is_read_without_a_warning():
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-z"],
        input=format_man_page(),
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stderr == ""


def test_no_text_is_taken_for_a_macro():
    assert escape(".pillowd \\fB") == "\\&.pillowd \\efB"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell):
    done = subprocess.run([*PILLOWD, "completion", shell], capture_output=True, text=True, check=True)

    assert "_PILLOWD_COMPLETE" in done.stdout


def test_completion_completes():
    environ = {"_PILLOWD_COMPLETE": "bash_complete", "COMP_WORDS": "pillowd mirror --", "COMP_CWORD": "2"}

    done = subprocess.run([*PILLOWD], env=os.environ | environ, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert "plain,--state-dir" in done.stdout.splitlines()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_name_their_schema_and_fit_it(path: Path) -> None:
    first, _, _ = path.read_text().partition("\n")
    prefix = "# yaml-language-server: $schema="
    assert first.startswith(prefix)
    schema = path.parent / first.removeprefix(prefix)
    assert schema.resolve() == SCHEMA

    jsonschema.validate(yaml.safe_load(path.read_text()), make_schema())


def test_a_checkout_that_is_set_up_has_the_schema_that_the_examples_name():
    """It is made, not kept: kept, it would lag behind the models."""
    recipe = (ROOT / "Makefile").read_text()

    assert recipe.count(f"config schema > {SCHEMA.relative_to(ROOT)}") == 2
    listed = subprocess.run(
        ["git", "ls-files", str(SCHEMA)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert listed.stdout == ""


@pytest.mark.parametrize(
    "text",
    [
        "{version: 1, pilows: {}}",
        "{pillows: {a: {source: {connection: c}}}}",
        "{daemon: {}}",
        "{version: 1, checkpoints: {interval: 5}}",
    ],
)
def test_the_schema_refuses_mistakes(text: str):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), make_schema())

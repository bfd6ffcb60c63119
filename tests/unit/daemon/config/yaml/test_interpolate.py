"""`${...}` in values."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config.problems import ConfigErrors
from tests.support.configuration import ENVIRON, GOOD


def test_variables_become_the_type_that_is_asked_for(config):
    text = GOOD.replace("30s", "${WAIT}") + (
        '    enabled: "${ON:false}"\n    batch: { max_docs: "${DOCS}", max_bytes: "${SIZE:1KiB}" }\n'
    )
    loaded = config(text, ENVIRON | {"WAIT": "7s", "DOCS": "12"})
    assert loaded.daemon.shutdown_timeout == 7.0
    assert loaded.pillows["cases"].batch.max_docs == 12
    assert loaded.pillows["cases"].batch.max_bytes == 1024
    assert not loaded.pillows["cases"].enabled


def test_a_value_never_becomes_structure(config):
    """Text from outside is text, whatever YAML would make of it."""
    evil = "x, database: other }\nversion: 2\n# ${HOME} *a !!python/object:os.system"
    loaded = config(GOOD.replace("table: cases", 'table: "${NAME}"'), ENVIRON | {"NAME": evil})
    assert loaded.pillows["cases"].transport[0].outputs["cases"].table == evil


def test_secrets_come_from_files_and_credentials_without_the_last_newline(config, tmp_path):
    (tmp_path / "couch").write_text("top secret\n")
    for reference in ("${file:couch}", f"${{file:{tmp_path}/couch}}", "${credential:couch}"):
        loaded = config(
            GOOD.replace("${COUCH_PASSWORD}", reference), {"CREDENTIALS_DIRECTORY": str(tmp_path)}
        )
        password = loaded.connections["couch"].options.auth.password
        assert password.get_secret_value() == "top secret"
        assert "top secret" not in repr(loaded)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("a$${b}", "a${b}"),
        ("$$", "$$"),
        ("$b", "$b"),
        ("${A}-${B:x}", "1-x"),
        ("${B:}", ""),
        ("${B:a:b}", "a:b"),
        ("$${A}${A}", "${A}1"),
    ],
)
def test_interpolation(config, written, value):
    loaded = config(GOOD.replace("username: etl", f"username: '{written}'"), ENVIRON | {"A": "1"})
    assert loaded.connections["couch"].options.auth.username == value


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("${A", "`${` is not closed"),
        ("${}", "`${}` does not name a variable"),
        ("${a b}", "`${a b}` does not name a variable"),
        ("${A:${B}}", "is inside another"),
        ("${A:-x}", "write `${A:x}`, without it"),
        ("${credential:../x}", "is not a valid credential name"),
        ("${credential:}", "no credential"),
        ("${file:/}", "Is a directory"),
        ("${file:/dev/zero}", "larger than"),
    ],
)
def test_wrong_interpolation_is_a_problem(config, written, message):
    environ = ENVIRON if ":}" in written else ENVIRON | {"CREDENTIALS_DIRECTORY": "/tmp"}
    with pytest.raises(ConfigErrors) as raised:
        config(GOOD.replace("username: etl", f"username: '{written}'"), environ)
    (error,) = raised.value.problems
    assert message in str(error)
    assert (error.place.line, error.key) == (10, "connections.couch.auth.username")


def test_i3_the_generated_page_documents_the_syntax_that_is_read() -> None:
    """Every form of `${...}` on the page is accepted, and the shell's `:-` is not documented."""
    text = (Path(__file__).parents[5] / "docs" / "generate.py").read_text()
    assert "${VARIABLE:default}" in text
    assert ":-" not in text

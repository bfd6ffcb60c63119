"""A valid configuration as it is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config.load import find_admin_socket
from tests.support.configuration import GOOD


def test_entry_without_outputs_sets_the_first_output(config):
    pillow = config(GOOD).pillows["cases"]
    assert pillow.outputs == ("cases",)
    assert pillow.transport[0].name == "lite"
    assert pillow.transport[0].outputs["cases"].table == "cases"


def test_each_output_has_its_own_settings(config):
    long = """
    outputs: [cases, visits]
    transform: { python: "acme:rows" }
    transport:
      - connection: lite
        name: main
        outputs: { cases: { table: cases }, visits: { table: visits, many: true } }
"""
    entry = config(GOOD[: GOOD.index("    transport:")] + long).pillows["cases"].transport[0]
    assert entry.name == "main"
    assert {name: (o.table, o.many) for name, o in entry.outputs.items()} == {
        "cases": ("cases", False),
        "visits": ("visits", True),
    }


def test_the_settings_are_frozen(config):
    with pytest.raises(ValueError, match="frozen"):
        config(GOOD).daemon.shutdown_timeout = 1.0


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("250ms", 0.25), ("5s", 5.0), ("'10m'", 600.0), ("1h", 3600.0), ("1.5d", 129_600.0), ("2 s", 2.0)],
)
def test_durations_have_units(config, written, seconds):
    assert config(GOOD.replace("30s", written)).daemon.shutdown_timeout == seconds


def test_sizes_have_units(config):
    loaded = config(GOOD + "    batch: { max_bytes: 1.5MiB, max_docs: 10 }\n")
    assert loaded.pillows["cases"].batch.max_bytes == 1_572_864


def test_literal_secret_in_a_world_readable_file_is_a_warning(config, tmp_path):
    literal = GOOD.replace("${COUCH_PASSWORD}", "hunter2hunter2")
    (tmp_path / "pillowd.yaml").touch(mode=0o644)
    (warning,) = config(literal).warnings
    assert (warning.place.line, warning.key) == (10, "connections.couch.auth.password")
    assert "every user of this machine can read" in warning.message
    assert f"chmod o-r {tmp_path}/pillowd.yaml" in warning.remedy
    assert "hunter2" not in str(warning)
    assert not config(GOOD).warnings
    (tmp_path / "pillowd.yaml").chmod(0o640)
    assert not config(literal).warnings


def test_later_problem_names_the_line_that_was_written(config):
    loaded = config(GOOD)
    mistake = loaded.problem(("pillows", "cases", "source", "page"), "is odd", "mend it")
    assert (mistake.place.line, mistake.key) == (16, "pillows.cases.source.page")


@pytest.mark.parametrize(
    ("text", "socket"),
    [
        ("daemon: { admin: { listen: 'unix:/x/${NAME}.sock' } }\npillows: 7", "/x/a.sock"),
        ("daemon: { admin: { listen: 'unix:/x/${MISSING}.sock' } }", None),
        ("daemon: { admin: { listen: /x/a.sock } }", None),
        ("daemon: { admin: { listen: null } }", None),
        ("pillows: 7", "/run/p/admin.sock"),
        ("pillows: [", "/run/p/admin.sock"),
    ],
)
def test_the_admin_socket_is_found_whatever_else_is_wrong(
    tmp_path: Path, text: str, socket: str | None
) -> None:
    file = tmp_path / "pillowd.yaml"
    environ = {"NAME": "a", "RUNTIME_DIRECTORY": "/run/p"}
    assert find_admin_socket(file, environ) is None
    file.write_text(text)
    assert find_admin_socket(file, environ) == (socket and Path(socket))

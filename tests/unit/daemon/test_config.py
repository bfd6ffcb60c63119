"""Loading a configuration that is right: files, includes, units, defaults, interpolation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daemon.checks.functions import check_functions
from daemon.config.default_folders import find_default_folders
from daemon.config.load import load
from daemon.config.problems import ConfigErrors
from daemon.config.yaml_nodes import parse_yaml
from tests.unit.daemon.test_config_errors import ENVIRON, GOOD


@pytest.fixture
def config(tmp_path):
    """Loads text as `pillowd.yaml`, with other files beside it."""

    def load_text(text: str, environ: dict[str, str] | None = None, **files: str):
        for name, content in files.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.with_suffix(".yaml").write_text(content)
        (tmp_path / "pillowd.yaml").write_text(text)
        return load(tmp_path / "pillowd.yaml", ENVIRON if environ is None else environ)

    return load_text


def test_an_entry_without_outputs_sets_the_first_output_of_its_pillow(config):
    pillow = config(GOOD).pillows["cases"]
    assert pillow.outputs == ("cases",)
    assert pillow.transport[0].name == "lite"
    assert pillow.transport[0].outputs["cases"].table == "cases"


def test_outputs_have_settings_of_their_own(config):
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


# -- includes ------------------------------------------------------------------------------------


def part(name: str) -> str:
    transport = f"[{{ connection: lite, table: {name} }}]"
    source = f"{{ connection: couch, database: {name} }}"
    return f"pillows:\n  {name}:\n    source: {source}\n    transport: {transport}\n"


def test_included_files_are_read_in_order_relative_to_the_main_file(config):
    text = GOOD + "include: [parts/*.yaml]\n"
    loaded = config(text, parts__b=part("second"), parts__a=part("first"))
    assert list(loaded.pillows) == ["cases", "first", "second"]


def test_a_glob_without_a_match_is_no_mistake(config):
    assert list(config(GOOD + "include: [parts/*.yaml]\n").pillows) == ["cases"]


def test_a_file_that_two_globs_match_is_read_once(config):
    loaded = config(GOOD + "include: [parts/*.yaml, parts/a.yaml, '*.yaml']\n", parts__a=part("first"))
    assert set(loaded.pillows) == {"cases", "first"}


def test_connections_may_be_included_and_used_across_files(config):
    more = "version: 1\nconnections: { other: { type: sqlite, path: x.sqlite } }\n"
    text = GOOD.replace("connection: lite", "connection: other") + "include: [more.yaml]\n"
    assert config(text, more=more).pillows["cases"].transport[0].connection == "other"


def test_an_included_file_includes_no_others(config):
    with pytest.raises(ConfigErrors, match=r"more.yaml:1: include: an included file cannot include others"):
        config(GOOD + "include: [more.yaml]\n", more="include: [x.yaml]\n")


# -- scalars -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("250ms", 0.25), ("5s", 5.0), ("'10m'", 600.0), ("1h", 3600.0), ("1.5d", 129_600.0), ("2 s", 2.0)],
)
def test_durations_have_units(config, written, seconds):
    assert config(GOOD.replace("30s", written)).daemon.shutdown_timeout == seconds


def test_sizes_have_units(config):
    loaded = config(GOOD + "    batch: { max_bytes: 1.5MiB, max_docs: 10 }\n")
    assert loaded.pillows["cases"].batch.max_bytes == 1_572_864


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("off", "off"),
        ("010", "010"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("true", True),
        ("-12", -12),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("~", None),
        ("'12'", "12"),
        ("!!str 12", "12"),
        ('"\\ud83d\\ude00"', "\U0001f600"),
    ],
)
def test_scalars_are_what_yaml_1_2_says(text, value):
    node, mistakes = parse_yaml(f"key: {text}", "x.yaml")
    assert not mistakes
    assert node.to_plain() == {"key": value}


def test_merge_keys_and_aliases_work():
    node, mistakes = parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\n", "x.yaml")
    assert not mistakes
    assert node.to_plain() == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 1, "y": 2}}


def test_a_path_starts_at_the_file_that_names_it(config, tmp_path):
    text = GOOD + "include: [parts/*.yaml]\n"
    text = text.replace("  shutdown_timeout: 30s", "  state_dir: state\n  plugins_path: [plugins, /opt/x]")
    loaded = config(text)
    assert loaded.daemon.state_dir == tmp_path / "state"
    assert loaded.daemon.plugins_path == (tmp_path / "plugins", Path("/opt/x"))
    more = "connections: { other: { type: sqlite, path: other.sqlite } }\n"
    assert config(text, parts__a=more).connections["other"].options.path == tmp_path / "parts/other.sqlite"


def test_a_mapping_may_stand_in_a_file_of_its_own(config, tmp_path):
    (tmp_path / "cases.json").write_text(json.dumps({"properties": {"name": {"type": "text"}}}))
    text = GOOD.replace(
        "  lite:\n    type: sqlite\n    path: /var/lib/pillowd/reports.sqlite",
        "  search: { type: elasticsearch, hosts: ['http://es:9200'] }",
    ).replace("connection: lite, table: cases", "connection: search, index: cases, mapping: cases.json")
    output = config(text).pillows["cases"].transport[0].outputs["cases"]
    assert output.mapping == {"properties": {"name": {"type": "text"}}}
    (tmp_path / "cases.json").write_text('{"properties":\n  oops}')
    with pytest.raises(ConfigErrors, match=r":17: .*mapping: the file .*cases.json: line 2: Expecting value"):
        config(text)


# -- interpolation -------------------------------------------------------------------------------


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
def test_a_wrong_interpolation_is_a_mistake(config, written, message):
    environ = ENVIRON if ":}" in written else ENVIRON | {"CREDENTIALS_DIRECTORY": "/tmp"}
    with pytest.raises(ConfigErrors) as raised:
        config(GOOD.replace("username: etl", f"username: '{written}'"), environ)
    (error,) = raised.value.problems
    assert message in str(error)
    assert (error.place.line, error.key) == (10, "connections.couch.auth.username")


# -- defaults, warnings, functions ---------------------------------------------------------------


def test_default_folders():
    home = {"HOME": "/home/ann"}
    unit = {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "RUNTIME_DIRECTORY": "/run/a"}
    assert find_default_folders(home, uid=0) == (Path("/var/lib/pillowd"), Path("/run/pillowd"))
    assert find_default_folders(home | unit, uid=1000) == (Path("/var/lib/a"), Path("/run/a"))
    state = Path("/home/ann/.local/state/pillowd")
    assert find_default_folders(home, uid=1000) == (state, state)
    xdg = home | {"XDG_STATE_HOME": "/s", "XDG_RUNTIME_DIR": "/run/user/1000"}
    assert find_default_folders(xdg, uid=1000) == (Path("/s/pillowd"), Path("/run/user/1000/pillowd"))
    assert find_default_folders({}, uid=1000) == (Path("/var/lib/pillowd"), Path("/run/pillowd"))


def test_systemds_folders_are_the_defaults_and_what_is_written_wins(config):
    environ = ENVIRON | {"STATE_DIRECTORY": "/var/lib/x", "RUNTIME_DIRECTORY": "/run/x"}
    loaded = config(GOOD, environ).daemon
    assert (str(loaded.state_dir), loaded.control.listen) == ("/var/lib/x", "unix:/run/x/control.sock")
    written = GOOD.replace("30s", "30s\n  state_dir: /data\n  control: { listen: unix:/data/s }")
    loaded = config(written, environ).daemon
    assert (str(loaded.state_dir), str(loaded.control.path)) == ("/data", "/data/s")


def test_a_literal_secret_in_a_file_that_everybody_reads_is_a_warning(config, tmp_path):
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


def test_python_functions_are_imported_by_check_only(config, tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "acme_rows.py").write_text("def rows(document):\n    return document\n")
    (tmp_path / "plugins" / "acme_broken.py").write_text("raise RuntimeError('boom')\n")
    text = GOOD.replace("  shutdown_timeout: 30s", "  plugins_path: [plugins]")
    text = text.replace("{ jmespath: \"doc.doc_type == 'Case'\" }", "{ python: acme_broken:keep }")
    text += "    transform: { python: acme_rows:row }\n"
    wrong, similar = check_functions(config(text))
    assert (wrong.place.line, wrong.key) == (17, "pillows.cases.filter.python")
    assert "RuntimeError: boom" in wrong.message
    assert (similar.place.line, similar.key) == (20, "pillows.cases.transform.python")
    assert similar.remedy == "did you mean `acme_rows:rows`?"
    assert check_functions(config(text + "    enabled: false\n")) == []
    right = text.replace("acme_broken:keep", "acme_rows:rows").replace("rows:row }", "rows:rows }")
    assert check_functions(config(right)) == []


def test_a_later_mistake_can_name_the_line_of_what_was_written(config):
    loaded = config(GOOD)
    mistake = loaded.problem(("pillows", "cases", "source", "page"), "is odd", "mend it")
    assert (mistake.place.line, mistake.key) == (16, "pillows.cases.source.page")

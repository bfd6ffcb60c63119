"""Broken configurations: each mistake names its file, line and key path, and what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon.config.load import load
from daemon.config.problems import ConfigErrors
from tests.support.configuration import ENVIRON, GOOD


def broken(tmp_path: Path, text: str | bytes, **more: str) -> list[tuple[int, str, str, str]]:
    """Line, key path, message and remedy of every mistake in a file and those beside it."""
    file = tmp_path / "pillowd.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    for name, content in more.items():
        (tmp_path / f"{name}.yaml").write_text(content)
    with pytest.raises(ConfigErrors) as raised:
        load(file, ENVIRON)
    return [(e.place.line, e.key, e.message, e.remedy) for e in raised.value.problems]


def test_the_configuration_that_the_tests_break_is_valid(tmp_path):
    (tmp_path / "good.yaml").write_text(GOOD)
    assert list(load(tmp_path / "good.yaml", ENVIRON).pillows) == ["cases"]


CASES = {
    "unknown key with a similar one": (
        ("shutdown_timeout:", "shutdown_timout:"),
        (3, "daemon.shutdown_timout", "is not a known key", "did you mean `shutdown_timeout`?"),
    ),
    "unknown section": (
        ("logging:", "loging:"),
        (4, "loging", "is not a known key", "did you mean `logging`?"),
    ),
    "key given twice": (
        ("  format: json\n", "  format: json\n  format: console\n"),
        (6, "logging.format", "is given twice, on line 5 and on line 6", "keep one of the two"),
    ),
    "value that is not among the choices": (
        ("format: json", "format: jsno"),
        (5, "logging.format", "`jsno` is not one of the allowed values", "did you mean `json`?"),
    ),
    "duration without a unit": (
        ("30s", "30"),
        (3, "daemon.shutdown_timeout", "needs a number with a unit", "write 250ms, 5s"),
    ),
    "duration as a fraction without a unit": (
        ("30s", "0.5"),
        (3, "daemon.shutdown_timeout", "needs a number with a unit", "write 250ms, 5s"),
    ),
    "variable that is not set": (
        ("COUCH_PASSWORD", "COUCH_PASWORD"),
        (
            10,
            "connections.couch.auth.password",
            "the environment variable COUCH_PASWORD is not set",
            "did you mean `${COUCH_PASSWORD}`?",
        ),
    ),
    "secret file that is missing": (
        ("${COUCH_PASSWORD}", "${file:/nowhere/secret}"),
        (10, "connections.couch.auth.password", "No such file or directory", "create /nowhere/secret"),
    ),
    "credential without systemd": (
        ("${COUCH_PASSWORD}", "${credential:couch}"),
        (10, "connections.couch.auth.password", "CREDENTIALS_DIRECTORY is not set", "LoadCredential=couch:"),
    ),
    "tag of a union that chooses nothing": (
        ("type: session", "type: sesion"),
        (
            10,
            "connections.couch.auth.type",
            "`sesion` is not one of the allowed values",
            "did you mean `session`?",
        ),
    ),
    "tag of a union that is missing": (
        ("type: session, ", ""),
        (10, "connections.couch.auth.type", "is missing", "add `type:`, one of basic, session"),
    ),
    "missing key": (
        ("username: etl, ", ""),
        (10, "connections.couch.auth.username", "is missing", "add `username:`"),
    ),
    "password that YAML reads as a number": (
        ('"${COUCH_PASSWORD}"', "12345"),
        (10, "connections.couch.auth.password", "needs text", "quotes"),
    ),
    "type of connection that does not exist": (
        ("type: sqlite", "type: sqllite"),
        (12, "connections.lite.type", "there is no type `sqllite`", "did you mean `sqlite`?"),
    ),
    "type that YAML takes for nothing": (
        ("type: sqlite", "type: null"),
        (12, "connections.lite.type", "is empty", '"null" in quotes'),
    ),
    "unknown setting of a connection": (
        ("    path:", "    pth: x\n    path:"),
        (13, "connections.lite.pth", "is not a known key", "did you mean `path`?"),
    ),
    "unknown connection of a source": (
        ("connection: couch,", "connection: coach,"),
        (16, "pillows.cases.source.connection", "there is no connection `coach`", "did you mean `couch`?"),
    ),
    "source whose connection is no source": (
        ("connection: couch,", "connection: lite,"),
        (16, "pillows.cases.source.connection", "`lite` is of type sqlite, not a source", "couch"),
    ),
    "filter that is not valid JMESPath": (
        ("doc.doc_type ==", "doc.doc_type =="),
        (17, "pillows.cases.filter.jmespath", "is not valid JMESPath", "https://jmespath.org"),
    ),
    "unknown connection of a transport": (
        ("connection: lite,", "connection: light,"),
        (19, "pillows.cases.transport[0].connection", "no connection `light`", "did you mean `lite`?"),
    ),
    "unknown setting of an output": (
        ("table: cases }", "table: cases, colums: {} }"),
        (19, "pillows.cases.transport[0].colums", "is not a known key", "did you mean `columns`?"),
    ),
    "output without its place": (
        (", table: cases }", " }"),
        (19, "pillows.cases.transport[0].table", "is missing", "add `table:`"),
    ),
    "pillow without a transport (W13)": (
        ("    transport:\n      - { connection: lite, table: cases }\n", ""),
        (15, "pillows.cases.transport", "the pillow has no transport", "add `transport:`"),
    ),
    "pillow with an empty list of transports": (
        ("    transport:\n      - { connection: lite, table: cases }\n", "    transport: []\n"),
        (18, "pillows.cases.transport", "the pillow has no transport", "add `transport:`"),
    ),
    "name that cannot be one": (
        ("  cases:", "  my cases:"),
        (15, "pillows.my cases", "'my cases' is not a valid name", "use letters"),
    ),
    "version that is too new": (
        ("version: 1", "version: 2"),
        (1, "version", "is not a version that this pillowd reads", "write `version: 1`"),
    ),
    "version that is missing": (
        ("version: 1", ""),
        (2, "version", "is missing", "add `version: 1`"),
    ),
    "include that does not exist": (
        ("version: 1", "version: 1\ninclude: [pillow.yaml]"),
        (2, "include[0]", "there is no file pillow.yaml", "did you mean `pillowd.yaml`?"),
    ),
    "tab": (
        ("  shutdown_timeout", "\tshutdown_timeout"),
        (3, "", "a tab is used where YAML allows only spaces", "replace tabs by spaces"),
    ),
    "indentation": (
        ("  shutdown_timeout: 30s", "  shutdown_timeout: 30s\n    state_dir: /x"),
        (4, "", "a `:` is used where no key can be", "check the indentation"),
    ),
    "quote that is never closed": (
        ("table: cases }", "table: 'cases }"),
        (20, "", "a quote that is opened on line 19 is never closed", "close the quote"),
    ),
    "quote that another one closes": (
        ("format: json", 'format: "json'),
        (10, "", "the indentation does not fit the lines above", "is a quote above open?"),
    ),
    "braces in a flow mapping": (
        ('"${COUCH_PASSWORD}"', "${COUCH_PASSWORD}"),
        (10, "", "is not closed, or a `,` is missing", "put `${...}` into quotes"),
    ),
    "second document": (
        ("logging:", "---\nlogging:"),
        (4, "", "a second YAML document begins", "remove the `---` line"),
    ),
    "alias to nothing": (
        ("format: json", "format: *json"),
        (5, "", "names an anchor that does not exist", "quotes"),
    ),
    "tag that makes an object": (
        ("format: json", "format: !!python/object:os.system {}"),
        (5, "logging.format", "the tag !!python/object:os.system is not known here", "remove the tag"),
    ),
    "key without a value": (
        ("database: cases", "database:"),
        (16, "pillows.cases.source.database", "is empty", "give it a value, or remove the key"),
    ),
    "section without a value": (
        ("  format: json", "  # format: json"),
        (4, "logging", "is empty", "give it a value, or remove the key"),
    ),
    "mapping instead of a text": (
        ("database: cases", "database: { name: cases }"),
        (16, "pillows.cases.source.database", "needs text", "write a single value"),
    ),
    "number that is out of bounds": (
        ("database: cases", "database: cases, page: 0"),
        (16, "pillows.cases.source.page", "must be at least 100", "raise it"),
    ),
    "size without a unit": (
        ("database: cases", "database: cases, queue: 1000"),
        (16, "pillows.cases.source.queue", "needs a number with a unit", "write 512KiB"),
    ),
    "malformed function name": (
        ("jmespath: \"doc.doc_type == 'Case'\"", "python: acme.keep"),
        (17, "pillows.cases.filter.python", "is not a valid `module:function`", "write it as"),
    ),
    "filter in the server that would lose deletes": (
        ("database: cases", "database: cases, doc_ids: [a]"),
        (
            16,
            "pillows.cases.source",
            "needs `on_filtered: ignore` and `deletes: ignore`",
            "filter in pillowd",
        ),
    ),
    "list instead of a mapping": (
        ("  format: json", "  - format: json"),
        (4, "logging", "needs a mapping", "write `key: value`"),
    ),
}
CASES["filter that is not valid JMESPath"] = (
    ("doc.doc_type == 'Case'", "doc.doc_type =="),
    CASES["filter that is not valid JMESPath"][1],
)


@pytest.mark.parametrize(("change", "expected"), CASES.values(), ids=CASES)
def test_names_line_key_and_remedy(tmp_path, change, expected):
    assert change[0] in GOOD
    errors = broken(tmp_path, GOOD.replace(change[0], change[1], 1))
    line, path, message, remedy = expected
    found = next((e for e in errors if e[:2] == (line, path)), None)
    assert found, errors
    assert message in found[2]
    assert remedy in found[3]
    assert len(errors) == 1, errors


def test_names_every_problem_at_once(tmp_path):
    text = GOOD.replace("30s", "30").replace("json", "jsno").replace("couch,", "coach,")
    text = text.replace("table: cases", "x: 1, table: cases").replace(
        "version: 1", "version: 1\ninclude: [more.yaml]"
    )
    errors = broken(tmp_path, text, more="logging: {}\npillows: { other: { source: 5 } }\n")
    assert [e[1] for e in errors] == [
        "logging",
        "pillows.other.transport",
        "pillows.other.source",
        "daemon.shutdown_timeout",
        "logging.format",
        "pillows.cases.source.connection",
        "pillows.cases.transport[0].x",
    ]


def test_a_pillow_that_is_defined_in_two_files_names_both_places(tmp_path):
    other = "pillows:\n\n  cases:\n    source: { connection: couch, database: b }\n"
    (error,) = broken(tmp_path, GOOD.replace("1", "1\ninclude: [more.yaml]", 1), more=other)
    assert error[:2] == (3, "pillows.cases")
    assert error[2] == (
        f"is defined twice, in {tmp_path}/pillowd.yaml on line 16 and in {tmp_path}/more.yaml on line 3"
    )
    assert error[3] == "rename or remove one of the two"


def test_two_pillows_that_write_one_table_are_both_named(tmp_path):
    other = """
  others:
    source: { connection: couch, database: others }
    transport:
      - connection: lite
        table: cases
"""
    (error,) = broken(tmp_path, GOOD + other)
    assert error[:2] == (25, "pillows.others.transport[0]")
    assert error[2] == (
        "pillow `others` writes `cases` of connection `lite`, "
        f"which belongs to `cases` ({tmp_path}/pillowd.yaml line 19)"
    )
    assert error[3] == "give one of the two another place"


@pytest.mark.parametrize("no", ["false", "no", "${OFF:false}"])
def test_a_disabled_pillow_may_name_the_output_of_another(tmp_path, no):
    other = f"  old:\n    enabled: {no}\n" + GOOD[GOOD.index("    source: {") :]
    (tmp_path / "pillowd.yaml").write_text(GOOD + other)
    assert not load(tmp_path / "pillowd.yaml", ENVIRON).pillows["old"].enabled


def test_outputs_must_be_declared_and_exclude_settings_beside_them(tmp_path):
    wrong = "{ connection: lite, table: x, outputs: { visits: { table: visits } } }"
    errors = broken(tmp_path, GOOD.replace("{ connection: lite, table: cases }", wrong))
    assert [(e[0], e[1]) for e in errors] == [
        (19, "pillows.cases.transport[0].table"),
        (19, "pillows.cases.transport[0].outputs.visits"),
    ]
    assert "move it below one of the `outputs`" in errors[0][3]
    assert "not declared in the pillow's `outputs`" in errors[1][2]


def test_a_pillow_does_not_write_what_it_reads(tmp_path):
    text = GOOD.replace("connection: lite, table: cases", "connection: couch, database: cases")
    (error,) = broken(tmp_path, text)
    assert error == (
        19,
        "pillows.cases.transport[0]",
        "writes the database that it reads",
        "name another database",
    )


@pytest.mark.parametrize(
    ("outputs", "transform", "index", "message", "remedy"),
    [
        ("[a, b, a]", "x:y", 2, "`a` is declared twice", "remove one of the two"),
        ("[a, b, c]", "x:y", 2, "no transport writes the output `c`", "`outputs` of a transport"),
        ("[a, b]", None, 1, "nothing fills `b`", "add a `transform`"),
    ],
)
def test_every_output_is_filled_and_written(tmp_path, outputs, transform, index, message, remedy):
    text = GOOD.replace("    filter:", f"    outputs: {outputs}\n    filter:")
    text = text.replace("table: cases }", "outputs: { a: { table: a }, b: { table: b } } }")
    text += f"    transform: {{ python: '{transform}' }}\n" if transform else ""
    (error,) = broken(tmp_path, text)
    assert error[:2] == (17, f"pillows.cases.outputs[{index}]")
    assert message in error[2]
    assert remedy in error[3]


def test_two_transports_of_one_name(tmp_path):
    two = "{ connection: lite, table: cases }\n      - { connection: lite, table: copies }"
    (error,) = broken(tmp_path, GOOD.replace("{ connection: lite, table: cases }", two))
    assert error[1:3] == ("pillows.cases.transport", "two transports are called `lite`")
    assert "`name:`" in error[3]


def test_a_file_that_is_not_utf8_names_the_line(tmp_path):
    (error,) = broken(tmp_path, GOOD.encode().replace(b"etl", b"\xe9tl"))
    assert error == (10, "", "byte 0xe9 is not UTF-8", "save the file as UTF-8")


def test_a_control_character_names_the_line(tmp_path):
    (error,) = broken(tmp_path, GOOD.replace("etl", "e\x07tl"))
    assert error[0] == 10
    assert error[2] == "the character U+0007 is not allowed in YAML"


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null\n"])
def test_an_empty_file_misses_its_version(tmp_path, text):
    errors = broken(tmp_path, text)
    assert [(e[1], e[2], e[3]) for e in errors] == [("version", "is missing", "add `version: 1`")]


def test_a_missing_file_suggests_its_neighbour(tmp_path):
    (tmp_path / "pillowd.yaml").write_text(GOOD)
    with pytest.raises(ConfigErrors) as raised:
        load(tmp_path / "pilowd.yaml", ENVIRON)
    (error,) = raised.value.problems
    assert str(error).startswith(
        f"{tmp_path}/pilowd.yaml: there is no such file; did you mean `pillowd.yaml`?"
    )


def test_directory_is_not_a_file(tmp_path):
    with pytest.raises(ConfigErrors, match="is a directory; name a file"):
        load(tmp_path, ENVIRON)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    (tmp_path / "pillowd.yaml").touch(mode=0o000)
    with pytest.raises(ConfigErrors, match="may not be read; let the user that pillowd runs as read it"):
        load(tmp_path / "pillowd.yaml", ENVIRON)


def test_aliases_that_unfold_into_billions_are_refused(tmp_path):
    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    errors = broken(tmp_path, "\n".join(bomb))
    assert any("unfolds into more than 100000 values" in e[2] for e in errors)


def test_an_alias_inside_itself_is_refused(tmp_path):
    errors = broken(tmp_path, "daemon: &a { x: *a }")
    assert errors[0][:2] == (1, "daemon.x")
    assert "is inside the value that it names" in errors[0][2]


def test_deep_nesting_is_refused(tmp_path):
    (error,) = broken(tmp_path, "[" * 20_000)
    assert error[2:] == ("is nested too deeply", "make it flatter")


def test_an_error_shows_no_secret(tmp_path):
    """Neither a password in a URL nor a secret from a file appears in what is said about them."""
    secret = tmp_path / "secret"
    secret.write_text("tcp:hunter2hunter2\n")
    text = GOOD.replace("https://couch", "https://u:s3kr1t@couch")
    text = text.replace("30s", f"${{file:{secret}}}").replace("json", "${COUCH_PASSWORD}")
    file = tmp_path / "pillowd.yaml"
    file.write_text(text)
    with pytest.raises(ConfigErrors) as raised:
        load(file, ENVIRON)
    said = str(raised.value)
    assert len(raised.value.problems) == 3
    assert not any(word in said for word in ("hunter2", "s3kr1t", "correct horse"))


@pytest.mark.parametrize("password", ["s3kr1t/x", "s3kr1t#x", "12/s3kr1t", "12#s3kr1t", "s3kr1t?x"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("url: https://couch.example:6984", 'url: "https://u:PASSWORD@couch.example:6984"'),
        (
            "    type: sqlite\n    path: /var/lib/pillowd/reports.sqlite",
            '    type: elasticsearch\n    hosts: ["https://u:PASSWORD@es.example:9200"]',
        ),
        (
            "    type: sqlite\n    path: /var/lib/pillowd/reports.sqlite",
            '    type: postgres\n    dsn: "postgresql://u:PASSWORD@pg.example/db"',
        ),
        (
            "url: https://couch.example:6984",
            'url: ["https://a.example:6984", "https://u:PASSWORD@couch.example:6984"]',
        ),
        (
            "url: https://couch.example:6984",
            'url: https://c.example\n    auth: { type: iam, apikey: k, url: "https://u:PASSWORD@iam" }',
        ),
        (
            "    type: sqlite\n    path: /var/lib/pillowd/reports.sqlite",
            '    type: webhook\n    url: "https://u:PASSWORD@hook.example/in"',
        ),
    ],
    ids=["couchdb", "elasticsearch", "postgres", "nodes", "iam", "webhook"],
)
def test_d2_an_unescaped_password_is_refused_and_not_shown(tmp_path, password, old, new):
    if "postgres" in new and ("#" in password or "?" in password):
        pytest.skip("libpq reads it as meant")
    assert old in GOOD
    errors = broken(tmp_path, GOOD.replace(old, new.replace("PASSWORD", password)))
    assert any("%2F" in remedy for *_, remedy in errors), errors
    assert "s3kr1t" not in str(errors)


def test_text_has_one_line_for_each_problem(tmp_path):
    (tmp_path / "x.yaml").write_text(GOOD.replace("30s", "30").replace("json", "jsno"))
    with pytest.raises(ConfigErrors) as raised:
        load(tmp_path / "x.yaml", ENVIRON)
    heading, first, second = str(raised.value).splitlines()
    assert heading == "2 problems in the configuration:"
    assert first.startswith(
        f"  {tmp_path}/x.yaml:3: daemon.shutdown_timeout: needs a number with a unit; write"
    )
    assert second.startswith(f"  {tmp_path}/x.yaml:5: logging.format: `jsno` is not one of")

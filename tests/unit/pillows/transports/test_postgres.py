"""What PostgreSQL's transport decides without a server: verdicts, escapes, options."""

from __future__ import annotations

import json

import msgspec
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pillows.errors import AccessError, ConfigError, PermanentError, RetryableError
from pillows.models import DocumentRows
from pillows.transports.common.columns import parse_columns
from pillows.transports.postgres.encoder import (
    encode_absence,
    encode_head,
    encode_rows,
    from_storable,
    to_storable,
    to_storable_json,
)
from pillows.transports.postgres.errors import SqlstateVerdict, classify_sqlstate, to_pillow_error
from pillows.transports.postgres.options import PostgresConnection, PostgresOutput

# Real SQLSTATEs (PostgreSQL docs, "PostgreSQL Error Codes").
VERDICTS = {
    "08006": SqlstateVerdict.RETRY,  # connection failure
    "0A000": SqlstateVerdict.CONFIG,  # feature not supported
    "22003": SqlstateVerdict.DEAD,  # numeric value out of range
    "22P02": SqlstateVerdict.DEAD,  # invalid text representation
    "22P05": SqlstateVerdict.DEAD,  # untranslatable character
    "23505": SqlstateVerdict.DEAD,  # unique violation
    "25006": SqlstateVerdict.RETRY,  # read-only transaction
    "25P02": SqlstateVerdict.CONFIG,  # in failed transaction: a mistake of ours
    "28P01": SqlstateVerdict.ACCESS,  # invalid password
    "28000": SqlstateVerdict.ACCESS,  # no entry in pg_hba.conf
    "3D000": SqlstateVerdict.CONFIG,  # no such database
    "40001": SqlstateVerdict.RETRY,  # serialization failure
    "40P01": SqlstateVerdict.RETRY,  # deadlock
    "42501": SqlstateVerdict.CONFIG,  # insufficient privilege
    "42703": SqlstateVerdict.CONFIG,  # undefined column
    "42P01": SqlstateVerdict.CONFIG,  # undefined table
    "53100": SqlstateVerdict.RETRY,  # disk full
    "53200": SqlstateVerdict.RETRY,  # out of memory
    "53300": SqlstateVerdict.RETRY,  # too many connections
    "54000": SqlstateVerdict.DEAD,  # program limit exceeded
    "55P03": SqlstateVerdict.RETRY,  # lock not available
    "57014": SqlstateVerdict.RETRY,  # statement timeout
    "57P01": SqlstateVerdict.RETRY,  # administrator's shutdown
    "57P03": SqlstateVerdict.RETRY,  # starting up
    "P0001": SqlstateVerdict.DEAD,  # a trigger's raise
    "XX000": SqlstateVerdict.RETRY,  # internal error
}


@pytest.mark.parametrize(("sqlstate", "expected"), VERDICTS.items())
def test_the_sqlstate_decides(sqlstate: str, expected: SqlstateVerdict) -> None:
    assert classify_sqlstate(sqlstate) is expected


def test_an_error_without_a_sqlstate_is_a_lost_connection_or_a_mistake() -> None:
    assert isinstance(to_pillow_error(psycopg.OperationalError("the connection is closed")), RetryableError)
    assert isinstance(to_pillow_error(psycopg.InterfaceError("the connection is closed")), RetryableError)
    assert isinstance(to_pillow_error(psycopg.ProgrammingError("wrong number of parameters")), ConfigError)


def test_f4_what_libpq_asks_the_reader_is_left_out() -> None:
    said = (
        'connection to server at "db", port 9 failed: Connection refused\n'
        "\tIs the server running on that host and accepting TCP/IP connections?\n"
        'connection to server at "db2", port 9 failed: timeout expired\n'
    )
    assert str(to_pillow_error(psycopg.OperationalError(said))) == (
        'PostgreSQL: connection to server at "db", port 9 failed: Connection refused; '
        'connection to server at "db2", port 9 failed: timeout expired.'
    )


def test_a_refused_connection_is_judged_by_what_was_traced() -> None:
    error = psycopg.OperationalError("Passwort-Authentifizierung fehlgeschlagen")
    assert isinstance(to_pillow_error(error, sqlstate="28P01"), AccessError)
    assert isinstance(to_pillow_error(error, sqlstate="53300"), RetryableError)
    assert isinstance(to_pillow_error(error), RetryableError)


# ---------------------------------------------------------------------- U+0000


texts = st.text(st.sampled_from('\0\x01\x02\\u01"a\n\u2028é'), max_size=12) | st.text(max_size=12)


@given(texts)
def test_a_storable_text_has_no_nul_and_can_be_restored(text: str) -> None:
    assert "\0" not in to_storable(text)
    assert from_storable(to_storable(text)) == text


@given(st.dictionaries(texts, st.lists(texts, max_size=3), max_size=4), st.booleans())
def test_storable_json_says_the_same_of_every_string(value: dict[str, list[str]], escaped: bool) -> None:
    stored = json.loads(to_storable_json(json.dumps(value, ensure_ascii=escaped).encode()))
    assert stored == {to_storable(key): [to_storable(text) for text in texts] for key, texts in value.items()}


def test_json_without_the_two_characters_is_not_touched() -> None:
    raw = b'{"a": "\\u0000"}'.replace(b"\\u0000", b"\\\\u0000 \\u0010 \\n")
    assert to_storable_json(raw) == raw
    plain = b'{"a": 1}'
    assert to_storable_json(plain) is plain


# ---------------------------------------------------------------------- lines of COPY


def copied(line: bytes) -> list[str | None]:
    """Reads a line as COPY does (PostgreSQL docs, "COPY", File Formats)."""
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    known = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
    fields: list[str | None] = []
    for field in line.decode()[:-1].split("\t"):
        if field == "\\N":
            fields.append(None)
            continue
        parts = iter(field)
        fields.append("".join(known[next(parts)] if part == "\\" else part for part in parts))
    return fields


def whole(id: str, rev: str = "1-a") -> DocumentRows:
    return DocumentRows(id=id, rev=rev, leaf_version=1, rows={})


@given(texts.filter(bool), texts, st.dictionaries(texts, texts, max_size=3))
def test_a_line_says_what_was_written(id: str, rev: str, body: dict[str, str]) -> None:
    for row in (body, msgspec.Raw(json.dumps(body, indent=1).encode())):
        [line] = encode_rows(encode_head(whole(id, rev), 7), [row], (), many=False)
        stored_id, stored_rev, version, doc = copied(line)
        assert (stored_id, stored_rev, version) == (to_storable(id), to_storable(rev), "7")
        assert json.loads(doc or "") == {to_storable(k): to_storable(v) for k, v in body.items()}


def test_values_of_columns_are_written_as_postgresql_reads_them() -> None:
    columns = parse_columns(
        {
            name: f"{name} {type}"
            for name, type in {"a": "text", "b": "jsonb", "c": "text[]", "d": "int"}.items()
        }
    )
    row = {"a": True, "b": {"x": None}, "c": ['q"\\', None, ["n"], {"k": 1}], "d": None}
    [line] = encode_rows(b"", [row], columns, many=False)
    assert copied(line) == ["true", '{"x":null}', '{"q\\"\\\\",NULL,{"n"},"{\\"k\\":1}"}', None]
    [line] = encode_rows(b"", [{"a": [1], "b": None, "c": [], "d": 10**30}], columns, many=False)
    assert copied(line) == ["[1]", None, "{}", "1" + "0" * 30]


def test_a_document_without_rows_has_a_line_of_nulls() -> None:
    head = encode_head(whole("a"), 5)
    assert copied(encode_absence(head, ())) == ["a", "1-a", "5", None]
    assert copied(encode_absence(head, parse_columns({"x": "x int", "y": "y int"}))) == [
        "a",
        "1-a",
        "5",
        None,
        None,
    ]


def test_two_rows_need_a_table_that_takes_many() -> None:
    rows = [{"n": 1}, {"n": 2}]
    with pytest.raises(PermanentError, match="many: true"):
        encode_rows(b"", rows, (), many=False)
    assert len(encode_rows(b"", rows, (), many=True)) == 2


def test_half_of_a_surrogate_pair_is_no_text() -> None:
    with pytest.raises(PermanentError, match="surrogate"):
        encode_head(whole("\ud800"), 1)
    with pytest.raises(PermanentError, match="surrogate"):
        encode_rows(b"", [{"a": "\ud800"}], parse_columns({"a": "a text"}), many=False)


# ---------------------------------------------------------------------- options


@pytest.mark.parametrize("name", ["", "  ", "x" * 64, "ü" * 32, "a\0b"])
def test_a_name_that_the_server_would_cut_or_refuse_is_refused(name: str) -> None:
    for bad in ({"table": name}, {"table": "t", "schema": name}, {"table": "t", "columns": {name: "a text"}}):
        with pytest.raises(ValidationError):
            PostgresOutput.model_validate(bad)


def test_schema_is_written_schema() -> None:
    assert PostgresOutput.model_validate({"table": "t", "schema": "s"}).schema_ == "s"
    assert PostgresConnection.model_validate({"dsn": "host=x", "schema": "s"}).schema_ == "s"
    assert PostgresConnection.model_validate({"dsn": "host=x"}).schema_ == "public"

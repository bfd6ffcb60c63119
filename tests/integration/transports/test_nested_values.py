"""A list or an object in a text column is its JSON text, the same in every SQL target."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pillows.transports.common.columns import TableOutput
from pillows.transports.postgres.options import PostgresOutput
from pillows.transports.postgres.transport import PostgresTransport
from pillows.transports.sqlite.options import SqliteConnection
from pillows.transports.sqlite.transport import SqliteTransport
from tests.conformance.target import KEY, at, batch, document
from tests.integration.transports.postgres_database import options

VALUES = {
    "list": ["a", 'b"', "c\\", None, 1, 1.5, True],
    "empty": [],
    "nested": [["x"], [{"y": [2]}]],
    "object": {"b": 1, "a": [None]},
    "texts": ["ü", "名前", "\n\t", "{}"],
    "tuple": ("a", 1),
}
#: Types of columns that hold text.
TYPES = {"text": "text", "varchar(4000)": "varchar"}


@pytest.mark.parametrize("raw", [True, False], ids=["as CouchDB sent it", "from a transform"])
def test_a5_a_list_in_a_text_column_is_json_text_in_both(
    tmp_path: Path, postgres_dsn: str, raw: bool
) -> None:
    """PostgreSQL got `{"a","b"}`, an array of its own; objects became JSON."""
    documents = [
        document(id, 1, msgspec.json.encode({"v": value}) if raw else {"v": value})
        for id, value in VALUES.items()
    ]
    stored = write(tmp_path, postgres_dsn, documents)
    expected = {id: msgspec.json.encode(value).decode() for id, value in VALUES.items()}
    assert stored == dict.fromkeys(stored, expected)
    assert len(stored) == 3


def test_a5_any_nested_value_is_the_same_text_in_both(tmp_path: Path, postgres_dsn: str) -> None:
    texts = st.text(st.characters(codec="utf-8", exclude_characters="\0\1"), max_size=8)
    scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    values = st.recursive(
        scalars | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=6,
    )

    @settings(
        max_examples=3,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    @given(drawn=st.lists(st.lists(values, max_size=3), min_size=60, max_size=90))
    def compare(drawn: list[Any]) -> None:
        documents = [document(f"{n:03}", 1, {"v": value}) for n, value in enumerate(drawn)]
        stored = write(tmp_path, postgres_dsn, documents)
        texts = {f"{n:03}": msgspec.json.encode(value).decode() for n, value in enumerate(drawn)}
        assert stored == dict.fromkeys(stored, texts)

    compare()


def write(folder: Path, dsn: str, documents: list[Any]) -> dict[str, dict[str, str]]:
    """Write documents into both targets; return what each column has of each."""
    (folder / "db").unlink(missing_ok=True)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("drop table if exists nested, pillowd_document, pillowd_checkpoint")
    columns = {f"c{n}": f"v {type}" for n, type in enumerate(TYPES)}
    postgres = PostgresTransport(
        "p", KEY, options(dsn), {"docs": PostgresOutput(table="nested", columns=columns)}
    )
    table = TableOutput(table="nested", columns={"c": "v text"})
    sqlite = SqliteTransport("s", KEY, SqliteConnection(path=folder / "db"), {"docs": table})
    for transport in (postgres, sqlite):
        with closing(transport):
            transport.open()
            transport.acquire(at("0"))
            result = transport.write(batch(*documents))
            assert not result.dead, result.dead
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("select _id, c0, c1 from nested").fetchall()
    with closing(sqlite3.connect(folder / "db")) as db:
        found = dict(db.execute("select _id, c from nested"))
    return {
        "text": {id: text for id, text, _ in rows},
        "varchar": {id: text for id, _, text in rows},
        "sqlite": found,
    }

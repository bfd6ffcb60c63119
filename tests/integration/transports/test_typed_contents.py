"""Rows in columns of every type are compared as the target stores them: what was written never differs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pillows.transports.base import KeyedTransport
from pillows.transports.common.columns import TableOutput
from pillows.transports.postgres.options import PostgresOutput
from pillows.transports.postgres.transport import PostgresTransport
from pillows.transports.sqlite.options import SqliteConnection
from pillows.transports.sqlite.transport import SqliteTransport
from tests.conformance.target import KEY, at, batch, document
from tests.integration.transports.postgres_database import options
from tests.support.sizes import size

#: Column -> its type in PostgreSQL, in SQLite, and values that are surely written.
_small = st.floats(-1e6, 1e6) | st.integers(-(10**6), 10**6)
_texts = st.text(st.characters(codec="utf-8"), max_size=12)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=6,
)
_moments = st.datetimes().map(lambda moment: moment.isoformat())
COLUMNS: Mapping[str, tuple[str, str, st.SearchStrategy[Any]]] = {
    "scaled": ("numeric(12,2)", "real", _small),
    "digits": ("numeric", "any", _small),
    "single": ("real", "real", _small),
    "double": ("double precision", "double", st.floats(allow_nan=False, allow_infinity=False)),
    "whole": ("bigint", "bigint", st.integers(-(2**63), 2**63 - 1)),
    "moment": ("timestamptz", "timestamptz", _moments),
    "cut": ("timestamp(2)", "timestamp", _moments),
    "day": ("date", "date", st.dates().map(str)),
    "span": ("interval", "text", st.integers(0, 10**6).map(lambda n: f"{n} seconds")),
    "words": ("text", "text", _texts | st.lists(_texts, max_size=2)),
    "fixed": ("char(14)", "text", _texts),
    "list": ("text[]", "json", st.lists(_texts, max_size=3)),
    "tree": ("jsonb", "jsonb", _json),
    "text_tree": ("json", "json", _json),
    "flag": ("boolean", "boolean", st.booleans()),
    "net": ("inet", "text", st.ip_addresses().map(str)),
    "point": ("point", "text", st.just("(1.50,2)")),
}
rows = st.fixed_dictionaries({}, optional={name: values for name, (_, _, values) in COLUMNS.items()})
_UNIQUE = count()


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_i6_typed_rows_drawn_at_random_are_not_altered_unless_they_are(
    kind: str, tmp_path: Path, postgres_dsn: str
) -> None:
    def build() -> KeyedTransport:
        place = 0 if kind == "postgres" else 1
        columns = {name: f"{name} {each[place]}" for name, each in COLUMNS.items()}
        if kind == "postgres":
            outputs: Any = {
                name: PostgresOutput(table=name, columns=columns, many=name == "lines")
                for name in ("docs", "lines")
            }
            return PostgresTransport("typed", KEY, options(postgres_dsn), outputs)
        outputs = {
            name: TableOutput(table=name, columns=columns, many=name == "lines") for name in ("docs", "lines")
        }
        return SqliteTransport("typed", KEY, SqliteConnection(path=tmp_path / "db"), outputs)

    with ExitStack() as stack:
        writer, reader = (stack.enter_context(closing(build())) for _ in range(2))
        writer.open()
        writer.acquire(at("0"))
        compared = list[str]()

        @settings(
            max_examples=size(ci=40, proof=2000),
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        )
        @given(one=rows, lines=st.lists(rows, min_size=1, max_size=3))
        def compare(one: dict[str, Any], lines: list[dict[str, Any]]) -> None:
            id = str(next(_UNIQUE))
            written = document(id, 1, one, lines=lines)
            if writer.write(batch(written)).dead:  # a value too many for its column
                return
            for output in ("docs", "lines"):
                assert reader.find_altered(output, [written]) == set()
            other = {"whole": 7 if one.get("whole") != 7 else 8}
            altered = document(
                id, 1, one | other, lines=[*lines[:-1], lines[-1] | {"flag": None, "whole": -7}]
            )
            assert reader.find_altered("docs", [altered]) == {id}
            if (lines[-1].get("flag"), lines[-1].get("whole")) != (None, -7):
                assert reader.find_altered("lines", [altered]) == {id}
            compared.append(id)

        compare()
    assert len(compared) > 20

"""Nothing of a document in the dead letters that real targets and user code give reason for.

Each document carries a canary, a text that nothing else has, in places that do not fit the target.
"""

from __future__ import annotations

import random
import re
import sqlite3
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from pillows.dead_letters.dead_letter import make_dead_letter
from pillows.delivery.batch_delivery import list_dead_letters
from pillows.models import Change, DocumentRows, TransportResult
from pillows.pillow import Pillow
from pillows.stages.filters import KeepAll, PythonFilter
from pillows.stages.transforms import PassThrough, PythonTransform
from pillows.transports.base import Transport
from pillows.transports.common.search.options import SearchOutput
from pillows.transports.elasticsearch.options import ElasticsearchConnection
from pillows.transports.elasticsearch.transport import ElasticsearchTransport
from pillows.transports.postgres.options import PostgresOutput
from pillows.transports.postgres.transport import PostgresTransport
from pillows.transports.sqlite.options import SqliteConnection, SqliteOutput
from pillows.transports.sqlite.transport import SqliteTransport
from tests.conformance.target import KEY, at, batch, document
from tests.integration.transports.postgres_database import options
from tests.support.sizes import size

COUNT = size(ci=150, proof=5000)
TYPES = {
    "i": "i integer",
    "s": "s smallint",
    "d": "d date",
    "ts": "ts timestamptz",
    "b": "b boolean",
    "u": "u uuid",
    "n": "n numeric(4,2)",
    "v": "v varchar(3)",
    "a": "a int[]",
    "net": "net inet",
    "j": "j jsonb",
    "guarded": "guarded text",
    "checked": "checked text",
}
SQLITE_TYPES = {"i": "i integer", "d": "d real", "b": "b boolean", "j": "j jsonb", "guarded": "guarded text"}
MAPPING: Mapping[str, Any] = {
    "dynamic": "strict",
    "properties": {
        "i": {"type": "integer"},
        "s": {"type": "byte"},
        "d": {"type": "date", "format": "yyyy-MM-dd"},
        "b": {"type": "boolean"},
        "u": {"type": "ip"},
        "n": {"type": "geo_point"},
        "v": {"type": "keyword"},
        "a": {"type": "date_range"},
        "j": {"type": "object", "properties": {"k": {"type": "long"}}},
    },
}
TRIGGER = """
    create function guard_it() returns trigger language plpgsql as $$
    begin
        if new.guarded is not null then
            raise exception 'never: %', new.guarded using errcode = case length(new.guarded) % 3
                when 0 then 'P0001' when 1 then '23514' else '38000' end;
        end if;
        return new;
    end $$;
    create trigger guard before insert or update on odd for each row execute function guard_it();
    alter table odd add constraint short check (length(checked) < 3);
    alter table odd add constraint once unique (v);
"""


SHAPES = ["?", "?'", '"?"', "(?)", "[?]", "?\n?", "ä?ö", "x" * 400 + "?", "? = 5"]


class Canaries:
    """Documents that do not fit, each with a canary."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def text(self) -> str:
        letters = "".join(self._random.choices(string.ascii_letters, k=12))
        shape = self._random.choice(SHAPES)
        return shape.replace("?", letters)

    def value(self) -> Any:
        return self._random.choice(
            [
                self.text,
                self.text,
                lambda: self._random.randrange(10**11, 10**17),
                lambda: -self._random.randrange(10**11, 10**17) / 7,
                lambda: [self.text()],
                lambda: {"k": self.text()},
                lambda: [{"k": [self.text()]}],
                lambda: self.text() * 3000,
            ]
        )()

    def documents(self, names: Sequence[str], output: str) -> Iterator[DocumentRows]:
        for number in range(COUNT):
            fields = self._random.sample(names, self._random.randint(1, 2))
            yield document(f"doc{number}", 1, {name: self.value() for name in fields}, output=output)


def canaries_in(value: Any) -> Iterator[str]:
    """Pieces of the values that no text of ours can have."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from canaries_in(each)
    elif isinstance(value, str):
        yield ", ".join(map(str, value[:6].encode()))  # as Elasticsearch shows a text that is too long
        yield from (word[:8] for word in re.findall("[A-Za-z]{8,}", value) if set(word) != {"x"})
    else:
        yield str(abs(value))[:9]


def check(
    transport: Transport, names: Sequence[str], seed: int, prepare: Callable[[], None] | None = None
) -> int:
    """Write documents that do not fit; return how many became dead letters, none with a piece of a value."""
    documents = list(Canaries(seed).documents(names, "docs"))
    with closing(transport):
        transport.open()
        transport.acquire(at("0"))
        if prepare is not None:
            prepare()
        written = batch(*documents)
        result = transport.write(written)
    letters = list_dead_letters(KEY, written, {"t": TransportResult(refused={}, dead=result.dead)})
    rows = {each.id: each.rows["docs"][0] for each in documents}
    for letter in letters:
        assert letter.error
        found = [piece for piece in canaries_in(rows[letter.id]) if piece in letter.error]
        assert not found, (letter.error, rows[letter.id])
    return len(letters)


def test_b8_postgresql_quotes_nothing_of_a_document(postgres_dsn: str) -> None:
    def prepare() -> None:
        with psycopg.connect(postgres_dsn, autocommit=True) as connection:
            connection.execute(TRIGGER.encode())

    output = PostgresOutput(table="odd", columns=TYPES)
    transport = PostgresTransport("t", KEY, options(postgres_dsn), {"docs": output})
    assert check(transport, list(TYPES), 1, prepare) > COUNT / 2


def test_b8_a_trigger_in_postgresql_is_named_by_its_place(postgres_dsn: str) -> None:
    output = PostgresOutput(
        table="odd", columns={"guarded": "guarded text", "checked": "c text", "v": "v text"}
    )
    transport = PostgresTransport("t", KEY, options(postgres_dsn), {"docs": output})
    with closing(transport), psycopg.connect(postgres_dsn, autocommit=True) as connection:
        transport.open()
        transport.acquire(at("0"))
        connection.execute(TRIGGER.encode())
        result = transport.write(batch(document("a", 1, {"guarded": "078"})))
    assert result.dead == {"a": "guard_it() (line 4) raised an error (SQLSTATE P0001)"}


def test_b8_sqlite_quotes_nothing_of_a_document(tmp_path: Path) -> None:
    def prepare() -> None:
        with closing(sqlite3.connect(tmp_path / "t.db", isolation_level=None)) as database:
            database.execute(
                "create trigger guard before insert on odd when new.guarded is not null"
                " begin select raise(abort, 'never'); end"
            )

    output = SqliteOutput(table="odd", columns=SQLITE_TYPES)
    transport = SqliteTransport("t", KEY, SqliteConnection(path=tmp_path / "t.db"), {"docs": output})
    assert check(transport, list(SQLITE_TYPES), 2, prepare) > COUNT / 2


def test_b8_elasticsearch_quotes_nothing_of_a_document(elasticsearch_url: str, es_prefix: str) -> None:
    output = SearchOutput(index=f"{es_prefix}odd", mapping=MAPPING)
    connection = ElasticsearchConnection(hosts=[elasticsearch_url])
    transport = ElasticsearchTransport("t", KEY, connection, {"docs": output})
    names = [*MAPPING["properties"], "unmapped"]
    assert check(transport, names, 3) > COUNT / 2


def test_b8_what_a_receiver_says_of_a_document_quotes_nothing_of_it() -> None:
    """A webhook's answer, a validation function's, a transport of one's own: any words, with the document."""
    documents = list(Canaries(5).documents(["a", "b"], "docs"))
    said = {each.id: f"refused: {msgspec.json.encode(each.rows['docs'][0]).decode()}" for each in documents}
    letters = list_dead_letters(KEY, batch(*documents), {"t": TransportResult(refused={}, dead=said)})
    assert len(letters) == COUNT
    for letter, each in zip(letters, documents, strict=True):
        assert letter.error.startswith("refused: {")
        found = [piece for piece in canaries_in(each.rows["docs"][0]) if piece in letter.error]
        assert not found, letter.error


def test_b8_user_code_in_each_place_of_a_pipeline_quotes_nothing() -> None:
    def raising(subject: Any, *_: Any) -> Any:
        document = subject.doc if isinstance(subject, Change) else subject
        try:
            return dict[str, Any]()[str(document)]
        except KeyError as error:
            raise ValueError(f"because of {document}") from error

    places: dict[str, dict[str, Any]] = {
        "filter": {"filter": PythonFilter(raising)},
        "trigger": {"extract": raising},
        "transform": {"transform": PythonTransform(raising, ["docs"])},
    }
    plain: dict[str, Any] = {"filter": KeepAll(), "transform": PassThrough(["docs"])}
    for stage, place in places.items():
        pillow = Pillow(name="p", outputs=["docs"], **(plain | place))
        for each in Canaries(4).documents(["a", "b"], "docs"):
            (row,) = each.rows["docs"]
            raw = msgspec.Raw(msgspec.json.encode(row))
            change = Change(id=each.id, revs=("1-a",), leaf_version=1, raw=raw)
            trigger = pillow.trigger(lambda _: pytest.fail("fetched"), lambda *_: None)
            try:
                if pillow.filter(change):
                    pillow.transform(trigger(change))
            except ValueError as error:
                letter = make_dead_letter(KEY, change, stage, error)
            assert letter.error.startswith("ValueError (")
            assert not [piece for piece in canaries_in(row) if piece in letter.error], letter.error

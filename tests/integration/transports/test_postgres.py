"""What PostgreSQL's transport promises beyond the conformance suite: tables, types, values, first passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import gevent
import msgspec
import psycopg
import pytest

from checkpoints import TailKey
from pillows.errors import ConfigError
from pillows.models import Batch, WriteResult, write_version
from pillows.transports.postgres.options import PostgresOutput
from pillows.transports.postgres.transport import PostgresTransport
from tests.conformance.steps import assert_applied, opened, rows
from tests.conformance.target import KEY, at, batch, document, gone
from tests.integration.transports.postgres_database import PostgresDatabase, options
from tests.support.sizes import size


@pytest.fixture
def database(postgres_dsn: str) -> PostgresDatabase:
    return PostgresDatabase(postgres_dsn)


@contextmanager
def running(database: PostgresDatabase, **outputs: PostgresOutput) -> Iterator[PostgresTransport]:
    """A claimed transport with these outputs."""
    transport = PostgresTransport("warehouse", KEY, options(database.dsn), outputs)
    try:
        transport.open()
        transport.acquire(at("0"))
        yield transport
    finally:
        transport.close()


def check(database: PostgresDatabase, **outputs: PostgresOutput) -> None:
    """Opens a transport with these outputs, and closes it."""
    with running(database, **outputs):
        pass


def mapped(table: str = "cases", **columns: str) -> PostgresOutput:
    return PostgresOutput(table=table, columns=columns)


# ---------------------------------------------------------------------- names, types and values


def test_names_may_be_any_text(database: PostgresDatabase) -> None:
    columns = {
        "user": "user text",
        'a"b': "quote text",
        "per cent %s %": "percent text",
        "Größe {0}": "size int",
    }
    output = PostgresOutput(table='select "%d" {x}', schema="order", columns=columns)
    child = PostgresOutput(table="table", schema="order", columns={"end": "end text"}, many=True)
    row = {"user": "u", "quote": "q", "percent": "p", "size": 5}
    with running(database, docs=output, lines=child) as transport:
        both = document("a", 1, row, lines=[{"end": "1"}, {"end": "2"}])
        assert_applied(transport.write(batch(both, document("b", 1, row))))
        assert_applied(transport.write(batch(document("a", 2, row, lines=[{"end": "3"}]), gone("b", 2))))
        assert transport.finish_pass(1) == 0
    check(database, docs=output, lines=child)
    found = database.query('select * from "order"."select ""%%d"" {x}"')
    assert [(r["_id"], r["user"], r['a"b'], r["per cent %s %"], r["Größe {0}"]) for r in found] == [
        ("a", "u", "q", "p", 5)
    ]
    assert database.query('select * from "order"."table"') == [{"_id": "a", "_row": 0, "end": "3"}]


def test_values_of_every_type_are_stored_as_that_type(database: PostgresDatabase) -> None:
    output = mapped(
        t="t text", i="i integer", n="n numeric(6,2)", f="f double precision", b="b boolean", d="d date",
        ts="ts timestamptz", j="j jsonb", a="a text[]", aa="aa int[]", nothing="missing text", u="u uuid",
        count="length(a) int",
    )  # fmt: skip
    row = {
        "t": "tab\there \\ back\nline \\N \\.", "i": 5, "n": 12.5, "f": -1e-300, "b": False,
        "d": "2024-02-29", "ts": "2024-01-02T03:04:05", "j": {"x": [1, None]},
        "a": ['q"uote', "back\\slash", "", "NULL", None, "a,b"], "aa": [[1, 2], [3, 4]],
        "u": "6f1d0bc2-8d55-4ac4-9a3b-0d3a2b1c4d5e",
    }  # fmt: skip
    with running(database, docs=output) as transport:
        assert_applied(
            transport.write(batch(document("a", 1, row), document("b", 1, msgspec.json.encode(row))))
        )
    found = database.query(
        "select *, n::text as n_text, ts at time zone 'UTC' = '2024-01-02 03:04:05' as is_utc"
        " from cases order by _id"
    )
    for one in found:
        assert {k: one[k] for k in ("t", "i", "f", "b", "j", "a", "aa", "nothing", "count")} == {
            "t": row["t"], "i": 5, "f": -1e-300, "b": False, "j": row["j"],
            "a": row["a"], "aa": row["aa"], "nothing": None, "count": 6,
        }  # fmt: skip
        assert (one["n_text"], str(one["d"]), one["is_utc"], str(one["u"])) == (
            "12.50", "2024-02-29", True, row["u"],
        )  # fmt: skip
    assert len(found) == 2


def test_a_value_too_long_for_its_column_is_refused_not_cut(database: PostgresDatabase) -> None:
    output = mapped(code="code varchar(3)", fixed="fixed char(2)", bits="bits bit(2)")
    with running(database, docs=output) as transport:
        result = transport.write(
            batch(
                document("fits", 1, {"code": "abc", "fixed": "xy", "bits": "01"}),
                document("code", 1, {"code": "abcd"}),
                document("fixed", 1, {"fixed": "xyz"}),
                document("bits", 1, {"bits": "011"}),
            )
        )
    assert set(result.dead) == {"code", "fixed", "bits"}
    assert "too long for type character varying(3)" in result.dead["code"]
    assert [r["code"] for r in database.query("select * from cases")] == ["abc"]


def test_numbers_of_whole_documents_keep_their_digits(database: PostgresDatabase) -> None:
    numbers = b'{"price": 1.10, "large": 123456789012345678901234567890, "huge": 1e400, "tiny": 1.5e-300}'
    with opened(database, "docs") as transport:
        beyond = document("beyond", 1, b'{"n": 1e200000}')
        result = transport.write(batch(document("a", 1, numbers), beyond))
    assert set(result.dead) == {"beyond"}, "jsonb's numbers end at 131,072 digits"
    [found] = database.query(
        "select doc->>'price' as p, doc->>'large' as l, length(doc->>'huge') as h from docs"
    )
    assert found == {"p": "1.10", "l": "123456789012345678901234567890", "h": 401}


NUL_TEXTS = [
    "a\0b",
    "\0",
    "\x01",
    "\x010",
    "\0\x01",
    "\x01\x011",
    "literal \\u0000",
    "\\\0",
    "\\\\u0001",
    "plain",
]


def restored(stored: str) -> str:
    """The way back, as the documentation has it: left to right."""
    parts = stored.split("\x01")
    return parts[0] + "".join({"0": "\0", "1": "\x01"}[part[0]] + part[1:] for part in parts[1:])


def test_nul_characters_are_stored_so_that_they_can_be_restored(database: PostgresDatabase) -> None:
    texts = {text: text for text in NUL_TEXTS}
    output = mapped("mapped", t="t text", j="j jsonb", a="a text[]")
    with running(database, docs=PostgresOutput(table="docs"), typed=output) as transport:
        raw = document("raw", 1, msgspec.json.encode(texts))
        written = [
            document(f"m{n}", 1, {"t": t, "j": [t], "a": [t]}, output="typed")
            for n, t in enumerate(NUL_TEXTS)
        ]
        assert_applied(transport.write(batch(raw, document("mapping", 1, texts), *written)))
    for id in ("raw", "mapping"):
        stored = database.read("docs")[id][0]
        assert {restored(k): restored(v) for k, v in stored.items()} == texts
    for n, text in enumerate(NUL_TEXTS):
        [row] = database.query("select * from mapped where _id = %s", f"m{n}")
        assert [restored(t) for t in (row["t"], row["j"][0], row["a"][0])] == [text] * 3


OUTPUTS_FOR_VERIFY = {
    "docs": PostgresOutput(table="docs"),
    "lines": PostgresOutput(table="lines", many=True),
}


def test_an_id_with_a_nul_is_guarded_and_reported_by_its_own_name(database: PostgresDatabase) -> None:
    ids = ["nul\0id", "soh\x010id"]
    for first_pass in (False, True):
        with opened(database, "docs") as transport:
            transport.write(batch(*(document(id, 3, {"n": 1}) for id in ids), first_pass=first_pass))
            older = batch(*(document(id, 2, {"n": 2}) for id in ids), first_pass=first_pass)
            assert transport.write(older) == WriteResult(refused=dict.fromkeys(ids, write_version(1, 3)))
    assert {restored(id) for id in database.read("docs")} == set(ids)


def test_verify_is_told_of_such_ids_by_their_own_names(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages are read in the order of the stored ids, which is another one."""
    monkeypatch.setattr("pillows.transports.postgres.transport.SWEEP_PAGE", 2)
    ids = {*NUL_TEXTS, "a\x010b"}
    with running(database, **OUTPUTS_FOR_VERIFY) as transport:
        written = [document(id, 1, {"n": 1}, lines=[{"n": 1}, {"n": 2}]) for id in ids]
        assert_applied(transport.write(batch(*written)))
        for output in OUTPUTS_FOR_VERIFY:
            pages = list(transport.stored(output))
            assert sorted(one.id for page in pages for one in page) == sorted(ids)
            asked = transport.stored(output, ["a\0b", "a\x010b", "nobody"])
            assert {one.id: one.write_version for page in asked for one in page} == dict.fromkeys(
                ("a\0b", "a\x010b"), write_version(1, 1)
            )
            assert list(transport.stored(output, [])) == []


def test_what_has_no_form_in_postgresql_is_dead_and_says_why(database: PostgresDatabase) -> None:
    with opened(database, "docs", "typed") as transport:
        result = transport.write(
            batch(
                document("surrogate", 1, {"t": "\ud800"}),
                document("half", 1, b'{"t": "\\ud800"}'),
                document("no json", 1, b'{"t": '),
                document("set", 1, {"t": {1, 2}.__iter__}),
                document("two", 1, {"n": 1}, {"n": 2}),
                document("fine", 1, {"n": 1}, typed=[{"n": 2}]),
            )
        )
    assert set(result.dead) == {"surrogate", "half", "no json", "set", "two"}
    assert all(result.dead.values())
    assert set(rows(database)) == {"fine"}


def test_a_batch_has_no_limit_in_parameters(database: PostgresDatabase) -> None:
    """A statement takes 65,535 parameters; COPY has none."""
    columns = {f"c{n}": f"c{n} int" for n in range(20)}
    many = size(ci=5_000, proof=20_000)
    row = dict.fromkeys(columns, 1)
    with running(database, docs=PostgresOutput(table="wide", columns=columns)) as transport:
        assert_applied(transport.write(batch(*(document(f"d{n}", 1, row) for n in range(many)))))
    assert database.query("select count(*) as n, sum(c19) as s from wide") == [{"n": many, "s": many}]


# ---------------------------------------------------------------------- tables that are there already


def test_new_columns_are_added(database: PostgresDatabase) -> None:
    with running(database, docs=mapped(name="name text")) as transport:
        transport.write(batch(document("a", 1, {"name": "x", "age": 5})))
    with running(database, docs=mapped(name="name text", age="age integer")) as transport:
        transport.write(batch(document("b", 1, {"name": "y", "age": 6})))
    found = database.query("select _id, name, age from cases order by _id")
    assert [tuple(row.values()) for row in found] == [("a", "x", None), ("b", "y", 6)]


def test_another_type_is_refused_with_the_statement_that_mends_it(database: PostgresDatabase) -> None:
    check(database, docs=mapped(age="age integer", code="code varchar(3)"))
    check(database, docs=mapped(age="age INT", code="code character varying(3)"))
    changed = mapped(age="age bigint", code="code varchar(3)")
    with pytest.raises(
        ConfigError, match=r"Column age of public\.cases is integer; bigint is configured"
    ) as refused:
        check(database, docs=changed)
    database.query(refused.value.remedy.split("`")[1])
    check(database, docs=changed)
    with pytest.raises(ConfigError, match=r"character varying\(3\); character varying\(5\)"):
        check(database, docs=mapped(age="age bigint", code="code varchar(5)"))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (PostgresOutput(table="t"), PostgresOutput(table="t", many=True), "has no column _row"),
        (PostgresOutput(table="t", many=True), PostgresOutput(table="t"), "has no column _rev"),
    ],
)
def test_another_kind_of_table_is_refused(
    database: PostgresDatabase, before: PostgresOutput, after: PostgresOutput, message: str
) -> None:
    check(database, docs=before)
    with pytest.raises(ConfigError, match=message):
        check(database, docs=after)


def test_a_column_that_nobody_fills_is_refused_before_the_first_document_fails(
    database: PostgresDatabase,
) -> None:
    check(database, docs=mapped(name="name text"))
    database.query("alter table cases add column clerk text not null")
    with pytest.raises(ConfigError, match="clerk") as refused:
        check(database, docs=mapped(name="name text"))
    database.query(refused.value.remedy.split("`")[1])
    database.query("alter table cases add column noted_at timestamptz not null default now()")
    check(database, docs=mapped(name="name text"))


def test_an_unknown_type_is_refused_by_name(database: PostgresDatabase) -> None:
    with pytest.raises(ConfigError, match='type "stirng" does not exist'):
        check(database, docs=mapped(name="name stirng"))


def test_two_outputs_of_one_table_are_refused(database: PostgresDatabase) -> None:
    outputs = {"a": PostgresOutput(table="t"), "b": PostgresOutput(table="t", schema="public")}
    with pytest.raises(ConfigError, match=r"public\.t"):
        PostgresTransport("w", KEY, options(database.dsn), outputs)


def test_many_starts_at_once_create_the_tables_once(database: PostgresDatabase) -> None:
    transports = [database.transport("docs", "lines", "typed") for _ in range(6)]
    greenlets = [gevent.spawn(transport.open) for transport in transports]
    gevent.joinall(greenlets, raise_error=True)
    for transport in transports:
        transport.close()
    assert all(greenlet.value.empty for greenlet in greenlets)


def test_the_digest_changes_with_table_and_kind_but_not_with_columns(database: PostgresDatabase) -> None:
    def digest(**outputs: PostgresOutput) -> str:
        return PostgresTransport("w", KEY, options(database.dsn), outputs).outputs_digest()

    one = digest(docs=mapped(name="name text"))
    assert digest(docs=mapped(name="name text", age="age int")) == one
    others = [
        digest(docs=mapped("other", name="name text")),
        digest(docs=PostgresOutput(table="cases")),
        digest(docs=PostgresOutput(table="cases", schema="s", columns={"name": "name text"})),
        digest(docs=PostgresOutput(table="cases", many=True, columns={"name": "name text"})),
    ]
    assert len({one, *others}) == 5


def test_an_unreadable_checkpoint_is_told_with_its_epoch_so_that_a_reset_mends_it(
    database: PostgresDatabase,
) -> None:
    check(database, docs=PostgresOutput(table="docs"))
    database.query("""update pillowd_checkpoint set checkpoint = '{"seq": "7-x", "from": "the future"}'""")
    epoch = database.query("select epoch from pillowd_checkpoint")[0]["epoch"]
    outputs = {"docs": PostgresOutput(table="docs")}
    with closing(PostgresTransport("w", KEY, options(database.dsn), outputs)) as again:
        state = again.open()
        assert (state.checkpoint, state.epoch) == (None, epoch)
        assert "KeyError" in state.unreadable
        again.acquire(at("0", epoch=epoch + 1))
        assert again.open().checkpoint == at("0", epoch=epoch + 1)


# ---------------------------------------------------------------------- the way straight into the tables


def first(*documents: Any) -> Batch:
    return batch(*documents, first_pass=True)


def test_a_first_pass_refuses_what_is_stored_newer(database: PostgresDatabase) -> None:
    with opened(database, "docs") as transport:
        assert_applied(transport.write(first(document("a", 5, {"n": 5}), document("b", 1, {"n": 1}))))
        again = transport.write(
            first(document("a", 4, {"n": 4}), document("b", 2, {"n": 2}), document("c", 1, {}))
        )
        assert again == WriteResult(refused={"a": write_version(1, 5)})
    assert rows(database) == {"a": [{"n": 5}], "b": [{"n": 2}], "c": [{}]}


def test_a_first_pass_heeds_tombstones(database: PostgresDatabase) -> None:
    with opened(database, "docs") as transport:
        transport.write(first(document("a", 1, {"n": 1})))
        transport.write(first(gone("a", 2)))
        refused = transport.write(first(document("a", 1, {"n": 1}), document("b", 1, {"n": 1})))
        assert refused == WriteResult(refused={"a": write_version(1, 2)})
    with opened(database, "docs") as transport:
        assert transport.write(first(document("a", 2, {"n": 1}))).refused == {"a": write_version(1, 2)}
        assert_applied(transport.write(first(document("a", 3, {"n": 3}))))
    assert rows(database) == {"a": [{"n": 3}], "b": [{"n": 1}]}
    assert database.write_version("docs", "a") == write_version(1, 3)


def test_a_first_pass_moves_documents_between_outputs(database: PostgresDatabase) -> None:
    with opened(database, "docs", "other") as transport:
        transport.write(first(document("a", 1, {"n": 1}), document("b", 1, {"n": 1}, other=[{"n": 1}])))
        assert_applied(transport.write(first(document("a", 2, {"n": 2}, output="other"), gone("b", 2))))
    assert rows(database) == {}
    assert rows(database, "other") == {"a": [{"n": 2}]}


def test_a_first_pass_finds_the_dead_among_the_living(database: PostgresDatabase) -> None:
    with opened(database, "typed") as transport:
        written = [document(f"d{n}", 1, {"n": n if n % 50 else "x"}, output="typed") for n in range(200)]
        result = transport.write(first(*written))
    assert set(result.dead) == {"d0", "d50", "d100", "d150"}
    assert database.query("select count(*) as n from typed") == [{"n": 196}]


def test_the_same_id_twice_in_a_batch(database: PostgresDatabase) -> None:
    """Of several entries the newest counts; of equal ones the last."""
    for first_pass in (True, False):
        with opened(database, "docs", "lines") as transport:
            twice = [
                document("a", 1, {"n": 1}, lines=[{"l": 1}]),
                document("a", 2, {"n": 2}, lines=[{"l": 2}]),
            ]
            equal = [document("b", 1, {"n": 1}), document("b", 1, {"n": 2})]
            transport.write(batch(*twice[::-1], *equal, first_pass=first_pass))
        assert rows(database) == {"a": [{"n": 2}], "b": [{"n": 2}]}
        assert rows(database, "lines") == {"a": [{"l": 2}]}
        database.query('drop table docs; drop table "child rows".lines; drop table pillowd_document')


# ---------------------------------------------------------------------- passes and tombstones


def test_tombstones_are_forgotten_after_their_time(database: PostgresDatabase) -> None:
    with opened(database, "docs", "lines") as transport:
        transport.write(
            batch(document("kept", 1, {"n": 1}, lines=[{"l": 1}]), gone("old", 1), gone("new", 1))
        )
        database.query(
            "update pillowd_document set deleted_at = now() - interval '31 days' where _id = 'old'"
        )
        transport.finish_pass(1)
    assert database.write_version("docs", "old") is None
    assert database.write_version("lines", "old") is None
    assert (
        database.write_version("docs", "new") == database.write_version("lines", "new") == write_version(1, 1)
    )
    assert database.write_version("lines", "kept") == write_version(1, 1)


def test_a_sweep_goes_through_a_table_of_many_pages(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pillows.transports.postgres.transport.SWEEP_PAGE", 7)
    with opened(database, "docs", "lines") as transport:
        transport.write(batch(*(document(f"d{n}", 1, {"n": n}, lines=[{}, {}]) for n in range(50))))
        transport.acquire(at("0", epoch=2))
        transport.write(
            batch(*(document(f"d{n}", 1, {"n": n}, lines=[{}]) for n in range(0, 50, 10)), epoch=2)
        )
        assert transport.finish_pass(2) == 45 + 90
    assert set(rows(database)) == set(rows(database, "lines")) == {f"d{n}" for n in range(0, 50, 10)}


def test_the_row_tells_an_operator_where_the_tail_is(database: PostgresDatabase) -> None:
    with opened(database, "docs") as transport:
        transport.write(batch(document("a", 1, {}), checkpoint=at("7-g1AAA", edits=3)))
    [row] = database.query("select pillow, source, generation, epoch, seq from pillowd_checkpoint")
    assert row == {"pillow": KEY.pillow, "source": KEY.source, "generation": 3, "epoch": 1, "seq": "7-g1AAA"}


def test_the_server_shows_which_pillow_a_session_belongs_to(database: PostgresDatabase) -> None:
    with opened(database, "docs"):
        found = database.query("select application_name as name from pg_stat_activity")
    assert {"name": f"pillowd {KEY}"} in found


def test_the_database_settings_do_not_change_what_a_text_means(database: PostgresDatabase) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database.dsn)["dbname"]
    database.query(f"alter database {name} set datestyle = 'SQL, DMY'")
    database.query(f"alter database {name} set timezone = 'Asia/Tokyo'")
    with running(database, docs=mapped(at="at timestamptz")) as transport:
        transport.write(batch(document("a", 1, {"at": "2024-03-04 05:06:07"})))
    found = database.query("select at = '2024-03-04T05:06:07Z'::timestamptz as same from cases")
    assert found == [{"same": True}]


def test_a_check_tells_what_a_start_would_do_and_does_nothing(database: PostgresDatabase) -> None:
    one = {"docs": mapped(name="name text"), "other": PostgresOutput(table="other", schema="new")}

    def checked(**outputs: PostgresOutput) -> str:
        return PostgresTransport("w", KEY, options(database.dsn), outputs).check()

    told = checked(**one)
    assert 'create schema "new";\n  create table "public"."pillowd_checkpoint"' in told
    assert 'create table "public"."cases" ("_id" text collate "C" not null,' in told
    assert database.query("select * from pg_tables where schemaname in ('public', 'new')") == []
    check(database, **one)
    assert checked(**one).endswith("the tables exist")
    assert checked(docs=mapped(name="name text", age="age int")).endswith(
        'a start will run:\n  alter table "public"."cases" add column "age" int;'
    )
    with pytest.raises(ConfigError, match="is text; integer is configured"):
        checked(docs=mapped(name="name int"))
    assert database.open_connections() == 0


# ---------------------------------------------------------------------- one table of several sources

SHARED = {
    "docs": PostgresOutput(table="docs", shared=True),
    "lines": PostgresOutput(table="lines", shared=True, many=True, columns={"l": "l int"}),
}


@contextmanager
def sharing(database: PostgresDatabase, source: str) -> Iterator[Any]:
    transport: Any = PostgresTransport("w", TailKey("cases", source), options(database.dsn), SHARED)
    try:
        transport.state = transport.open()
        transport.acquire(at("0"))
        yield transport
    finally:
        transport.close()


def test_sources_that_share_a_table_leave_each_others_rows_alone(database: PostgresDatabase) -> None:
    def stored(table: str, column: str) -> list[tuple[Any, ...]]:
        found = database.query(f"select _source, _id, {column} as v from {table} order by 1, 2, 3")
        return [tuple(row.values()) for row in found]

    with sharing(database, "couch/50% london") as london, sharing(database, "couch/paris") as paris:
        assert london.state.empty
        for transport, version in ((london, 5), (paris, 1)):
            for first_pass in (True, False):
                id = f"same-{first_pass}"
                written = document(id, version, {"v": version}, lines=[{"l": 1}, {"l": version}])
                assert_applied(transport.write(batch(written, first_pass=first_pass)))
        assert paris.write(batch(document("same-True", 1, {"v": 0}))).refused == {
            "same-True": write_version(1, 1)
        }
        assert_applied(paris.write(batch(gone("same-True", 2))))
        london.acquire(at("0", epoch=2))
        assert london.finish_pass(2) == 2 + 4
        assert stored("docs", "doc->'v'") == [("couch/paris", "same-False", 1)]
        assert stored("lines", "l") == [("couch/paris", "same-False", 1), ("couch/paris", "same-False", 1)]
        again = paris.write(batch(document("same-True", 1, {"v": 1})))
        assert again.refused == {"same-True": write_version(1, 2)}
    with sharing(database, "couch/50% london") as london, sharing(database, "couch/rome") as rome:
        assert (london.state.empty, rome.state.empty, rome.state.epoch) == (True, True, None)


def test_a_table_is_shared_from_its_beginning_or_never(database: PostgresDatabase) -> None:
    check(database, docs=PostgresOutput(table="alone"))
    with pytest.raises(ConfigError, match="has no column _source"):
        check(database, docs=PostgresOutput(table="alone", shared=True))
    check(database, docs=PostgresOutput(table="shared", shared=True))
    with pytest.raises(ConfigError, match="_source"):
        check(database, docs=PostgresOutput(table="shared"))

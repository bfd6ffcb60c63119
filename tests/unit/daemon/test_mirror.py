"""What a command line of `pillowd mirror` becomes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from daemon.cli.exit_codes import CommandError
from daemon.mirror import command
from daemon.mirror.columns import MAX_COLUMNS, infer_columns
from daemon.mirror.config import parse_mirror, prepare, read_chosen_columns, write_config
from daemon.mirror.fit_columns import FitColumns
from daemon.mirror.targets import parse_source, parse_target, to_plain_name
from pillows import registry
from pillows.errors import ConfigError

URL = "http://etl:s3cret%40x@couch.example:5984/prefix/org%2Fcases"


def column_types(type: str):
    return registry.transport(type).mirror.COLUMN_TYPES


SQLITE = column_types("sqlite")


def mirror(target: str, tmp_path: Path, url: str = URL):
    return parse_mirror(url, target, name=None, state_dir=tmp_path)


def test_the_source_is_split_and_its_password_is_named_not_written():
    place, database = parse_source(URL)

    assert database == "org/cases"
    assert place.connection["url"] == "http://couch.example:5984/prefix"
    assert place.connection["auth"] == {
        "type": "basic",
        "username": "etl",
        "password": "${COUCHDB_PASSWORD}",
    }
    assert place.secrets == {"COUCHDB_PASSWORD": "s3cret@x"}


@pytest.mark.parametrize(
    ("text", "connection", "secrets"),
    [
        ("sqlite:////var/x/y.sqlite", {"type": "sqlite", "path": "/var/x/y.sqlite"}, {}),
        ("jsonl:/var/lines", {"type": "jsonl", "folder": "/var/lines"}, {}),
        (
            "postgresql://me:pw%21@db:5433/reports?sslmode=require",
            {
                "type": "postgres",
                "dsn": "user=me dbname=reports host=db port=5433 sslmode=require",
                "password": "${TARGET_PASSWORD}",
            },
            {"TARGET_PASSWORD": "pw!"},
        ),
        (
            "elasticsearch+https://es:pw@search",
            {
                "type": "elasticsearch",
                "hosts": ["https://search:9200"],
                "auth": {"username": "es", "password": "${TARGET_PASSWORD}"},
            },
            {"TARGET_PASSWORD": "pw"},
        ),
        (
            "elasticsearch+http://search:9201",
            {"type": "elasticsearch", "hosts": ["http://search:9201"]},
            {},
        ),
    ],
)
def test_targets(text, connection, secrets):
    place = parse_target(text)

    assert place.connection == connection
    assert place.secrets == secrets


@pytest.mark.parametrize(
    "text",
    [
        "mysql://x",
        "sqlite:",
        "sqlite:///",
        "jsonl:",
        "postgresql://u:s3cret@h/d?bogus=1",
        "elasticsearch+http://",
    ],
)
def test_what_is_no_target_is_refused_with_the_form_to_write_and_no_password(text):
    with pytest.raises(ConfigError) as refused:
        parse_target(text)

    assert "write" in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["couch.example/db", "http://couch.example:5984", "http://c:x/db", "http:///db"]
)
def test_what_is_no_database_is_refused(url):
    with pytest.raises(ConfigError):
        parse_source(url)


@pytest.mark.parametrize(
    ("database", "name"),
    [("cases", "cases"), ("org/my-db$(x)", "org_my_db_x"), ("_users", "users"), ("$", "documents")],
)
def test_names_need_no_quotes(database, name):
    assert to_plain_name(database) == name


@pytest.mark.parametrize(
    ("target", "types"), [("postgres", ("numeric", "boolean")), ("sqlite", ("any", "integer"))]
)
def test_what_every_document_has_in_one_kind_becomes_a_column(target, types):
    documents = [
        {"_id": "a", "_rev": "1-x", "name": "x", "age": 3, "w": 1, "ok": True, "mixed": 1, "tags": []},
        {"_id": "b", "name": "y", "age": None, "w": 1.5, "mixed": "1", "big": 2**70, "a b": 1, "doc": 5},
    ]

    number, boolean = types
    assert infer_columns(documents, column_types(target)) == {
        "name": "name text",
        "w": f"w {number}",
        "age": f"age {number}",
        "ok": f"ok {boolean}",
        "big": f"big {number}",
        "doc": "doc jsonb",
    }


def test_columns_that_sql_would_take_for_one_and_too_many_are_left_to_the_document():
    documents = [{"Name": "x", "name": "y"}, {"Name": "z"}, {f"f{n}": 1 for n in range(500)}]

    columns = infer_columns(documents, SQLITE)

    assert "Name" in columns
    assert "name" not in columns
    assert len(columns) == MAX_COLUMNS + 1


def test_an_empty_database_has_only_the_document():
    assert infer_columns([], SQLITE) == {}


def test_columns_that_postgresql_has_for_itself_are_left_to_the_document():
    documents = [{"xmin": 1, "xmax": 2, "CTID": "x", "cmin": 1, "cmax": 1, "tableoid": 1, "price": 3}]

    assert infer_columns(documents, column_types("postgres")) == {
        "price": "price numeric",
        "doc": "doc jsonb",
    }


@pytest.mark.parametrize(
    ("type", "fitting", "unfit"),
    [
        ("text", ["", "x"], [1, True, 1.5, [], {}]),
        ("numeric", [0, -1, 9.99, 2**60 + 1, 2**70, 1e300], ["1", True, [1], {}, 10**2000]),
        ("any", [0, -1, 9.99, 2**60 + 1, 1e300], ["1", True, [1], {}, 2**63]),
        ("boolean", [True, False], [0, 1, "true", []]),
        ("integer", [True, False, 3], [1.5, "true", 2**63]),
        ("bigint", [0, 2**63 - 1], [1.5, True, "1", 2**63]),
        ("double precision", [0, 1.5], [True, "1"]),
    ],
)
def test_what_fits_no_column_leaves_it_empty_and_the_document_whole(type, fitting, unfit):
    """A number that is no integer, a text where numbers are: the document is not left out for it."""
    fit = FitColumns(types={"field": type})

    for value in [None, *fitting]:
        document = {"_id": "a", "field": value}
        assert fit(document) == {**document, "doc": document}
    for value in unfit:
        document = {"_id": "a", "field": value}
        assert fit(document) == {"_id": "a", "field": None, "doc": {"_id": "a", "field": value}}


def test_every_type_that_is_inferred_says_what_fits(tmp_path):
    wanted = mirror(f"sqlite:///{tmp_path}/a.sqlite", tmp_path)

    config = prepare(wanted, lambda _: infer_columns([{"n": 1, "t": "x", "b": True}], SQLITE), {})

    (step,) = config.pillows["org_cases"].steps
    assert step.python == "daemon.mirror.fit_columns:FitColumns"
    assert step.args == {"types": {"n": "any", "t": "text", "b": "integer"}}
    assert FitColumns(**step.args)({"n": "x"})["n"] is None


def test_columns_of_an_earlier_version_stay_as_they_are(tmp_path):
    wanted = mirror(f"sqlite:///{tmp_path}/a.sqlite", tmp_path)

    config = prepare(wanted, lambda _: {"n": "n bigint", "doc": "@ jsonb"}, {})

    assert config.pillows["org_cases"].steps == ()


@pytest.mark.parametrize(
    "target",
    [
        "sqlite:///{}/a${{HOME}}.sqlite",
        "jsonl:{}/lines",
        "postgresql://u:p@h/d",
        "elasticsearch+http://u:p@h",
    ],
)
def test_the_written_configuration_is_one_that_loads_and_holds_no_password(target, tmp_path):
    wanted = mirror(target.format(tmp_path), tmp_path)

    config = prepare(wanted, lambda _: {"n": "n text"}, {})

    written = wanted.config_path.read_text()
    assert "s3cret" not in written
    assert "${COUCHDB_PASSWORD}" in written
    assert wanted.config_path.stat().st_mode & 0o777 == 0o600
    assert config.connections["couch"].options.auth.password.get_secret_value() == "s3cret@x"  # type: ignore[attr-defined]
    assert list(config.pillows) == ["org_cases"]
    assert config.pillows["org_cases"].source.database == "org/cases"


def test_columns_are_chosen_once(tmp_path):
    wanted = mirror(f"sqlite:///{tmp_path}/a.sqlite", tmp_path)
    prepare(wanted, lambda _: {"first": "x text", "doc": "@ jsonb"}, {})

    prepare(wanted, lambda _: pytest.fail("asked again"), {})

    assert read_chosen_columns(wanted) == {"first": "x text", "doc": "@ jsonb"}


def test_a_mirror_without_memory_goes_on_with_the_columns_of_the_table(tmp_path):
    wanted = mirror(f"sqlite:///{tmp_path}/a.sqlite", tmp_path)

    prepare(wanted, lambda _: pytest.fail("inferred others"), {}, find=lambda _: {"n": "n any"})

    assert read_chosen_columns(wanted) == {"n": "n any"}


def test_to_ask_for_no_columns_is_refused_only_where_a_table_has_some(tmp_path):
    wanted = mirror(f"sqlite:///{tmp_path}/a.sqlite", tmp_path)
    prepare(wanted, lambda _: {"xmin": "xmin text"}, {})

    with pytest.raises(ConfigError, match="remove `--columns none`"):
        prepare(wanted, None, {}, find=lambda _: {"n": "n any"})
    prepare(wanted, None, {}, find=lambda _: None)

    assert read_chosen_columns(wanted) == {}


def test_a_sample_that_failed_is_no_choice(tmp_path):
    wanted = mirror(f"sqlite:///{tmp_path}/a.sqlite", tmp_path)

    def fail(_):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        prepare(wanted, fail, {})

    assert read_chosen_columns(wanted) is None


def test_a_missing_password_is_named(tmp_path):
    wanted = mirror(f"jsonl:{tmp_path}", tmp_path, url="http://etl@couch.example/db")

    with pytest.raises(ConfigError, match="set COUCHDB_PASSWORD in the environment"):
        prepare(wanted, None, {})
    assert not wanted.folder.exists()


def test_the_same_places_have_the_same_folder_whatever_the_password(tmp_path):
    one = mirror(f"jsonl:{tmp_path}", tmp_path, url="http://etl:a@couch.example/db")
    two = mirror(f"jsonl:{tmp_path}", tmp_path, url="http://etl:b@couch.example/db")
    other = mirror(f"jsonl:{tmp_path}", tmp_path, url="http://etl:b@couch.example/db2")

    assert one.folder == two.folder != other.folder


def test_the_same_table_has_the_same_folder_wherever_its_password_stands(tmp_path):
    folders = {
        mirror(f"postgresql://etl{password}@db/reports", tmp_path).folder for password in ("", ":a", ":b")
    }

    assert len(folders) == 1


@pytest.mark.parametrize("target", ["postgresql://me@db/reports", "elasticsearch+http://me@search"])
def test_the_advised_variable_is_the_target_s_password(target, tmp_path):
    wanted = mirror(target, tmp_path)

    config = prepare(wanted, None, {"TARGET_PASSWORD": "s3cret-t"})

    options = config.connections["target"].options
    password = options.password if target.startswith("postgres") else options.auth.password  # type: ignore[attr-defined]
    assert password.get_secret_value() == "s3cret-t"
    text = wanted.config_path.read_text()
    assert "s3cret-t" not in text
    assert "COUCHDB_PASSWORD and TARGET_PASSWORD in the environment" in text


def test_other_places_for_postgresql_s_password_serve_where_ours_is_not_set(tmp_path):
    config = prepare(mirror("postgresql://me@db/reports", tmp_path), None, {"PGPASSWORD": "x"})

    assert config.connections["target"].options.password is None  # type: ignore[attr-defined]


def test_a_folder_with_a_long_path_has_its_socket_elsewhere(tmp_path):
    wanted = mirror(f"jsonl:{tmp_path}", tmp_path / ("x" * 120))

    config = prepare(wanted, None, {})

    assert config.daemon.control.path.parent != wanted.folder


def test_write_config_overwrites_nothing_and_is_not_public(tmp_path):
    wanted = mirror(f"jsonl:{tmp_path}", tmp_path)
    prepare(wanted, None, {})
    path = tmp_path / "mine.yaml"

    write_config(wanted, path)

    assert yaml.safe_load(path.read_text())["pillows"]["org_cases"]
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(CommandError, match=r"mine.yaml exists already. Remedy: remove it"):
        write_config(wanted, path)


@pytest.mark.parametrize(
    ("url", "target", "named"),
    [
        (URL, "jsonl:lines", ["COUCHDB_PASSWORD"]),
        (URL, "postgresql://me:pw@db/reports", ["COUCHDB_PASSWORD", "TARGET_PASSWORD"]),
        ("http://couch.example/cases", "jsonl:lines", []),
    ],
)
def test_a_password_that_others_can_see_is_warned_of_once_without_showing_it(
    url, target, named, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    arguments = [url, target, "--columns", "none", "--write-config", "-"]
    done = CliRunner().invoke(command.mirror, arguments, standalone_mode=False)

    assert (done.exception, len(done.stderr.splitlines())) == (None, 1 if named else 0)
    assert [name for name in ("COUCHDB_PASSWORD", "TARGET_PASSWORD") if f"${name}" in done.stderr] == named
    assert "s3cret" not in done.stderr

"""The URL of a database, and a target in one line."""

from __future__ import annotations

import pytest

from daemon.mirror.targets import describe_unescaped, parse_source, parse_target, to_plain_name
from pillows.errors import ConfigError

URL = "http://etl:s3cret%40x@couch.example:5984/prefix/org%2Fcases"


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
        (
            "kafka+tls://etl:pw@broker",
            {
                "type": "kafka",
                "servers": ["broker:9092"],
                "tls": {},
                "sasl": {
                    "mechanism": "SCRAM-SHA-512",
                    "username": "etl",
                    "password": "${TARGET_PASSWORD}",
                },
            },
            {"TARGET_PASSWORD": "pw"},
        ),
        ("kafka://broker:9093", {"type": "kafka", "servers": ["broker:9093"]}, {}),
        (
            "opensearch+https://os:pw@search/prefix/",
            {
                "type": "opensearch",
                "hosts": ["https://search:9200/prefix"],
                "auth": {"username": "os", "password": "${TARGET_PASSWORD}"},
            },
            {"TARGET_PASSWORD": "pw"},
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
        "opensearch+http://",
        "kafka://",
        "kafka://u:s3cret@broker/topic",
    ],
)
def test_invalid_target_is_refused_with_the_forms_and_no_password(text):
    with pytest.raises(ConfigError) as refused:
        parse_target(text)

    assert "write" in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["couch.example/db", "http://couch.example:5984", "http://c:x/db", "http:///db"]
)
def test_invalid_database_url_is_refused(url):
    with pytest.raises(ConfigError):
        parse_source(url)


@pytest.mark.parametrize(
    ("url", "written"),
    [
        ("http://couch:5984/db/+x", "http://couch:5984/db%2F%2Bx"),
        ("https://etl:pw@couch/a/B", "https://couch/a%2FB"),
        ("http://couch:5984/org%2Fa/%2Bb", "http://couch:5984/org%2Fa%2F%2Bb"),
    ],
)
def test_f3_an_unescaped_slash_is_refused_with_the_url_to_write(url, written):
    with pytest.raises(ConfigError) as refused:
        parse_source(url)

    assert str(refused.value).endswith(f", {written}")


def test_f3_a_database_behind_a_path_may_have_a_slash_in_its_name():
    assert describe_unescaped("http://couch:5984", "cases") == ""
    hint = describe_unescaped("http://couch:5984/org", "cases")
    assert hint.endswith("for the database org/cases, http://couch:5984/org%2Fcases")


@pytest.mark.parametrize(
    ("database", "name"),
    [("cases", "cases"), ("org/my-db$(x)", "org_my_db_x"), ("_users", "users"), ("$", "documents")],
)
def test_names_need_no_quotes(database, name):
    assert to_plain_name(database) == name


@pytest.mark.parametrize("password", ["s3kr1t/x", "12/s3kr1t"])
@pytest.mark.parametrize(
    "url",
    [
        "https://etl:PASSWORD@couch:6984/cases",
        "postgresql://etl:PASSWORD@pg/db",
        "elasticsearch+https://etl:PASSWORD@es:9200",
    ],
)
def test_d2_an_unescaped_password_is_refused_and_not_shown(url: str, password: str) -> None:
    with pytest.raises(ConfigError) as raised:
        (parse_source if url.startswith("http") else parse_target)(url.replace("PASSWORD", password))
    assert "s3kr1t" not in str(raised.value)
    assert "%2F" in str(raised.value)

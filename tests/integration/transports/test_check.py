"""`check` of every transport: tells what is there, and changes nothing."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from checkpoints import TailKey
from pillows import registry
from pillows.errors import AccessError, ConfigError, RetryableError
from pillows.transports.base import Transport

KEY = TailKey("cases", "couch/cases")


def build(type: str, output: dict[str, Any], **connection: Any) -> Transport:
    kind = registry.transport(type)
    outputs = {"cases": kind.Output.model_validate(output)}
    return kind("target", KEY, kind.Connection.model_validate(connection), outputs)


def check(transport: Transport) -> str:
    with closing(transport):
        return transport.check()


def test_sqlite_says_whether_the_file_is_there_and_makes_none(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    assert check(build("sqlite", {"table": "cases"}, path=path)) == f"{path} will be created"
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"SQLite format 3\0")
    assert check(build("sqlite", {"table": "cases"}, path=path)) == f"{path} is a database"


def test_sqlite_refuses_another_file_and_a_missing_folder(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("not a database at all")
    with pytest.raises(ConfigError, match="is not an SQLite database"):
        check(build("sqlite", {"table": "cases"}, path=tmp_path / "t.txt"))
    with pytest.raises(ConfigError, match="is not a folder"):
        check(build("sqlite", {"table": "cases"}, path=tmp_path / "not" / "there"))


def test_jsonl_looks_at_its_folder(tmp_path: Path) -> None:
    assert "can be written to" in check(build("jsonl", {"file": "cases"}, folder=tmp_path))
    with pytest.raises(ConfigError, match="is not a folder"):
        check(build("jsonl", {"file": "cases"}, folder=tmp_path / "missing"))


@pytest.mark.parametrize("type", ["null", "stdout"])
def test_what_needs_nothing_is_always_there(type: str) -> None:
    assert check(build(type, {}))


def test_postgres_connects_and_creates_nothing(postgres_dsn: str) -> None:
    assert "PostgreSQL" in check(build("postgres", {"table": "cases"}, dsn=postgres_dsn))
    with psycopg.connect(postgres_dsn) as connection:
        tables = connection.execute("select count(*) from pg_tables where schemaname = 'public'").fetchone()
    assert tables == (0,)


def test_postgres_that_takes_no_writes_is_refused(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f'alter database "{name}" set default_transaction_read_only = on')
    with pytest.raises(ConfigError, match="standby"):
        check(build("postgres", {"table": "cases"}, dsn=postgres_dsn))


def test_a_server_that_is_away_is_retryable() -> None:
    away = {"dsn": "postgresql://pillowd@127.0.0.1:9/x", "connect_timeout": 2.0}
    with pytest.raises(RetryableError):
        check(build("postgres", {"table": "cases"}, **away))
    with pytest.raises(RetryableError):
        check(build("elasticsearch", {"index": "cases"}, hosts=["http://127.0.0.1:9"]))


def test_opensearch_without_its_client_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = build("opensearch", {"index": "cases"}, hosts=["http://127.0.0.1:9"])
    monkeypatch.delitem(sys.modules, "pillows.transports.opensearch.connection", raising=False)
    monkeypatch.setitem(sys.modules, "opensearchpy", None)
    with pytest.raises(ConfigError, match=r"not installed.*pip install 'pillowd\[opensearch\]'"):
        check(transport)


def test_kafka_without_its_client_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = build("kafka", {"topic": "cases"}, servers=["127.0.0.1:9"])
    monkeypatch.delitem(sys.modules, "pillows.kafka.producer", raising=False)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(ConfigError, match=r"not installed.*pip install 'pillowd\[kafka\]'"):
        check(transport)


def test_kafka_answers_and_gets_no_topic(kafka: str, kafka_prefix: str) -> None:
    transport = build("kafka", {"topic": f"{kafka_prefix}cases"}, servers=[kafka])
    for _ in range(2):
        assert f"1 brokers; the topic {kafka_prefix}cases will be created" in check(transport)


def test_opensearch_answers_and_gets_no_index(opensearch_url: str, es_prefix: str) -> None:
    transport = build("opensearch", {"index": f"{es_prefix}cases"}, hosts=[opensearch_url])
    assert "OpenSearch answers" in check(transport)
    listed = requests.get(f"{opensearch_url}/_cat/indices/{es_prefix}*?h=index", timeout=30)
    assert listed.text == ""


def test_elasticsearch_answers_and_gets_no_index(elasticsearch_url: str, es_prefix: str) -> None:
    transport = build("elasticsearch", {"index": f"{es_prefix}cases"}, hosts=[elasticsearch_url])
    assert "Elasticsearch answers" in check(transport)
    listed = requests.get(f"{elasticsearch_url}/_cat/indices/{es_prefix}*?h=index", timeout=30)
    assert listed.text.strip() == ""


def test_a_folder_that_may_not_be_written_to_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(AccessError, match="cannot be written to"):
        check(build("jsonl", {"file": "cases"}, folder=tmp_path))

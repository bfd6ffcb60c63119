"""What a batch looks like in the bulk format, and what the answers of a cluster mean."""

from __future__ import annotations

import json
import ssl
from typing import Any

import pytest
from pydantic import ValidationError
from urllib3 import HTTPHeaderDict

from checkpoints import TailKey
from pillows.errors import AccessError, AwayError, ConfigError, FatalError, PillowError, RetryableError
from pillows.models import WriteResult, write_version
from pillows.transports.common.search.client import AnswerError
from pillows.transports.common.search.encoder import (
    MAX_OPERATIONS,
    SOURCE,
    Operation,
    cut_requests,
    encode_mark,
    encode_operations,
    encode_purge,
    find_gone,
)
from pillows.transports.common.search.errors import (
    BulkResult,
    ItemVerdict,
    classify,
    describe_cause,
    describe_rejection,
    get_cause,
    is_document_at_fault,
    parse_stored_version,
    to_connection_error,
    to_pillow_error,
    translate_errors,
)
from pillows.transports.common.search.index.spec import make_spec
from pillows.transports.common.search.options import SearchOutput, flatten_settings
from pillows.transports.elasticsearch.options import (
    ElasticsearchConnection,
)
from pillows.transports.elasticsearch.transport import ElasticsearchTransport
from tests.conformance.target import document, gone

# --- the format


def lines(row: Any, id: str = "a") -> list[Any]:
    made, dead = encode_operations([document(id, 3, row)], "docs", 2, deleted_at_ms=None)
    assert not dead
    assert made[0].body.endswith(b"\n")
    return [json.loads(line) for line in made[0].body.decode().splitlines()]


def endless() -> dict[str, Any]:
    row: dict[str, Any] = {}
    row["row"] = row
    return row


def source(row: Any, id: str = "a") -> bytes:
    made, dead = encode_operations([document(id, 3, row)], "docs", 2, deleted_at_ms=None)
    assert not dead
    return made[0].body.split(b"\n", 1)[1].removesuffix(b"\n")


def test_an_operation_carries_the_guard_as_external_version() -> None:
    action, row = lines({"n": 1})
    assert action == {"index": {"_id": "a", "version": write_version(2, 3), "version_type": "external"}}
    assert row == {"n": 1}


@pytest.mark.parametrize(
    "id", ["a", 'q"uo\\te', "naïve-名前-🦉", "line\nbreak", "para\u2028graph", "{}", " "]
)
def test_raw_documents_lose_their_id_and_nothing_else(id: str) -> None:
    rest = '"_rev":"3-x","_attachments":{"f":{"stub":true}},"a":{"_id":"inner"},"n":1.0}'
    raw = ('{"_id":' + json.dumps(id, ensure_ascii=False) + "," + rest).encode()
    assert source(raw, id) == b"{" + rest.encode()


def test_raw_documents_keep_every_digit_of_their_numbers() -> None:
    values = [b"123456789012345678901234567890", b"1.0", b"1e400", b'"\\ud83e\\udd89"']
    kept = source(b'{ "_id" : "a" ,\n "b": %b, "f": %b, "e": %b, "s": %b}' % tuple(values))
    assert b"_id" not in kept
    assert b"\n" not in kept, "a line break would end the operation"
    assert all(value in kept for value in values)


@pytest.mark.parametrize(
    "raw",
    [b'{"_rev":"1-x","_id":"a"}', b'{"_id":"a"}', b'{"_id":"\\u0061","_rev":"1-x"}', b'{"_rev":"1-x"}'],
)
def test_an_id_in_any_place_or_spelling_is_removed(raw: bytes) -> None:
    assert "_id" not in json.loads(source(raw))


def test_a_mapping_loses_its_id_and_stays_as_it_was() -> None:
    row = {"_id": "a", "n": 1, "nested": {"_id": "stays"}}
    assert json.loads(source(row)) == {"n": 1, "nested": {"_id": "stays"}}
    assert "_id" in row


@pytest.mark.parametrize("row", [b"not json", b'{"_rev":', b"[1]", {"x": object()}, endless()])
def test_a_row_that_is_no_json_object_is_dead_alone(row: Any) -> None:
    documents = [document("bad", 1, row), document("good", 1, {"n": 1})]
    made, dead = encode_operations(documents, "docs", 1, deleted_at_ms=None)
    assert [operation.id for operation in made] == ["good"]
    assert dead["bad"]


def test_two_rows_of_a_document_are_dead_with_the_reason() -> None:
    made, dead = encode_operations([document("a", 1, {"n": 1}, {"n": 2})], "docs", 1, deleted_at_ms=None)
    assert not made
    assert "at most one row" in dead["a"]


def test_ids_above_512_bytes_are_dead_and_their_deletes_need_nothing() -> None:
    fits, long = "é" * 256, "é" * 257
    documents = [gone(long + "x", 2), document(long, 1, {"n": 1}), document(fits, 1, {"n": 1})]
    made, dead = encode_operations(documents, "docs", 1, deleted_at_ms=None)
    assert [operation.id for operation in made] == [fits]
    assert dead == {long: "its id has 514 bytes, an index takes 512"}


def test_an_expired_tombstone_goes_unless_something_newer_has_come() -> None:
    purge = encode_purge('a"', 7)
    action = {"delete": {"_id": 'a"', "version": 7, "version_type": "external_gte"}}
    assert (purge.id, purge.write_version, purge.removes) == ('a"', 7, True)
    assert json.loads(purge.body) == action


@pytest.mark.parametrize("raw", [b'{"_id":"a",\n"b": 1}', b'{"b":\n[1,\n 2], "_id":"a"}'])
def test_a_line_break_between_values_ends_no_operation(raw: bytes) -> None:
    (made,), dead = encode_operations([document("a", 1, raw)], "docs", 1, deleted_at_ms=None)
    assert not dead
    assert made.body.count(b"\n") == 2
    expected = json.loads(raw)
    del expected["_id"]
    assert json.loads(made.body.splitlines()[1]) == made.read_source() == expected


def test_a_document_without_rows_is_deleted_or_leaves_a_tombstone() -> None:
    hard = encode_operations([gone("a", 3)], "docs", 1, deleted_at_ms=None)[0][0]
    assert json.loads(hard.body) == {
        "delete": {"_id": "a", "version": write_version(1, 3), "version_type": "external"}
    }
    tombstone = encode_operations([gone("a", 3)], "docs", 1, deleted_at_ms=1234)[0][0]
    action, row = map(json.loads, tombstone.body.splitlines())
    expected = {"_id": "a", "version": write_version(1, 3), "version_type": "external", "pipeline": "_none"}
    assert action == {"index": expected}
    assert row == {"pillowd_deleted_at": 1234}
    for removal in (hard, tombstone):
        assert (removal.id, removal.write_version, removal.removes) == ("a", write_version(1, 3), True)


def test_g10_a_mark_keeps_the_fields_and_the_first_time() -> None:
    (removal,) = encode_operations([gone("a", 3)], "docs", 1, deleted_at_ms=None)[0]
    mark = encode_mark(removal, {"n": 1}, deleted_at_ms=1_764_406_800_123)
    action, row = map(json.loads, mark.body.splitlines())
    expected = {"_id": "a", "version": write_version(1, 3), "version_type": "external", "pipeline": "_none"}
    assert action == {"index": expected}
    assert row == {"_deleted_at": "2025-11-29T09:00:00.123Z", "n": 1}
    assert (mark.write_version, mark.removes, mark.marks) == (write_version(1, 3), True, True)
    later = encode_mark(removal, row, deleted_at_ms=1_764_500_000_000)
    assert json.loads(later.body.splitlines()[1]) == row


def test_removals_and_rows_of_one_batch_are_told_apart() -> None:
    documents = [gone("a", 3), document("b", 3, {"n": 1}), gone("c", 3), document("d", 3, b'{"_id":"d"}')]
    made, dead = encode_operations(documents, "docs", 1, deleted_at_ms=None)
    assert not dead
    assert not any(each.marks for each in made)
    assert [(each.id, each.removes) for each in made] == [
        ("a", True),
        ("b", False),
        ("c", True),
        ("d", False),
    ]


def test_a_document_that_would_look_like_a_tombstone_is_dead_not_hidden() -> None:
    documents = [
        document("a", 1, b'{"_id":"a","pillowd_deleted_at" : 1}'),
        document("b", 1, b'{"_id":"b","text":"pillowd_deleted_at","deeper":{"pillowd_deleted_at":1}}'),
    ]
    field = "pillowd_deleted_at"
    made, dead = encode_operations(documents, "docs", 1, deleted_at_ms=1, deleted_field=field)
    assert set(dead) == {"a"}
    assert [operation.id for operation in made] == ["b"]
    assert not encode_operations(documents, "docs", 1, deleted_at_ms=None)[1]


@pytest.mark.parametrize(("row", "more"), [({}, {}), ({"n": 1}, {"n": 1})])
def test_a_document_of_several_databases_comes_with_its_source(
    row: dict[str, Any], more: dict[str, Any]
) -> None:
    made, dead = encode_operations(
        [document("db:a", 3, row)], "docs", 2, deleted_at_ms=None, connection="couch"
    )
    assert not dead
    assert made[0].read_source() == {SOURCE: "couch/db"} | more


def test_documents_without_rows_in_any_output_are_gone() -> None:
    assert find_gone([document("a", 3, {"n": 1}), gone("b", 4)]) == {"b"}


def test_operations_are_cut_into_requests_by_bytes_and_number() -> None:
    def operation(size: int) -> Operation:
        return Operation("a", 1, False, b"x" * size)

    sizes = [
        [len(o.body) for o in part] for part in cut_requests([operation(n) for n in (4, 4, 4, 99, 1, 1)], 8)
    ]
    assert sizes == [[4, 4], [4], [99], [1, 1]]
    assert [len(part) for part in cut_requests([operation(99), operation(1)], 8)] == [1, 1]
    full = [[len(o.body) for o in part] for part in cut_requests([operation(4)] * 4, 8)]
    assert full == [[4, 4], [4, 4]]
    many = [len(part) for part in cut_requests([operation(1)] * (2 * MAX_OPERATIONS + 1), 10**9)]
    assert many == [MAX_OPERATIONS, MAX_OPERATIONS, 1]
    assert not list(cut_requests([], 8))


# --- answers, as recorded on Elasticsearch 9.5 (the last ones as its sources raise them)

CONFLICT = {
    "type": "version_conflict_engine_exception",
    "reason": "[a]: version conflict, current version [7] is higher or equal to the one provided [6]",
}


@pytest.mark.parametrize(
    ("status", "error", "outcome"),
    [
        (201, None, ItemVerdict.APPLIED),
        (200, None, ItemVerdict.APPLIED),
        (300, None, ItemVerdict.RETRY),
        (404, None, ItemVerdict.APPLIED),  # a delete of a missing document
        (409, CONFLICT, ItemVerdict.REFUSED),
        (
            400,
            {"type": "document_parsing_exception", "reason": "[1:7] failed to parse"},
            ItemVerdict.DEAD,
        ),
        (
            400,
            {"type": "strict_dynamic_mapping_exception", "reason": "[1:2] mapping set to"},
            ItemVerdict.DEAD,
        ),
        (
            400,
            {"type": "illegal_argument_exception", "reason": "Limit of total fields"},
            ItemVerdict.DEAD,
        ),
        (413, {"type": "document_too_large", "reason": ""}, ItemVerdict.DEAD),
        (429, {"type": "cluster_block_exception", "reason": "blocked by: [TOO_MANY"}, ItemVerdict.RETRY),
        (
            403,
            {"type": "cluster_block_exception", "reason": "blocked by: [FORBIDDEN/8"},
            ItemVerdict.RETRY,
        ),
        (400, {"type": "index_closed_exception", "reason": "closed"}, ItemVerdict.RETRY),
        (429, {"type": "es_rejected_execution_exception", "reason": "rejected"}, ItemVerdict.RETRY),
        (
            429,
            {"type": "circuit_breaking_exception", "reason": "[parent] Data too large"},
            ItemVerdict.RETRY,
        ),
        (
            503,
            {"type": "unavailable_shards_exception", "reason": "[a][0] primary shard"},
            ItemVerdict.RETRY,
        ),
        (
            503,
            {"type": "process_cluster_event_timeout_exception", "reason": "put-mapping"},
            ItemVerdict.RETRY,
        ),
        (500, {"type": "null_pointer_exception", "reason": ""}, ItemVerdict.RETRY),
        (429, {"type": "a_name_of_tomorrow", "reason": ""}, ItemVerdict.RETRY),
        (409, {"type": "something_else", "reason": ""}, ItemVerdict.RETRY),
        (
            403,
            {"type": "security_exception", "reason": "action [x] is unauthorized"},
            ItemVerdict.ACCESS,
        ),
        (401, {"type": "security_exception", "reason": "missing credentials"}, ItemVerdict.ACCESS),
        (404, {"type": "index_not_found_exception", "reason": "no such index [x]"}, ItemVerdict.MISSING),
    ],
)
def test_every_answer_has_its_outcome(
    status: int, error: dict[str, str] | None, outcome: ItemVerdict
) -> None:
    item = {"status": status} | ({"error": error} if error else {})
    assert classify(status, item) is outcome


def test_the_version_in_a_conflict_is_a_hint() -> None:
    assert parse_stored_version({"error": CONFLICT}) == 7
    assert parse_stored_version({"error": {"type": CONFLICT["type"], "reason": "said otherwise"}}) is None


def test_a_reason_shows_no_value_of_the_document() -> None:
    reason = "[1:7] failed to parse field [n] of type [integer] in document with id 'b'."
    told = {"type": "document_parsing_exception", "reason": f"{reason} Preview of field's value: 'x'"}
    assert get_cause({"error": told}) == ("document_parsing_exception", reason)


def rejected(operation_bytes: int, others_bytes: int) -> dict[str, str]:
    """Return what `IndexingPressure` says, with a limit of 1000 bytes."""
    return {
        "type": "es_rejected_execution_exception",
        "reason": "rejected execution of coordinating operation"
        f" [coordinating_and_primary_bytes={others_bytes}, replica_bytes=0, all_bytes={others_bytes},"
        f" coordinating_operation_bytes={operation_bytes},"
        " max_coordinating_bytes=1000]",
    }


REJECTED_ALONE = rejected(1001, 0)
REJECTED_BESIDE_OTHERS = rejected(1000, 1)


@pytest.mark.parametrize(
    ("status", "body", "at_fault"),
    [
        (413, None, True),
        (413, "<html>nginx</html>", True),
        (400, {"error": {"type": "action_request_validation_exception", "reason": "too long"}}, True),
        (400, {"error": {"type": "index_closed_exception", "reason": "closed"}}, False),
        (400, "<html>The plain HTTP request was sent to HTTPS port</html>", False),
        (429, {"error": {"type": "es_rejected_execution_exception"}}, False),
        (429, {"error": REJECTED_ALONE}, True),
        (429, {"error": REJECTED_BESIDE_OTHERS}, False),
    ],
)
def test_only_some_refused_requests_are_taken_apart(status: int, body: object, at_fault: bool) -> None:
    assert is_document_at_fault(answered(status, body)) is at_fault


def test_a_failure_without_an_answer_is_no_fault_of_a_document() -> None:
    assert is_document_at_fault(AwayError("no answer")) is False


def test_a_rejected_document_comes_with_its_size_or_with_the_servers_reason() -> None:
    assert describe_rejection(answered(413, None), 1234) == (
        "with 1234 bytes it is larger than the server takes (http.max_content_length)"
    )
    assert describe_rejection(answered(400, es("index_closed_exception")), 1234) == (
        "index_closed_exception because"
    )


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (None, ("", "")),
        ("<html>", ("", "")),
        ({}, ("", "")),
        ({"error": None}, ("", "")),
        ({"error": "no handler"}, ("", "no handler")),
        ({"error": {}}, ("", "")),
        ({"error": {"type": "t", "reason": "r"}}, ("t", "r")),
    ],
)
def test_the_cause_is_found_in_every_kind_of_answer(body: object, cause: tuple[str, str]) -> None:
    assert get_cause(body) == cause


def answered(status: int, body: Any, **headers: str) -> AnswerError:
    return AnswerError("Elasticsearch", status, body, HTTPHeaderDict(headers))


def es(type: str) -> dict[str, Any]:
    return {"error": {"type": type, "reason": "because"}}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (answered(401, es("security_exception")), AccessError),
        (answered(403, es("security_exception")), AccessError),
        (answered(403, es("cluster_block_exception")), RetryableError),
        (answered(404, es("index_not_found_exception")), FatalError),
        (answered(404, es("search_phase_execution_exception")), RetryableError),
        (answered(400, es("mapper_parsing_exception")), ConfigError),
        (answered(400, "<html>"), ConfigError),
        (answered(408, None), RetryableError),
        (answered(429, es("es_rejected_execution_exception")), RetryableError),
        (answered(500, "oops"), RetryableError),
        (answered(502, "<html>bad gateway"), AwayError),
        (answered(503, es("cluster_block_exception")), AwayError),
    ],
)
def test_every_answer_that_is_an_error_is_one_of_ours(error: AnswerError, kind: type[PillowError]) -> None:
    assert type(to_pillow_error(error)) is kind
    assert str(to_pillow_error(error)).startswith("Elasticsearch answered")


def test_an_answer_that_is_an_error_is_raised_as_ours() -> None:
    with pytest.raises(AwayError, match="Elasticsearch answered 504"), translate_errors():
        raise answered(504, None)


def test_a_limit_of_the_servers_memory_comes_with_the_remedy() -> None:
    assert describe_cause({"error": REJECTED_ALONE}).endswith("indexing_pressure.memory.limit")
    assert "heap" not in describe_cause({"error": REJECTED_BESIDE_OTHERS})


def test_retry_after_is_honoured() -> None:
    busy = to_pillow_error(answered(429, None, **{"retry-after": "7"}))
    assert isinstance(busy, RetryableError)
    assert busy.retry_after_seconds == 7
    dated = to_pillow_error(answered(503, None, **{"retry-after": "Sat, 01 Jan 2000 10:00:00 GMT"}))
    assert isinstance(dated, RetryableError)
    assert dated.retry_after_seconds == 0, "a date that is over"


@pytest.mark.parametrize(("is_late", "kind"), [(True, RetryableError), (False, AwayError)])
def test_a_server_that_may_be_at_work_is_not_away(is_late: bool, kind: type[PillowError]) -> None:
    assert type(to_connection_error("OpenSearch", TimeoutError("late"), is_late=is_late)) is kind


def test_an_untrusted_certificate_is_for_the_operator_a_cut_handshake_is_not() -> None:
    untrusted = ssl.SSLCertVerificationError("self-signed certificate")
    error = to_connection_error("OpenSearch", untrusted, is_late=False)
    assert type(error) is AccessError
    assert str(error).startswith("The certificate of OpenSearch is not trusted")
    assert "ca_bundle" in str(error)
    cut = ssl.SSLEOFError("EOF occurred in violation of protocol")
    assert type(to_connection_error("OpenSearch", cut, is_late=False)) is AwayError


def test_our_own_error_in_the_client_is_passed_on() -> None:
    ours = RetryableError("too long")
    assert to_connection_error("OpenSearch", ours, is_late=False) is ours


def test_of_several_outputs_the_least_final_answer_counts() -> None:
    result = BulkResult()
    assert result.removed == 0
    result.refused = {"refused": 9, "dead": 9, "retry": 9}
    result.dead = {"dead": "bad", "retry": "bad"}
    result.retry = {"retry": "busy"}
    assert result.to_write_result() == WriteResult(
        refused={"refused": 9}, dead={"dead": "bad"}, retry={"retry": "busy"}
    )


# --- names and options


def output(**options: Any) -> SearchOutput:
    return SearchOutput(**{"index": "cases", **options})


def test_the_index_is_named_by_what_is_in_it() -> None:
    named = make_spec(output())
    assert named.name.startswith("cases-")
    assert named.write_alias == f"{named.name}-write"
    assert make_spec(output()).name == named.name
    others = [
        output(mapping={"dynamic": False}),
        output(settings={"number_of_shards": 2}),
        output(deletes="tombstone"),
        output(deletes="mark"),
    ]
    assert len({named.name, *(make_spec(other).name for other in others)}) == 5
    assert make_spec(output(tombstone_ttl="1h", pipeline="p")).name == named.name


def test_one_setting_has_one_name_however_it_is_written() -> None:
    ways: list[dict[str, Any]] = [
        {"number_of_shards": 2, "refresh_interval": "5s", "analysis": {"analyzer": {"a": {"type": "x"}}}},
        {"index": {"number_of_shards": 2, "refresh_interval": "5s"}, "index.analysis.analyzer.a.type": "x"},
        {
            "index.number_of_shards": 2,
            "index": {"refresh_interval": "5s", "analysis.analyzer.a": {"type": "x"}},
        },
    ]
    assert flatten_settings(ways[0]) == flatten_settings(ways[1]) == flatten_settings(ways[2])
    assert len({make_spec(output(settings=settings)).name for settings in ways}) == 1


def test_versions_of_deletes_are_remembered_for_an_hour_unless_told_otherwise() -> None:
    assert make_spec(output()).settings["index.gc_deletes"] == "1h"
    assert make_spec(output(settings={"index": {"gc_deletes": "5m"}})).settings["index.gc_deletes"] == "5m"


def test_the_outputs_digest_knows_alias_mapping_and_settings() -> None:
    def digest(**options: Any) -> str:
        connection = ElasticsearchConnection(hosts=("http://es:9200",))
        one = ElasticsearchTransport("search", TailKey("p", "c/d"), connection, {"docs": output(**options)})
        return one.outputs_digest()

    same = digest()
    assert digest(tombstone_ttl="1h") == same
    assert same not in {digest(index="forms"), digest(mapping={"dynamic": False}), digest(settings={"x": 1})}


@pytest.mark.parametrize(
    "index", ["Cases", "a b", "_a", "-a", "a*", "a/b", "", "x" * 241, "a,b", "a#b", "a:b"]
)
def test_a_name_that_elasticsearch_refuses_is_refused(index: str) -> None:
    with pytest.raises(ValidationError, match="is not a valid index name"):
        output(index=index)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"many": True}, "at most one row"),
        ({"mapping": {"mappings": {}}}, "move its value up one level"),
        ({"mapping": {"enabled": False}, "deletes": "tombstone"}, "needs an indexed field"),
        ({"mapping": {"enabled": False}, "deletes": "mark"}, "needs an indexed field"),
        ({"mapping": {"properties": {"_deleted_at": {"type": "date"}}}}, "remove it from the mapping"),
        ({"mapping": {"_source": {"excludes": ["a"]}}, "deletes": "mark"}, "stored as they were sent"),
        ({"settings": {"mode": "logsdb"}, "deletes": "mark"}, "stored as they were sent"),
        ({"settings": {"index.derived_source.enabled": True}, "deletes": "mark"}, "stored as they were sent"),
        ({"settings": {"mapping": {"source": {"mode": "synthetic"}}}, "deletes": "mark"}, "stored as they"),
    ],
)
def test_what_an_index_cannot_do_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        output(**options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"hosts": ("es:9200",)}, "needs scheme, host and port"),
        ({"hosts": ("https://es",)}, "needs scheme, host and port"),
        ({"hosts": ("https://u:p@es:9200",)}, "put them into `auth`"),
        ({"hosts": ()}, "at least 1"),
        ({"auth": {"username": "u"}}, "give both"),
        ({"auth": {}}, "exactly one of these: api_key"),
        ({"auth": {"api_key": "k", "username": "u", "password": "p"}}, "exactly one of these: api_key"),
    ],
)
def test_a_connection_that_cannot_work_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ElasticsearchConnection(**{"hosts": ("http://es:9200",), **options})


def test_secrets_are_not_shown() -> None:
    connection = ElasticsearchConnection(
        hosts=("http://es:9200",), auth={"username": "u", "password": "secret"}
    )
    assert "secret" not in repr(connection)

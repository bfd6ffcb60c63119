"""Both search transports where sizes, lines and servers are not as one would wish."""

from __future__ import annotations

import gc
import os
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import greenlet
import pytest
from gevent import monkey
from gevent.pywsgi import WSGIServer

from pillows import registry
from pillows.errors import AccessError, AwayError, ConfigError, FatalError, RetryableError
from pillows.models import WriteResult, write_version
from pillows.tcp_keepalive import USER_TIMEOUT_MS
from pillows.transports.common.search.connection_pool import CONNECT_SECONDS
from pillows.transports.common.search.transport import SearchTransport
from pillows.transports.elasticsearch.transport import ElasticsearchTransport
from pillows.transports.opensearch.transport import OpensearchTransport
from tests.conformance.steps import assert_applied, write_until_answered
from tests.conformance.target import batch, document, gone
from tests.integration.transports.search_index import ANYTHING, Node, many, running
from tests.servers.process import HttpServer
from tests.servers.scripted import ScriptedServer, json_reply
from tests.servers.tcp_proxy import TcpProxy
from tests.support.fronts import make_certificate, serve_prefix
from tests.support.sizes import size

#: The standard library's own, which block their thread.
_read, _write = (monkey.get_original("os", name) for name in ("read", "write"))

OwnServer = tuple[type[SearchTransport], Callable[..., HttpServer]]

NAMES = {ElasticsearchTransport: "Elasticsearch", OpensearchTransport: "OpenSearch"}

#: What a server of each product answers to `GET /`.
ROOTS: dict[type[SearchTransport], tuple[Any, dict[str, Any]]] = {
    ElasticsearchTransport: (
        {"version": {"number": "9.1.0", "build_flavor": "default"}, "tagline": "You Know, for Search"},
        {"x_elastic_product": "Elasticsearch"},
    ),
    OpensearchTransport: ({"version": {"distribution": "opensearch", "number": "3.1.0"}}, {}),
}


@pytest.fixture(params=["elasticsearch", pytest.param("opensearch", marks=pytest.mark.proof)])
def own_server(request: pytest.FixtureRequest) -> OwnServer:
    """A transport, and how to start a server for it."""
    kind: type[SearchTransport] = registry.transport(request.param)  # type: ignore[assignment]
    return kind, request.getfixturevalue(f"{request.param}_server")


@pytest.fixture(params=[ElasticsearchTransport, OpensearchTransport])
def kind(request: pytest.FixtureRequest) -> type[SearchTransport]:
    """Either transport."""
    found: type[SearchTransport] = request.param
    return found


# --- sizes and requests


def test_requests_are_cut_by_size(each_node: Node, tcp_proxy: Callable[[Any], TcpProxy]) -> None:
    node = each_node
    proxy = tcp_proxy(node.address)
    with running(node, url=proxy.url, connection={"max_request": "64KiB"}) as one:
        proxy.forget()
        assert_applied(one.write(batch(*many(500, text="x" * 1000))))
        sent = proxy.received("to_server")
        lengths = [int(part.split(b"\r\n")[0]) for part in sent.split(b"ontent-Length: ")[1:]] or [
            int(part.split(b"\r\n")[0]) for part in sent.split(b"content-length: ")[1:]
        ]
    assert 8 <= len(lengths) <= 12
    assert max(lengths) <= 64 * 1024
    assert len(node.read("docs")) == 500


def test_requests_are_compressed_if_asked_for(each_node: Node, tcp_proxy: Callable[[Any], TcpProxy]) -> None:
    node = each_node
    proxy = tcp_proxy(node.address)
    with running(node, url=proxy.url, connection={"compress": True}) as one:
        proxy.forget()
        assert_applied(one.write(batch(*many(100, text="x" * 1000))))
        assert len(proxy.received("to_server")) < 20_000
    assert len(node.read("docs")) == 100


def test_a_request_that_is_too_large_is_halved_and_a_restart_is_survived(
    es_prefix: str, own_server: OwnServer
) -> None:
    kind, start = own_server
    server = start(settings={"http.max_content_length": "64kb"})
    node = Node(server.url, es_prefix, kind)
    documents = many(200, text="x" * 2000)
    documents[77] = document("too-large", 1, {"text": "x" * 80_000})
    with running(node) as one:
        result = one.write(batch(*documents))
        assert set(result.dead) == {"too-large"}
        assert "http.max_content_length" in result.dead["too-large"]
        assert not result.retry
        assert not result.refused
        assert set(node.read("docs")) == {d.id for d in documents} - {"too-large"}
        _restarts_are_survived(server, node, one)


def test_b6_a_document_larger_than_the_servers_memory_for_indexing_is_a_dead_letter(
    es_prefix: str, own_server: OwnServer
) -> None:
    kind, start = own_server
    server = start(
        settings={
            "indexing_pressure.memory.coordinating.limit": "64kb",
            "indexing_pressure.memory.primary.limit": "64kb",
        }
    )
    node = Node(server.url, es_prefix, kind)
    documents = many(20, text="x" * 1000)
    documents[7] = document("too-large", 1, {"text": "x" * 80_000})
    with running(node) as one:
        result = one.write(batch(*documents))
        assert set(result.dead) == {"too-large"}
        assert "indexing_pressure.memory.limit" in result.dead["too-large"]
        assert not result.retry
        assert set(node.read("docs")) == {d.id for d in documents} - {"too-large"}


def _restarts_are_survived(server: HttpServer, node: Node, one: SearchTransport) -> None:
    server.stop()
    with pytest.raises(RetryableError):
        one.write(batch(document("during", 1, {"n": 1})))
    with pytest.raises(RetryableError):
        one.finish_pass(1)
    server.start()
    assert_applied(write_until_answered(one, batch(document("during", 1, {"n": 1}), gone("d00000", 2))))
    assert "during" in node.read("docs")
    assert "d00000" not in node.read("docs")


def write_until_taken(one: Any, sent: Any) -> WriteResult:
    """Write a batch again while the server, which other tests use too, is short of memory for it."""
    deadline = time.monotonic() + 60
    while (result := one.write(sent)).retry and time.monotonic() < deadline:
        gevent.sleep(0.1)
    assert isinstance(result, WriteResult)
    return result


def test_c2_compression_waits_for_no_other_pillow(each_node: Node) -> None:
    """It works although all shared threads of the hub are busy, and the thread of another target."""
    pool = gevent.get_hub().threadpool
    reading, writing = os.pipe()  # a thread that reads from it really waits
    with (
        running(each_node, connection={"compress": True}) as one,
        running(each_node, connection={"compress": True}, other=ANYTHING) as other,
    ):
        assert_applied(one.write(batch(document("first", 1, {"n": 1}))))  # connects, which takes a thread
        waiting: list[Any] = [pool.spawn(_read, reading, 1) for _ in range(pool.maxsize)]
        waiting.append(gevent.spawn(other._compressor.run, _read, reading, 1))
        try:
            with gevent.Timeout(30):
                assert_applied(one.write(batch(*many(100))))
        finally:
            _write(writing, b"x" * len(waiting))
            gevent.joinall(waiting)
            os.close(reading)
            os.close(writing)
    assert len(each_node.read("docs")) == 101


@pytest.mark.parametrize("count", [2000, 1], ids=["a-batch", "5-MB"])
def test_building_and_reading_never_hold_the_hub(node_in_proof: Node, count: int) -> None:
    """Two switches of greenlets are at most 50 ms of the thread's CPU time apart."""
    node = node_in_proof
    text = "x" * (300 if count > 1 else 5 * 2**20)
    written = batch(*many(count, text=text))
    raw = batch(*(document(f"r{n}", 1, b'{"_id":"r%d","t":"%b"}' % (n, text.encode())) for n in range(count)))
    longest = 0.0
    last = time.thread_time()

    def trace(event: str, args: Any) -> None:
        nonlocal longest, last
        now = time.thread_time()
        longest, last = max(longest, now - last), now

    gc.collect()
    gc.freeze()  # what other tests have left is not ours to walk through
    with running(node) as one:
        greenlet.settrace(trace)
        try:
            last = time.thread_time()
            results = [write_until_taken(one, each) for each in (written, raw, raw)]
        finally:
            greenlet.settrace(None)
            gc.unfreeze()
        assert results[:2] == [WriteResult(), WriteResult()]
        assert len(results[2].refused) == count
    assert longest < size(ci=0.2, proof=0.05), "a core that others use too is slower even by its own clock"


# --- servers that are not what they should be


def root(kind: type[SearchTransport], **version: Any) -> bytes:
    body, headers = ROOTS[kind]
    return json_reply({**body, "version": body["version"] | version}, **headers)


@pytest.mark.parametrize("version", ["8.19.2", "10.0.0"])
def test_an_elasticsearch_of_another_major_version_is_refused(
    scripted_server: Callable[[], ScriptedServer], version: str
) -> None:
    server = scripted_server().on("GET", "/", root(ElasticsearchTransport, number=version))
    one = Node(server.url).transport({"docs": {}})
    with pytest.raises(ConfigError, match=rf"is Elasticsearch {version}, the client library is 9\."):
        one.open()
    one.close()
    assert server.requests[0].headers["accept"] == "*/*", "an older server refuses to be asked as a 9"


@pytest.mark.parametrize(("version", "is_known"), [("1.3.20", False), ("2.19.7", True), ("7.10.2", False)])
def test_an_opensearch_of_an_unknown_major_version_is_refused(
    scripted_server: Callable[[], ScriptedServer], version: str, is_known: bool
) -> None:
    server = scripted_server().on("GET", "/", root(OpensearchTransport, number=version))
    one = Node(server.url, kind=OpensearchTransport).transport({})
    if is_known:
        one.open()
    else:
        with pytest.raises(ConfigError, match=rf"is OpenSearch {version}.*override_main_response_version"):
            one.open()
    one.close()


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"version": None},
        {"version": 9},
        *({"version": {"number": number}} for number in (None, "nine", "9" * 5000, "\u0669.1")),
        *(
            {"version": {"number": number, "distribution": "opensearch"}}
            for number in (None, "three", "3" * 5000)
        ),
    ],
)
def test_c5_an_odd_version_is_an_error_with_a_remedy(
    scripted_server: Callable[[], ScriptedServer], kind: type[SearchTransport], answer: object
) -> None:
    server = scripted_server().on("GET", "/", json_reply(answer, x_elastic_product="Elasticsearch"))
    one = Node(server.url, kind=kind).transport({"docs": {}})
    with pytest.raises(ConfigError) as refused:
        one.open()
    one.close()
    assert refused.value.remedy
    assert len(str(refused.value)) < 500


def test_a_server_that_is_neither_product_is_refused(
    scripted_server: Callable[[], ScriptedServer], kind: type[SearchTransport]
) -> None:
    server = scripted_server().on("GET", "/", json_reply({"version": {"number": "9.1.0"}}))
    one = Node(server.url, kind=kind).transport({"docs": {}})
    with pytest.raises(ConfigError, match=f"does not say that it is {NAMES[kind]}"):
        one.open()
    one.close()


def test_the_other_product_is_refused_with_the_type_to_write(
    each_node: Node, kind: type[SearchTransport]
) -> None:
    """Each transport is tried with a real server of each product."""
    one = Node(each_node.url, each_node.prefix, kind).transport({"docs": {}})
    if kind is each_node.kind:
        one.open()
    else:
        said = rf"The server is {NAMES[each_node.kind]} \d+\.\d.*Remedy: write `type: {each_node.kind.TYPE}`"
        with pytest.raises(ConfigError, match=said):
            one.open()
    one.close()


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_does_not_let_us_in(
    scripted_server: Callable[[], ScriptedServer], kind: type[SearchTransport], status: int
) -> None:
    refusal = {"error": {"type": "security_exception", "reason": "unable to authenticate user [u]"}}
    server = scripted_server().on("GET", "/", json_reply(refusal, status))
    one = Node(server.url, kind=kind).transport({"docs": {}}, auth={"username": "u", "password": "hidden"})
    with pytest.raises(AccessError, match="unable to authenticate") as refused:
        one.open()
    one.close()
    assert "hidden" not in str(refused.value)
    assert server.requests[0].headers["authorization"].startswith("Basic ")
    assert len(server.requests) == 1, "wrong passwords are not tried again by the client"


def test_an_api_key_is_sent(scripted_server: Callable[[], ScriptedServer]) -> None:
    server = scripted_server().on("GET", "/", json_reply({}, 503))
    one = Node(server.url).transport({"docs": {}}, auth={"api_key": "a2V5"})
    with pytest.raises(RetryableError):
        one.open()
    one.close()
    assert server.requests[0].headers["authorization"] == "ApiKey a2V5"


def test_a_token_is_sent(scripted_server: Callable[[], ScriptedServer]) -> None:
    server = scripted_server().on("GET", "/", json_reply({}, 503, retry_after="7"))
    one = Node(server.url, kind=OpensearchTransport).transport({"docs": {}}, auth={"token": "a.b.c"})
    with pytest.raises(AwayError) as away:
        one.open()
    one.close()
    assert server.requests[0].headers["authorization"] == "Bearer a.b.c"
    assert away.value.retry_after_seconds == 7
    assert len(server.requests) == 1, "the client does not try again"


def test_a_missing_certificate_authority_is_a_config_error(kind: type[SearchTransport]) -> None:
    one = Node("https://127.0.0.1:1", kind=kind).transport({"docs": {}}, ca_bundle="/no/such/file.pem")
    with pytest.raises(ConfigError, match="can't be read"):
        one.open()
    one.close()


def test_only_a_server_whose_authority_is_trusted_is_talked_to(
    kind: type[SearchTransport], tmp_path: Path
) -> None:
    certificate, key = make_certificate(tmp_path)

    def busy(environ: object, start: Callable[..., Any]) -> list[bytes]:
        start("503 Service Unavailable", [("Content-Type", "application/json")])
        return [b"{}"]

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = WSGIServer(("127.0.0.1", 0), busy, ssl_context=context, log=None, error_log=None)
    server.start()
    node = Node(f"https://127.0.0.1:{server.server_port}", kind=kind)
    untrusting, trusting = node.transport({"docs": {}}), node.transport({"docs": {}}, ca_bundle=certificate)
    with pytest.raises(AccessError, match="set `ca_bundle` to its certificate authority"):
        untrusting.open()
    with pytest.raises(RetryableError, match="503"):
        trusting.open()
    untrusting.close()
    trusting.close()
    server.stop(timeout=1)


def test_f3_a_path_before_the_server_is_part_of_every_request(each_node: Node) -> None:
    with serve_prefix(each_node.url, "/search/v1") as behind:
        for version, url in enumerate((behind, f"{behind}/"), 1):
            with running(each_node, url=url) as one:
                assert_applied(
                    write_until_answered(one, batch(document("a", version, {"n": 1}), gone("b", version)))
                )
                assert [each.id for page in one.stored("docs") for each in page] == ["a"]
                assert one.finish_pass(1) == 0
        wrong = each_node.transport({"docs": {}}, url=behind.removesuffix("/v1"))
        with pytest.raises(ConfigError, match="a path there is what all requests begin with, not an index"):
            wrong.open()
        wrong.close()
    assert each_node.read("docs") == {"a": {"n": 1}}


def test_a_server_that_is_away_is_retryable_and_asked_once(kind: type[SearchTransport]) -> None:
    one = Node("http://127.0.0.1:1", kind=kind).transport({"docs": {}})
    with pytest.raises(AwayError, match="refused"):
        one.open()
    one.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such option")
def test_a_peer_that_has_vanished_is_noticed_long_before_the_timeout_of_a_request(each_node: Node) -> None:
    """A request waits for its full time only where somebody is there."""
    with running(each_node) as one:
        transport = one._client.library.transport
        (pool,) = getattr(transport, "seed_connections", None) or transport.node_pool.all()
        sockets = [made.sock for made in pool.bounded.connections]
        assert sockets
        for connection in sockets:
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert (
                connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
                == USER_TIMEOUT_MS
                <= 30_000
            )
            assert 0 < connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 20
            assert connection.gettimeout() > CONNECT_SECONDS  # once it is open the request's own time counts


def test_a_server_that_says_nothing_is_given_up_after_the_timeout(
    each_node: Node, tcp_proxy: Callable[[Any], TcpProxy]
) -> None:
    """A request that timed out may still be applied; after another one the document is there once."""
    node = each_node
    proxy = tcp_proxy(node.address)
    written = batch(document("a", 1, {"n": 1}))
    with running(node, url=proxy.url, connection={"timeout": "2s"}) as one:
        proxy.stall()
        began = time.monotonic()
        with pytest.raises(RetryableError, match="timed out"):
            one.write(written)
        assert time.monotonic() - began < size(ci=30, proof=5)
        proxy.flow()
        assert write_until_answered(one, written).refused in ({}, {"a": write_version(1, 1)})
    assert node.read("docs") == {"a": {"n": 1}}


def test_a_transport_that_was_not_opened_says_so(kind: type[SearchTransport]) -> None:
    one = Node("http://127.0.0.1:1", kind=kind).transport({"docs": {}})
    with pytest.raises(FatalError, match="before it was opened"):
        one.write(batch())

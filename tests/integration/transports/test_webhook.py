"""The webhook transport against a server of the test's own, which checks what a receiver would."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest
from pydantic import ValidationError

from checkpoints import TailKey
from pillows.errors import AccessError, AwayError, ConfigError, FatalError, RetryableError
from pillows.models import WriteResult, write_version
from pillows.transports.base import TargetState
from pillows.transports.webhook.options import WebhookConnection, WebhookOutput
from pillows.transports.webhook.transport import WebhookTransport
from tests.conformance.append_only import Appended, AppendOnlyConformance, AppendOnlyTarget, without_ids
from tests.conformance.target import KEY, at, batch, document, gone
from tests.servers.scripted import CLOSE, HANG, RESET, Pause, Request, ScriptedServer, head, json_reply
from tests.support.webhook import Webhook

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()

MakeHook = Callable[..., WebhookTransport]


@pytest.fixture
def receiver(scripted_server: Callable[[], ScriptedServer]) -> Webhook:
    return Webhook(scripted_server())


@pytest.fixture
def hook(receiver: Webhook) -> Iterator[MakeHook]:
    made: list[WebhookTransport] = []

    def make(**options: Any) -> WebhookTransport:
        connection = WebhookConnection(**{"url": receiver.url, "timeout": "2s"} | options)
        made.append(
            WebhookTransport("hook", KEY, connection, {"docs": WebhookOutput(), "other": WebhookOutput()})
        )
        return made[-1]

    yield make
    for one in made:
        one.close()


class WebhookTarget(AppendOnlyTarget):
    """A receiver that keeps everything.

    Args:
        server: where it listens.
    """

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.requests: list[Request] = []
        server.on("POST", "/hook", self._take)

    def _take(self, request: Request) -> bytes:
        self.requests.append(request)
        return head(204, length=0)

    def transport(self, *outputs: str, key: TailKey = KEY) -> WebhookTransport:
        connection = WebhookConnection(url=f"{self.server.url}/hook", timeout=2.0)
        return WebhookTransport("hook", key, connection, {output: WebhookOutput() for output in outputs})

    def read(self, output: str) -> list[Appended]:
        return [
            Appended(
                id=each["id"],
                rev=each["rev"],
                version=each["version"],
                rows=[without_ids(row) for row in each["rows"][output]],
            )
            for request in self.requests
            for each in request.json()["documents"]
        ]

    @contextmanager
    def away(self) -> Iterator[None]:
        self.server.on("POST", "/hook", [RESET])
        yield
        self.server.on("POST", "/hook", self._take)


class TestWebhookConformance(AppendOnlyConformance):
    @pytest.fixture
    def target(self, scripted_server: Callable[[], ScriptedServer]) -> WebhookTarget:
        return WebhookTarget(scripted_server())


def test_a_message_holds_every_documents_complete_rows(receiver: Webhook, hook: MakeHook) -> None:
    http = hook()
    assert http.open() == TargetState()
    http.acquire(at("0"))
    raw = document("a/\u2028", 3, b'{"n": 1.0}', rev="3-x")
    written = batch(
        raw, document("b", 1, {"n": 1}, {"n": 2}, output="other", rev="1-y"), gone("c", 2), epoch=2
    )
    assert http.write(written) == WriteResult()
    (request,) = receiver.requests
    assert request.json() == {
        "pillow": "cases",
        "source": "couch/cases",
        "epoch": 2,
        "documents": [
            {
                "id": "a/\u2028",
                "rev": "3-x",
                "version": write_version(2, 3),
                "rows": {"docs": [{"n": 1.0}], "other": []},
            },
            {
                "id": "b",
                "rev": "1-y",
                "version": write_version(2, 1),
                "rows": {"docs": [], "other": [{"n": 1}, {"n": 2}]},
            },
            {
                "id": "c",
                "rev": gone("c", 2).rev,
                "version": write_version(2, 2),
                "rows": {"docs": [], "other": []},
            },
        ],
    }
    assert request.headers["content-type"] == "application/json"


def test_a_delete_within_the_first_pass_is_sent(receiver: Webhook, hook: MakeHook) -> None:
    """Nothing tells whether the document was sent: it may have been, earlier in the same pass."""
    hook().write(batch(gone("c", 2), first_pass=True))
    assert receiver.documents["c"]["rows"] == {"docs": [], "other": []}


def test_an_empty_batch_sends_nothing(receiver: Webhook, hook: MakeHook) -> None:
    hook().write(batch())
    assert receiver.requests == []


def test_the_signature_is_that_of_standard_webhooks(receiver: Webhook, hook: MakeHook) -> None:
    hook(secret=SECRET, headers={"Authorization": "Bearer t0ken"}).write(batch(document("a", 1, {"n": 1})))
    (request,) = receiver.requests
    id, timestamp = request.headers["webhook-id"], request.headers["webhook-timestamp"]
    signed = f"{id}.{timestamp}.".encode() + request.body
    expected = hmac.new(b"0123456789abcdef0123456789abcdef", signed, hashlib.sha256).digest()
    assert request.headers["webhook-signature"] == f"v1,{base64.b64encode(expected).decode()}"
    assert request.headers["authorization"] == "Bearer t0ken"


def test_without_a_secret_nothing_is_signed(receiver: Webhook, hook: MakeHook) -> None:
    hook().write(batch(document("a", 1, {"n": 1})))
    assert "webhook-signature" not in receiver.requests[0].headers


def test_a_retried_message_has_the_same_key_and_another_content_another(
    receiver: Webhook, hook: MakeHook
) -> None:
    http = hook()
    for n in (1, 1, 2):
        http.write(batch(document("a", n, {"n": n})))
    keys = [request.headers["idempotency-key"] for request in receiver.requests]
    assert keys[0] == keys[1] != keys[2]
    assert keys[0] == f'"{receiver.requests[0].headers["webhook-id"]}"'


def test_messages_are_cut_at_their_size_and_stay_in_order(receiver: Webhook, hook: MakeHook) -> None:
    documents = [document(f"d{n:03}", 1, {"text": "x" * 1000}) for n in range(100)]
    large = document("large", 1, {"text": "x" * 50_000})
    hook(max_bytes="20KiB").write(batch(*documents, large))
    sent = [[one["id"] for one in request.json()["documents"]] for request in receiver.requests]
    assert [id for ids in sent for id in ids] == [d.id for d in documents] + ["large"]
    assert sent[-1] == ["large"]
    assert all(len(request.body) < 21_000 for request in receiver.requests[:-1])


@pytest.mark.parametrize("status", [400, 413, 422])
def test_documents_at_fault_are_found_by_halving(receiver: Webhook, hook: MakeHook, status: int) -> None:
    def refuse(request: Request) -> bytes:
        answer = receiver.take(request)
        return answer.replace(b" 422 ", b" %d " % status)

    receiver.server.on("POST", "/hook", refuse)
    documents = [document(f"d{n:03}", 1, {"n": n}) for n in range(200)]
    documents[17], documents[140] = document("bad1", 1, {"n": 0}), document("bad2", 1, {"n": 0})
    result = hook().write(batch(*documents))
    assert set(result.dead) == {"bad1", "bad2"}
    assert f"answered {status}" in result.dead["bad1"]
    assert "bad1 is bad" in result.dead["bad1"]
    assert not result.retry
    assert set(receiver.documents) == {d.id for d in documents} - {"bad1", "bad2"}
    assert len(receiver.requests) < 40


def test_an_answer_may_name_single_documents(receiver: Webhook, hook: MakeHook) -> None:
    said = {"dead": {"a": "too odd", "stranger": "?"}, "retry": {"b": "locked"}}
    receiver.server.on("POST", "/hook", json_reply(said))
    result = hook().write(batch(*(document(id, 1, {"n": 1}) for id in "abc")))
    assert result == WriteResult(dead={"a": "too odd"}, retry={"b": "locked"})


def test_every_document_that_an_answer_names_counts_however_long_it_is(
    receiver: Webhook, hook: MakeHook
) -> None:
    """An answer that was cut off could not be read, and all of its documents counted as taken."""
    ids = [f"d{n:03}" for n in range(200)]
    receiver.server.on("POST", "/hook", json_reply({"retry": dict.fromkeys(ids, "locked " * 1000)}))
    assert set(hook().write(batch(*(document(id, 1, {"n": 1}) for id in ids))).retry) == set(ids)


def test_an_answer_that_is_too_long_to_be_read_takes_nothing(
    receiver: Webhook, hook: MakeHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pillows.transports.webhook.connection.MAX_ANSWER_BYTES", 1000)
    receiver.server.on("POST", "/hook", json_reply({"retry": {"a": "locked " * 1000}}))
    with pytest.raises(RetryableError, match="longer than 1000 bytes"):
        hook().write(batch(document("a", 1, {"n": 1})))


@pytest.mark.parametrize("said", [{"retry": ["a"]}, {"dead": {"a": None}}, {"retry": {"a": 5}, "dead": {}}])
def test_documents_that_are_named_in_another_form_do_not_count_as_taken(
    receiver: Webhook, hook: MakeHook, said: dict[str, Any]
) -> None:
    receiver.server.on("POST", "/hook", json_reply(said))
    with pytest.raises(RetryableError, match=r"dead.*retry.*id.*why"):
        hook().write(batch(document("a", 1, {"n": 1})))


@pytest.mark.parametrize("said", [b"[]", b'"taken"', b"thanks", b'{"ok":true}', b"{", b"\xff", b"[" * 5000])
def test_an_answer_that_names_no_document_takes_them_all(
    receiver: Webhook, hook: MakeHook, said: bytes
) -> None:
    receiver.server.on("POST", "/hook", head(200, length=len(said)) + said)
    assert hook().write(batch(document("a", 1, {"n": 1}))) == WriteResult()


def test_a_row_without_a_json_form_is_dead(receiver: Webhook, hook: MakeHook) -> None:
    result = hook().write(batch(document("a", 1, {"n": object()}), document("b", 1, {"n": 1})))
    assert set(result.dead) == {"a"}
    assert set(receiver.documents) == {"b"}


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504])
def test_a_busy_receiver_is_retryable(receiver: Webhook, hook: MakeHook, status: int) -> None:
    receiver.server.on("POST", "/hook", json_reply({}, status, Retry_After="7"))
    with pytest.raises(RetryableError, match=f"answered {status}") as caught:
        hook().write(batch(document("a", 1, {"n": 1})))
    assert caught.value.retry_after_seconds == 7


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ([CLOSE], "cannot be reached"),
        ([RESET], "cannot be reached"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort", CLOSE], "cannot be reached"),
        ([b"garbage\r\n\r\n", CLOSE], "cannot be reached"),
        ([HANG], r"did not answer|timed out"),
        ([head(200, length=100), *[b"x", Pause(0.05)] * 100], "did not answer within 2 s"),
    ],
)
def test_a_lost_or_endless_answer_is_retryable(
    receiver: Webhook, hook: MakeHook, script: list[Any], message: str
) -> None:
    receiver.server.on("POST", "/hook", script)
    with pytest.raises(RetryableError, match=message):
        hook(timeout="2s").write(batch(document("a", 1, {"n": 1})))
    receiver.server.on("POST", "/hook", receiver.take)


def test_a_connection_lost_before_or_after_converges(receiver: Webhook, hook: MakeHook) -> None:
    def take_and_vanish(request: Request) -> list[Any]:
        receiver.take(request)
        return [RESET]

    http = hook()
    for script in ([RESET], take_and_vanish):
        receiver.server.on("POST", "/hook", script)
        written = batch(document("a", len(receiver.requests) + 1, {"n": len(receiver.requests)}))
        with pytest.raises(RetryableError):
            http.write(written)
        receiver.server.on("POST", "/hook", receiver.take)
        assert http.write(written) == WriteResult()
        assert receiver.documents["a"]["version"] == write_version(1, written.documents[0].leaf_version)


def test_what_was_taken_is_not_sent_again_when_a_later_message_fails(
    receiver: Webhook, hook: MakeHook
) -> None:
    receiver.server.on("POST", "/hook", receiver.take, json_reply({}, 503))
    documents = [document(id, 1, {"text": "x" * 800}) for id in "abc"]
    result = hook(max_bytes="1KiB").write(batch(*documents))
    assert set(result.retry) == {"b", "c"}
    assert set(receiver.documents) == {"a"}


@pytest.mark.parametrize("status", [401, 403, 407])
def test_no_access_is_fatal(receiver: Webhook, hook: MakeHook, status: int) -> None:
    receiver.server.on("POST", "/hook", json_reply({}, status))
    with pytest.raises(AccessError, match="check the connection's `headers`"):
        hook().write(batch(document("a", 1, {"n": 1})))


@pytest.mark.parametrize("status", [301, 307, 404, 405, 410, 415])
def test_a_wrong_address_is_a_config_error_and_redirects_are_not_followed(
    receiver: Webhook, hook: MakeHook, status: int
) -> None:
    receiver.server.on("POST", "/hook", json_reply({}, status, Location="http://127.0.0.1:1/x"))
    with pytest.raises(ConfigError, match=r"points to http://127\.0\.0\.1:1\)"):
        hook().write(batch(document("a", 1, {"n": 1})))
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    "options",
    [{"headers": {"X-Bad": "line\nbreak"}}, {"headers": {"bad name\n": "x"}}, {"url": "http://[::1"}],
)
def test_invalid_headers_and_urls_are_config_errors_and_not_shown(
    hook: MakeHook, options: dict[str, Any]
) -> None:
    try:
        http = hook(**options)
    except ValidationError:
        return
    with pytest.raises(ConfigError, match="URL or headers are not valid") as caught:
        http.write(batch(document("a", 1, {"n": 1})))
    assert "break" not in str(caught.value)


def test_a_missing_certificate_is_a_config_error(hook: MakeHook) -> None:
    with pytest.raises(ConfigError, match=r"There is no file /nowhere\.pem"):
        hook(client_cert="/nowhere.pem").open()


def test_a_receiver_that_is_down_is_retryable() -> None:
    connection = WebhookConnection(url="http://127.0.0.1:1/hook", timeout="2s")
    http = WebhookTransport("hook", KEY, connection, {"docs": WebhookOutput()})
    with pytest.raises(AwayError, match=r"cannot be reached.*refused"):
        http.write(batch(document("a", 1, {"n": 1})))
    http.close()


SHOWN = "/services/T0/s3cr%20et"
TOKENS = f"{SHOWN}?token=abc%2Fdef"


@pytest.mark.parametrize(
    "answer",
    [
        [RESET],
        json_reply({"error": f"Cannot POST {SHOWN}"}, 404),
        json_reply({"error": f"Cannot POST {TOKENS}"}, 503),
        json_reply({}, 401, Location=f"/login?from={TOKENS}"),
        json_reply({}, 307, Location=f"https://other.example{TOKENS}"),
    ],
)
def test_what_a_url_holds_beside_the_place_is_in_no_message(
    receiver: Webhook, hook: MakeHook, answer: Any
) -> None:
    """Many services give a webhook whose path or query is its password."""
    receiver.server.on("POST", SHOWN, answer)
    with pytest.raises((RetryableError, FatalError)) as caught:
        hook(url=receiver.server.url + TOKENS).write(batch(document("a", 1, {"n": 1})))
    shown(caught.value)


def test_the_url_of_a_receiver_that_is_down_is_in_no_message(hook: MakeHook) -> None:
    with pytest.raises(AwayError, match=r"http://127\.0\.0\.1:1 cannot be reached.*refused") as caught:
        hook(url=f"http://127.0.0.1:1{TOKENS}").write(batch(document("a", 1, {"n": 1})))
    shown(caught.value)


def shown(error: BaseException) -> None:
    text = "".join(traceback.format_exception(error))
    assert not [part for part in ("s3cr", "T0", "abc", "def%", "%2Fdef") if part in text], text


def test_a_kill_in_mid_write_leaves_the_transport_usable(receiver: Webhook, hook: MakeHook) -> None:
    http = hook()
    receiver.server.on("POST", "/hook", [Pause(0.2), head(204, length=0)])
    writer = gevent.spawn(http.write, batch(document("a", 1, {"n": 1})))
    gevent.sleep(0.05)
    writer.kill(timeout=60)
    receiver.server.on("POST", "/hook", receiver.take)
    assert http.write(batch(document("a", 1, {"n": 1}))) == WriteResult()
    assert set(receiver.documents) == {"a"}


def test_credentials_are_never_shown() -> None:
    connection = WebhookConnection(
        url="https://example.org", headers={"Authorization": "Bearer t0ken"}, secret=SECRET
    )
    shown = repr(connection) + json.dumps(connection.model_dump(mode="json"))
    assert "t0ken" not in shown
    assert SECRET not in shown


@pytest.mark.parametrize(
    "options",
    [
        {"url": "ftp://x"},
        {"url": "https://user:pw@example.org"},
        {"url": "https://example.org", "secret": "whsec_!"},
    ],
)
def test_a_bad_connection_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        WebhookConnection(**options)

"""A receiver that trusts nobody: it checks each message's signature, and does nothing twice."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any

import pytest

from pillows.errors import AccessError, RetryableError
from pillows.models import WriteResult
from pillows.transports.webhook.options import WebhookConnection, WebhookOutput
from pillows.transports.webhook.transport import WebhookTransport
from tests.conformance.target import KEY, batch, document
from tests.servers.scripted import CLOSE, Request, ScriptedServer, head, json_reply

RAW_KEY = b"0123456789abcdef0123456789abcdef"
SECRET = "whsec_" + base64.b64encode(RAW_KEY).decode()
#: Older messages might be replayed by somebody who has listened (Standard Webhooks, "timestamp").
TOLERANCE_SECONDS = 300


class Careful:
    """Takes a message only if it is signed with the key, recent, and was not taken before.

    Attributes:
        applied: the messages that had an effect.
        repeated: how many came again.
        answers: to be lost once the message was applied: so many.
    """

    def __init__(self, server: ScriptedServer) -> None:
        self.applied: dict[str, bytes] = {}
        self.repeated = 0
        self.answers_to_lose = 0
        server.on("POST", "/hook", self.take)
        self.url = f"{server.url}/hook"

    def take(self, request: Request) -> Any:
        if not self._is_genuine(request):
            return json_reply({"error": "bad signature"}, 401)
        key = request.headers["idempotency-key"]
        if key in self.applied:
            assert self.applied[key] == request.body, "one key for two contents"
            self.repeated += 1
        self.applied[key] = request.body
        if self.answers_to_lose:
            self.answers_to_lose -= 1
            return CLOSE
        return head(204, length=0)

    def _is_genuine(self, request: Request) -> bool:
        if "webhook-signature" not in request.headers:
            return False
        id, sent_at = request.headers["webhook-id"], request.headers["webhook-timestamp"]
        signed = f"{id}.{sent_at}.".encode() + request.body
        expected = base64.b64encode(hmac.new(RAW_KEY, signed, hashlib.sha256).digest()).decode()
        given = [each.partition(",")[2] for each in request.headers["webhook-signature"].split()]
        recent = abs(time.time() - int(sent_at)) < TOLERANCE_SECONDS
        return recent and any(hmac.compare_digest(expected, one) for one in given)


@pytest.fixture
def careful(scripted_server: Callable[[], ScriptedServer]) -> Careful:
    return Careful(scripted_server())


def hook(careful: Careful, **options: Any) -> WebhookTransport:
    connection = WebhookConnection(**{"url": careful.url, "timeout": "30s"} | options)
    return WebhookTransport("hook", KEY, connection, {"docs": WebhookOutput()})


def test_a_lost_answer_is_asked_for_again_and_the_message_is_applied_once(careful: Careful) -> None:
    http = hook(careful, secret=SECRET)
    documents = [document(f"d{n}", 1, {"n": n, "text": "ü\u2028"}) for n in range(20)]
    careful.answers_to_lose = 1
    with pytest.raises(RetryableError):
        http.write(batch(*documents))
    assert http.write(batch(*documents)) == WriteResult()
    assert (len(careful.applied), careful.repeated) == (1, 1)
    assert http.write(batch(document("d0", 2, {"n": "new"}))) == WriteResult()
    assert (len(careful.applied), careful.repeated) == (2, 1)
    http.close()


@pytest.mark.parametrize("secret", [None, "whsec_" + base64.b64encode(b"another" * 4).decode()])
def test_what_is_not_signed_with_the_key_is_refused_and_told_as_no_access(
    careful: Careful, secret: str | None
) -> None:
    http = hook(careful, secret=secret)
    with pytest.raises(AccessError):
        http.write(batch(document("a", 1, {"n": 1})))
    assert careful.applied == {}
    http.close()

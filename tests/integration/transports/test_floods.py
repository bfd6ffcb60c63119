"""Targets whose answers nobody can hold, or never end."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import pytest

from pillows.errors import PillowError, RetryableError
from pillows.transports.base import Transport
from pillows.transports.opensearch.transport import OpensearchTransport
from pillows.transports.webhook.options import WebhookConnection, WebhookOutput
from pillows.transports.webhook.transport import WebhookTransport
from tests.conformance.target import KEY, batch, document
from tests.integration.transports.search_index import Node
from tests.servers.flooding import ENDLESS, FloodingServer, Repeated
from tests.servers.scripted import head
from tests.support.hub_meter import HubMeter
from tests.support.memory import MIB, peak_bytes, reset_peak

ANSWER: dict[str, Any] = {"Connection": "close", "X_Elastic_Product": "Elasticsearch"}
FLOODS: dict[str, Sequence[Repeated]] = {
    "answers of status 100": [(b"HTTP/1.1 100 Continue\r\n\r\n", ENDLESS)],
    "trailers": [(head(chunked=True, **ANSWER), 1), (b"0\r\n", 1), (b"X: y\r\n", ENDLESS)],
    "an answer without end": [(head(**ANSWER), 1), (b" " * 60_000, ENDLESS)],
    "a bomb of gzip": [
        (head(Content_Encoding="gzip", **ANSWER) + gzip.compress(bytes(300 * MIB), 9), 1),
    ],
}


def write_to_webhook(url: str) -> None:
    connection = WebhookConnection(url=f"{url}/", timeout="20s")
    with closing(WebhookTransport("hook", KEY, connection, {"docs": WebhookOutput()})) as hook:
        hook.open()
        hook.write(batch(document("a", 1, {"n": 1})))


def open_elasticsearch(url: str) -> None:
    transport: Transport = Node(url).transport({"docs": {}})
    with closing(transport):
        transport.open()


def open_opensearch(url: str) -> None:
    transport: Transport = Node(url, kind=OpensearchTransport).transport({"docs": {}})
    with closing(transport):
        transport.open()


@pytest.mark.parametrize("use", [write_to_webhook, open_elasticsearch, open_opensearch])
@pytest.mark.parametrize("flood", FLOODS)
def test_c4_an_answer_that_nobody_can_hold_is_given_up(use: Callable[[str], None], flood: str) -> None:
    before = reset_peak()
    with (
        FloodingServer({"/": FLOODS[flood]}) as server,
        HubMeter(time.thread_time).measure() as meter,
        pytest.raises(PillowError) as refused,
    ):
        use(server.url)
    assert isinstance(refused.value, RetryableError)
    assert meter.longest_seconds < 0.3
    assert peak_bytes() - before < 300 * MIB

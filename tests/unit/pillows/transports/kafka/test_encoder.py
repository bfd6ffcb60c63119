"""The messages of a document."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pillows.errors import PermanentError
from pillows.kafka.message import Message
from pillows.models import write_version
from pillows.transports.kafka.encoder import encode_document, format_message
from pillows.transports.kafka.options import KafkaOutput
from tests.conformance.target import KEY, batch, document, gone

NOW = 1_796_000_000.25


def encode(one: Any, *, first_pass: bool = False, **options: Any) -> list[Message]:
    outputs = {"docs": KafkaOutput(topic="t", **options)}
    return encode_document(KEY, outputs, batch(one, epoch=2, first_pass=first_pass), one, NOW)


def test_each_output_has_a_message_with_its_rows_or_null() -> None:
    one = document("a", 3, {"n": 1}, rev="3-x", other=[])
    outputs = {"docs": KafkaOutput(topic="t"), "other": KafkaOutput(topic="u")}
    headers = [("version", str(write_version(2, 3))), ("rev", "3-x"), ("source", "couch/cases")]
    assert encode_document(KEY, outputs, batch(one, epoch=2), one, NOW) == [
        Message("a", b"a", "t", b'{"n":1}', headers),
        Message("a", b"a", "u", None, headers),
    ]


def test_the_bytes_of_a_source_stay_as_they_are() -> None:
    (message,) = encode(document("a", 1, b'{"n":  1.0}'))
    assert message.value == b'{"n":  1.0}'


def test_several_rows_need_a_topic_that_takes_lists() -> None:
    several = document("a", 1, {"n": 1}, {"n": 2})
    with pytest.raises(PermanentError, match=r"has 2 rows.*set `value: rows`"):
        encode(several)
    assert encode(several, value="rows")[0].value == b'[{"n":1},{"n":2}]'
    assert encode(document("a", 1, {"n": 1}), value="rows")[0].value == b'[{"n":1}]'
    assert encode(gone("a", 1), value="rows")[0].value is None


@pytest.mark.parametrize(("first_pass", "operation"), [(True, "r"), (False, "u")])
def test_debeziums_envelope_says_what_happened(first_pass: bool, operation: str) -> None:
    (message,) = encode(document("a", 1, {"n": 1}), first_pass=first_pass, envelope="debezium")
    event = json.loads(message.value or b"")
    assert (event["op"], event["after"], event["ts_ms"]) == (operation, {"n": 1}, 1_796_000_000_250)
    assert event["source"]["snapshot"] == ("true" if first_pass else "false")


def test_debeziums_envelope_has_two_messages_for_a_document_without_rows() -> None:
    event, null = encode(gone("a", 1), envelope="debezium")
    assert json.loads(event.value or b"")["op"] == "d"
    assert json.loads(event.value or b"")["after"] is None
    assert null.value is None
    assert event.headers == null.headers


def test_a_preview_shows_topic_id_headers_and_value() -> None:
    (message,) = encode(document("a", 1, {"n": 1}, rev="1-x"))
    assert format_message(message) == (
        f't a [version={write_version(2, 1)} rev=1-x source=couch/cases]\n{{"n":1}}\n'
    )
    (null,) = encode(gone("a", 1))
    assert format_message(null).endswith("]\nnull\n")

"""Requests to write documents again, as records."""

from __future__ import annotations

import pytest

from pillows.change_topics.records import DATABASE_KEY
from pillows.change_topics.requests import Request, decode_request, encode_request, is_request


@pytest.mark.parametrize(
    "request_",
    [Request("cases", "a"), Request("cases", "ü/\0?"), Request("cases", epoch=7), Request("a-b_c", "x", 3)],
)
def test_a_request_is_read_as_it_was_written(request_: Request) -> None:
    key, value = encode_request(request_)
    assert is_request(key)
    assert decode_request(key, value) == request_


@pytest.mark.parametrize("id", ["a", "\x7f", "ÿ", "\U0010ffff"])
def test_no_key_of_a_document_is_taken_for_a_request(id: str) -> None:
    assert not is_request(id.encode())
    assert not is_request(DATABASE_KEY)

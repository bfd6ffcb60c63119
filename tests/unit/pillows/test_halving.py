"""Requests that are sent again in halves."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pillows.couch.http.response import TooLargeError
from pillows.errors import RetryableError
from pillows.halving import send_in_halves


class Server:
    """Takes some items at a time."""

    def __init__(self, takes: int) -> None:
        self.takes = takes
        self.sent: list[list[int]] = []

    def send(self, items: Sequence[int]) -> list[int]:
        self.sent.append(list(items))
        if len(items) > self.takes:
            raise TooLargeError("too large")
        return list(items)


def is_too_large(error: Exception) -> bool:
    return isinstance(error, TooLargeError)


@pytest.mark.parametrize(
    ("items", "takes", "answers"),
    [
        ([1, 2, 3, 4], 4, [[1, 2, 3, 4]]),
        ([1, 2, 3, 4], 2, [[1, 2], [3, 4]]),
        ([1, 2, 3], 1, [[1], [2], [3]]),
        ([1], 1, [[1]]),
    ],
)
def test_answers_come_in_the_order_of_the_items(items: list[int], takes: int, answers: list[list[int]]):
    assert send_in_halves(items, Server(takes).send, is_too_large) == answers


def test_a_single_item_that_is_too_large_is_an_error():
    server = Server(0)
    with pytest.raises(TooLargeError):
        send_in_halves([1, 2], server.send, is_too_large)
    assert server.sent == [[1, 2], [1]]


def test_another_error_is_not_sent_again():
    sent: list[Sequence[int]] = []

    def fail(items: Sequence[int]) -> None:
        sent.append(items)
        raise RetryableError("away")

    with pytest.raises(RetryableError, match="away"):
        send_in_halves([1, 2], fail, is_too_large)
    assert len(sent) == 1

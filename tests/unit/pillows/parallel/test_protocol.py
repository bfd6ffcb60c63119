"""Messages arrive as they were sent, and anything else is refused."""

from __future__ import annotations

import socket

import msgspec
import pytest

from pillows import errors
from pillows.couch.errors import ForbiddenError
from pillows.parallel import protocol
from pillows.parallel.protocol import Failure, ProtocolError


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


MESSAGES = [
    protocol.Ready(),
    protocol.Refused(Failure("ConfigError", "no", "yes")),
    protocol.Take(1),
    protocol.Alive(),
    protocol.Done(2, protocol.to_payload([{"a": b"\0"}, None, 2**63])),
    protocol.Failed(3, Failure("RetryableError", "later", "", 2.5)),
    protocol.Note("transform.slow", {"seconds": 1.5}),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda each: type(each).__name__)
def test_a_message_arrives_as_it_was_sent(pair, message):
    protocol.send(pair[0], message)
    found = protocol.receive_in_coordinator(pair[1])
    assert type(found) is type(message)
    assert msgspec.msgpack.encode(found) == msgspec.msgpack.encode(message)


def test_a_worker_receives_setup_and_tasks_until_the_end(pair):
    protocol.send(pair[0], protocol.Setup(1, 2**20, protocol.to_payload("x")))
    protocol.send(pair[0], protocol.Task(7, protocol.to_payload([1, "a"])))
    pair[0].shutdown(socket.SHUT_WR)
    setup = protocol.receive_in_worker(pair[1])
    task = protocol.receive_in_worker(pair[1])
    assert isinstance(setup, protocol.Setup)
    assert setup.parent == 1
    assert isinstance(task, protocol.Task)
    assert msgspec.msgpack.decode(task.payload) == [1, "a"]
    assert protocol.receive_in_worker(pair[1]) is None


@pytest.mark.parametrize(
    "sent", [b"\0\0", b"\0\0\0\5ab", b"\xff\xff\xff\xff", b"\0\0\0\1\xc1", b"\0\0\0\2\x91\x01"]
)
def test_what_is_cut_off_or_no_message_is_refused(pair, sent):
    pair[0].sendall(sent)
    pair[0].shutdown(socket.SHUT_WR)
    with pytest.raises(ProtocolError):
        protocol.receive_in_coordinator(pair[1])


@pytest.mark.parametrize(
    "error",
    [
        errors.ConfigError("no", remedy="yes"),
        errors.RecreatedError("another", remedy="reset"),
        errors.RetryableError("later", retry_after_seconds=3.0),
        errors.AwayError("away"),
        errors.PermanentError("never"),
        errors.PillowError("some"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_b11_an_error_keeps_its_class_text_and_remedy(error):
    again = Failure.of(error).to_error()
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_b11_an_error_of_a_class_of_elsewhere_is_told_as_the_nearest_one():
    assert Failure.of(ForbiddenError("no")).kind == "AccessError"
    assert Failure("NoSuchClass", "text").to_error().args == ("text",)

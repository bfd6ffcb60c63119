"""What an error of Kafka means, and the settings that are refused before any connection."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError
from pydantic import ValidationError

from pillows.errors import AccessError, AwayError, ConfigError, FencedError, RetryableError
from pillows.kafka import errors
from pillows.kafka.errors import Failure, Verdict, to_error
from pillows.kafka.options import KafkaConnection
from pillows.transports.kafka.options import KafkaOutput


def test_every_name_is_one_of_the_librarys() -> None:
    known = {
        KafkaError(getattr(KafkaError, name)).name()
        for name in dir(KafkaError)
        if name.isupper() and isinstance(getattr(KafkaError, name), int)
    }
    assert {name for names in errors._NAMES.values() for name in names} - known == set()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("_TRANSPORT", AwayError),
        ("_ALL_BROKERS_DOWN", AwayError),
        ("_MSG_TIMED_OUT", RetryableError),
        ("NOT_ENOUGH_REPLICAS", RetryableError),
        ("_AUTHENTICATION", AccessError),
        ("TOPIC_AUTHORIZATION_FAILED", AccessError),
        ("UNKNOWN_TOPIC_OR_PART", ConfigError),
        ("INVALID_REPLICATION_FACTOR", ConfigError),
        ("_FENCED", FencedError),
        ("PRODUCER_FENCED", FencedError),
        ("INVALID_PRODUCER_EPOCH", RetryableError),
        ("SOMETHING_NEW", RetryableError),
    ],
)
def test_an_error_says_what_the_caller_must_do(name: str, kind: type[Exception]) -> None:
    error = to_error(Failure(name=name, text="why"), ["a:1", "b:2"])
    assert type(error) is kind
    assert "a:1, b:2" in str(error)
    assert f"{name}: why" in str(error)


def test_only_an_untrusted_certificate_stops() -> None:
    untrusted = Failure(name="_SSL", text="ssl handshake failed: certificate verify failed: self-signed")
    broken = Failure(name="_SSL", text="ssl handshake failed: connection closed by peer")
    assert untrusted.verdict is Verdict.ACCESS
    assert broken.verdict is Verdict.AWAY
    assert "set `ca_bundle`" in str(to_error(untrusted, ["a:1"]))


@pytest.mark.parametrize(
    "settings",
    [
        {"servers": []},
        {"servers": ["kafka"]},
        {"servers": ["https://kafka:9092"]},
        {"servers": ["user:pw@kafka:9092"]},
        {"servers": ["a:1,b:2"]},
        {"servers": ["a:1"], "sasl": {"mechanism": "GSSAPI", "username": "u", "password": "p"}},
        {"servers": ["a:1"], "max_message": "2MiB", "max_buffered": "1MiB"},
    ],
)
def test_a_bad_connection_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KafkaConnection.model_validate(settings)


@pytest.mark.parametrize("topic", ["", "a b", "ä", "x" * 250, ".", ".."])
def test_a_bad_topic_is_refused(topic: str) -> None:
    with pytest.raises(ValidationError):
        KafkaOutput(topic=topic)


def test_a_topic_is_the_same_place_for_every_spelling_of_its_broker() -> None:
    output = KafkaOutput(topic="cases")
    one = output.addresses(KafkaConnection(servers=("LOCALHOST:9092", "b:1")))
    other = output.addresses(KafkaConnection(servers=("127.0.0.1:9092",)))
    assert one & other
    assert not one & KafkaOutput(topic="forms").addresses(KafkaConnection(servers=("b:1",)))

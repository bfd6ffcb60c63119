"""Kafka with TLS, users and permissions: one broker that wants all three."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pillows.errors import AccessError, ConfigError
from pillows.kafka.options import KafkaConnection
from pillows.transports.kafka.options import KafkaOutput
from pillows.transports.kafka.transport import KafkaTransport
from tests.conformance.steps import assert_applied
from tests.conformance.target import KEY, at, batch, document
from tests.conftest import start_for_tests
from tests.servers.kafka import Kafka
from tests.support.certificate import make_certificate
from tests.support.kafka_reader import read_topic

USERS = {"admin": "admin-pw", "reader": "reader-pw"}


@dataclass(frozen=True, slots=True)
class Guarded:
    """A broker of which `admin` may do anything, and `reader` nothing.

    Attributes:
        server: the broker.
        ca: the certificate to trust.
    """

    server: Kafka
    ca: Path

    def transport(self, topic: str, **changed: Any) -> KafkaTransport:
        sasl = {"mechanism": "PLAIN", "username": "admin", "password": USERS["admin"]}
        settings = {"servers": (self.server.where,), "tls": {"ca_bundle": str(self.ca)}, "sasl": sasl}
        connection = KafkaConnection.model_validate(settings | changed)
        return KafkaTransport("bus", KEY, connection, {"docs": KafkaOutput(topic=topic)})


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("kafka")
    cert, key = make_certificate(folder)
    pair = folder / "pair.pem"
    pair.write_text(key.read_text() + cert.read_text())
    login = " ".join(f'user_{name}="{password}"' for name, password in USERS.items())
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule"
    settings = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(pair),
        "sasl.enabled.mechanisms": "PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "listener.name.clients.plain.sasl.jaas.config": f'{plain} required username="admin" '
        f'password="{USERS["admin"]}" {login};',
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:admin;User:ANONYMOUS",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(cert),
    }
    with ExitStack() as stack:
        server = Kafka(protocol="SASL_SSL", settings=settings)
        start_for_tests(stack, server)
        yield Guarded(server, cert)


def test_a_user_writes_over_tls(guarded: Guarded, kafka_prefix: str) -> None:
    with closing(guarded.transport(f"{kafka_prefix}docs")) as transport:
        transport.open()
        transport.acquire(at("0"))
        assert_applied(transport.write(batch(document("a", 1, {"n": 1}))))
    reading: dict[str, Any] = {
        "security.protocol": "sasl_ssl",
        "ssl.ca.location": str(guarded.ca),
        "sasl.mechanism": "PLAIN",
        "sasl.username": "admin",
        "sasl.password": USERS["admin"],
    }
    (message,) = read_topic(guarded.server.where, f"{kafka_prefix}docs", **reading)
    assert message.key() == b"a"


@pytest.mark.parametrize("transactions", [False, True])
def test_a_wrong_password_stops_with_the_remedy_and_is_not_shown(
    guarded: Guarded, transactions: bool
) -> None:
    sasl = {"mechanism": "PLAIN", "username": "admin", "password": "wr0ng-pw"}
    with (
        closing(guarded.transport("docs", sasl=sasl, transactions=transactions)) as transport,
        pytest.raises(
            AccessError, match=r"does not let us in.*Remedy: check the connection's `sasl`"
        ) as caught,
    ):
        transport.open()
    assert "wr0ng" not in str(caught.value)


def test_a_certificate_of_nobody_we_trust_stops_with_the_remedy(guarded: Guarded) -> None:
    with (
        closing(guarded.transport("docs", tls={})) as transport,
        pytest.raises(AccessError, match=r"certificate .* is not trusted.*Remedy: set `ca_bundle`"),
    ):
        transport.check()


def test_a_certificate_file_that_is_missing_stops(guarded: Guarded, tmp_path: Path) -> None:
    missing = {"ca_bundle": str(tmp_path / "none.pem")}
    with (
        closing(guarded.transport("docs", tls=missing)) as transport,
        pytest.raises(ConfigError, match=r"There is no file .*none\.pem"),
    ):
        transport.open()


def test_a_user_without_permissions_stops_with_the_remedy(guarded: Guarded, kafka_prefix: str) -> None:
    sasl = {"mechanism": "PLAIN", "username": "reader", "password": USERS["reader"]}
    with (
        closing(guarded.transport(f"{kafka_prefix}x", sasl=sasl)) as transport,
        pytest.raises(AccessError, match=r"AUTHORIZATION_FAILED.*permissions of its user"),
    ):
        transport.open()


def test_a_user_who_loses_its_permissions_stops_with_the_remedy(guarded: Guarded, kafka_prefix: str) -> None:
    """The write itself is refused, too."""
    topic = f"{kafka_prefix}y"
    with closing(guarded.transport(topic)) as admin:
        admin.open()
    sasl = {"mechanism": "PLAIN", "username": "reader", "password": USERS["reader"]}
    with (
        closing(guarded.transport(topic, sasl=sasl, timeout="5s")) as transport,
        pytest.raises(AccessError, match="AUTHORIZATION_FAILED"),
    ):
        transport.write(batch(document("a", 1, {"n": 1})))

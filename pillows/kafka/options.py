"""Settings of a Kafka cluster."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from pillows.options import Duration, Options, Secret, Size

_SERVER = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:/@,\[\]]+):\d{1,5}")


class KafkaTls(Options):
    """TLS with the brokers, whose certificates and host names are always verified.

    Attributes:
        ca_bundle: PEM file of certificates to trust instead of the system's.
        client_cert: our certificate with its key, in one PEM file.
    """

    ca_bundle: Path | None = None
    client_cert: Path | None = None


class KafkaSasl(Options):
    """A user of the brokers.

    Attributes:
        mechanism: how the password is checked. `PLAIN` sends it in clear, so it needs `tls` on a network.
        username: its name.
        password: its password.
    """

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
    username: str
    password: Secret


class KafkaConnection(Options):
    """A Kafka cluster.

    Attributes:
        servers: HOST:PORT of one or several brokers; they name the others.
        tls: connect by TLS; `{}` trusts the system's certificates.
        sasl: log in.
        timeout: longest wait for the acknowledgement of a message.
        max_message: a larger message becomes a dead letter; at most `max.message.bytes` of the topic.
        max_buffered: most bytes that wait for their acknowledgement.
        compression: of the messages.
        transactions: write each batch in one transaction. Consumers with `read_committed` never see a part of
            it, and an earlier writer of the same pillow is fenced.
    """

    servers: tuple[str, ...] = Field(min_length=1)
    tls: KafkaTls | None = None
    sasl: KafkaSasl | None = None
    timeout: Duration = Field(default=30.0, ge=1, le=600)
    max_message: Size = Field(default=1000 * 2**10, ge=1000, le=10**9)
    max_buffered: Size = Field(default=16 * 2**20, ge=2**20, le=2**30)
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "none"
    transactions: bool = False

    @field_validator("servers")
    @classmethod
    def _check_servers(cls, servers: tuple[str, ...]) -> tuple[str, ...]:
        if not all(_SERVER.fullmatch(server) for server in servers):
            raise ValueError("needs host and port, such as kafka.example:9092")
        return servers

    @model_validator(mode="after")
    def _check_sizes(self) -> KafkaConnection:
        if self.max_message > self.max_buffered:
            raise ValueError("has a `max_message` above `max_buffered`; raise `max_buffered`")
        return self

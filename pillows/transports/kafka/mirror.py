"""A Kafka topic as a mirror's target."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from msgspec.structs import replace

from pillows.errors import ConfigError
from pillows.redaction import redact_address
from pillows.transports.common.mirroring import (
    TARGET_PASSWORD,
    Endpoint,
    MirrorSupport,
    get_host,
    split_url,
    to_login,
)

_PORT = 9092


class KafkaMirror(MirrorSupport):
    """A topic in which the last message of each key is the document."""

    SCHEMES: ClassVar[tuple[str, ...]] = ("kafka", "kafka+tls")
    FORM: ClassVar[str] = "kafka://HOST:PORT"

    def parse(self, text: str) -> Endpoint:
        """Return the broker; see `MirrorSupport.parse`."""
        parts = split_url(text)
        if not parts.hostname or parts.path.strip("/"):
            raise ConfigError(
                f"{redact_address(text)} does not name a broker alone.",
                remedy=f"write {self.FORM}, or kafka+tls:// for TLS; the topic is named by --name",
            )
        host = get_host(parts) if parts.port else f"{get_host(parts)}:{_PORT}"
        connection: dict[str, Any] = {"type": "kafka", "servers": [host]}
        if parts.scheme == "kafka+tls":
            connection["tls"] = {}
        login, secrets = to_login(parts, TARGET_PASSWORD)
        if login:
            connection["sasl"] = {"mechanism": "SCRAM-SHA-512", **login}
        return Endpoint(connection=connection, secrets=secrets)

    def trust(self, endpoint: Endpoint, ca_bundle: Path) -> Endpoint:
        """Return the endpoint with the certificates; see `MirrorSupport.trust`."""
        if "tls" not in endpoint.connection:
            raise ConfigError("The target is not reached by TLS.", remedy="write kafka+tls://HOST:PORT")
        return replace(endpoint, connection={**endpoint.connection, "tls": {"ca_bundle": str(ca_bundle)}})

    def make_output(self, name: str) -> Mapping[str, Any]:
        """Return a compacted topic of that name."""
        return {"topic": name, "topic_config": {"cleanup.policy": "compact"}}

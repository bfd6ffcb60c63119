"""Requests to a cluster, the same for Elasticsearch and OpenSearch.

Each product's official client connects, authenticates and chooses a node. It does not retry: the pipeline
does, and can be stopped. Bodies pass through as bytes: we build the bulk format ourselves, and msgspec reads
the answers.
"""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from pillows.errors import ConfigError, RetryableError

JSON = "application/json"
NDJSON = "application/x-ndjson"


class AnswerError(Exception):
    """An answer whose status is not 2xx.

    Args:
        product: the server's name, for messages.
        status: of the answer.
        body: decoded JSON, or the text of anything else; None if it is empty (413 has no body).
        headers: of the answer; their case does not count.
    """

    def __init__(self, product: str, status: int, body: Any, headers: Mapping[str, str]) -> None:
        super().__init__(f"{product} answered {status}")
        self.product = product
        self.status = status
        self.body = body
        self.headers = headers


class LongAnswerError(RetryableError):
    """An answer that is longer than any that is read."""


class SearchClient(ABC):
    """A cluster."""

    #: The product's name, for messages.
    PRODUCT: ClassVar[str]
    #: Sort order of a search for all documents: the oldest write versions first, if possible.
    SWEEP_ORDER: ClassVar[str]

    @abstractmethod
    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send a request and return the answer's JSON; None if it is empty.

        Args:
            method: `GET`, `POST`, ...
            path: with its names already escaped.
            params: of the query.
            body: bytes, which are sent as they are; anything else becomes JSON.
            headers: instead of those of a JSON request.

        Raises:
            AnswerError: the status is not 2xx.
            RetryableError: no answer, or none that is valid, came in time.
            AccessError: the server's certificate is not trusted.
            ConfigError: the server is another product.
        """

    def change(self, method: str, path: str, body: Any) -> None:
        """Change the cluster's state. Unless it is acknowledged it may still be applied, so repeat it.

        Raises:
            AnswerError, RetryableError, AccessError, ConfigError: see `call`.
        """
        if not self.call(method, path, body=body)["acknowledged"]:
            raise RetryableError(
                f"{self.PRODUCT} did not acknowledge a change of the cluster's state in time."
            )

    @abstractmethod
    def check_product(self) -> None:
        """Refuse another product, and a version that is not supported.

        Raises:
            ConfigError: with what the server is, and the remedy.
            AnswerError, RetryableError, AccessError: see `call`.
        """

    @abstractmethod
    def close(self) -> None:
        """Close all connections."""


def encode_body(body: Any) -> bytes | None:
    """Return a body as it is sent; bytes are sent as they are."""
    return body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)


def make_ssl_context(ca_bundle: Path | None) -> ssl.SSLContext:
    """Return a context that trusts the system's certificates, or only those in a file.

    Raises:
        ConfigError: they can't be read.
    """
    try:
        return ssl.create_default_context(cafile=ca_bundle)
    except OSError as error:  # a missing file, or ssl.SSLError for one that holds no certificate
        raise ConfigError(
            f"The certificates in {ca_bundle} can't be read: {error}.", remedy="correct `ca_bundle`"
        ) from error


def find_version(root: Any) -> Mapping[str, Any]:
    """Return `version` of a cluster's answer to `GET /`; empty if it has none."""
    version = root.get("version") if isinstance(root, Mapping) else None
    return version if isinstance(version, Mapping) else {}


def find_number(root: Any) -> str:
    """Return the version number of a cluster, shortened for messages; "" if it has none."""
    return str(find_version(root).get("number", ""))[:40]


def is_opensearch(root: Any) -> bool:
    """Return whether a cluster's answer to `GET /` is OpenSearch's."""
    return find_version(root).get("distribution") == "opensearch"

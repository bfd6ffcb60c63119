"""Settings of a webhook."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from pillows.options import Duration, Options, OutputOptions, Secret, SecretUrl, Size
from pillows.redaction import STRAY_PASSWORD_REMEDY, find_stray_password
from pillows.transports.webhook.encoder import decode_secret


def _check_url(url: SecretUrl) -> SecretUrl:
    parts = urlsplit(url.get_secret_value())
    stray = find_stray_password(url.get_secret_value())
    if stray and ":" in parts.netloc:  # else it is a host, and the path has the `@`
        remedy = STRAY_PASSWORD_REMEDY.partition(";")[0]
        raise ValueError(f"{stray}; {remedy}, and an `@` of the path as %40; passwords belong into `headers`")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("needs a URL such as https://example.org/hook")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a user or password; put them into `headers`, where they are never shown")
    return url


def _check_secret(value: Secret) -> Secret:
    decode_secret(value.get_secret_value())
    return value


class WebhookConnection(Options):
    """A webhook.

    Attributes:
        url: where to post to; parts that could be a password are never shown.
        headers: sent with every message, such as `Authorization`.
        secret: signs the messages; `whsec_` and base64, or any text.
        timeout: how long a message may take, from connecting to the end of the answer.
        max_bytes: of one message; a larger document is sent alone.
        ca_bundle: certificates to trust instead of the system's.
        client_cert: our certificate with its key, in one PEM file.
    """

    url: Annotated[SecretUrl, AfterValidator(_check_url)]
    headers: dict[str, Secret] = Field(default_factory=dict)
    secret: Annotated[Secret, AfterValidator(_check_secret)] | None = None
    timeout: Duration = Field(default=30.0, gt=0)
    max_bytes: Size = Field(default=5 * 2**20, gt=0)
    ca_bundle: Path | None = None
    client_cert: Path | None = None


class WebhookOutput(OutputOptions):
    """An output has no settings: all outputs are in the same messages."""

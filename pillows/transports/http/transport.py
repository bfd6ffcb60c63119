"""Posts batches as JSON to a webhook, signed; see `_webhook` for the messages.

At least once, in order: the next message is sent when this one was taken. An answer of 2xx takes a
message; its body may name documents as `dead` or `retry`. With 400, 413 or 422 the message is sent
again in halves until the documents at fault are found. Redirects are not followed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import unquote, urlsplit

import gevent
import requests
import urllib3
from pydantic import AfterValidator, Field
from requests.utils import requote_uri

from checkpoints import TailKey
from pillows.clock import SystemClock
from pillows.couch.errors import retry_after
from pillows.couch.exception_chain import is_connect_failure, walk_causes
from pillows.errors import AccessError, AwayError, ConfigError, PermanentError, RetryableError
from pillows.models import Batch, WriteResult
from pillows.options import Duration, Options, Secret, SecretUrl, Size
from pillows.transports.base import AppendOnlyTransport, TargetState, newest
from pillows.transports.http.receiver import (
    Message,
    Reply,
    Verdict,
    document_json,
    headers,
    messages,
    reply,
    secret_bytes,
    verdict,
)

#: A longer answer is not read: what it says of single documents would be cut off.
_ANSWER_BYTES = 16 * 2**20

#: How much of an answer is looked at for a message.
_COMPLAINT_BYTES = 16 * 2**10


def _http_url(url: SecretUrl) -> SecretUrl:
    parts = urlsplit(url.get_secret_value())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("needs a URL such as https://example.org/hook")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a user or password; put them into `headers`, where they are never shown")
    return url


def _secret(value: Secret) -> Secret:
    secret_bytes(value.get_secret_value())
    return value


class HttpConnection(Options):
    """A webhook.

    Attributes:
        url: where to post to; what of it could be a password is not shown.
        headers: sent with every message, such as `Authorization`.
        secret: signs the messages; `whsec_` and base64, or any text.
        timeout: how long a message may take, from connecting to the end of the answer.
        max_bytes: of one message; a larger document is sent alone.
        ca_bundle: certificates to trust instead of the system's.
        client_cert: our certificate with its key, in one PEM file.
    """

    url: Annotated[SecretUrl, AfterValidator(_http_url)]
    headers: dict[str, Secret] = Field(default_factory=dict)
    secret: Annotated[Secret, AfterValidator(_secret)] | None = None
    timeout: Duration = Field(default=30.0, gt=0)
    max_bytes: Size = Field(default=5 * 2**20, gt=0)
    ca_bundle: Path | None = None
    client_cert: Path | None = None


class HttpOutput(Options):
    """There is nothing to choose: all outputs are in the same messages."""


class HttpTransport(AppendOnlyTransport):
    """Posts batches; see the module."""

    Connection: ClassVar[type[Options]] = HttpConnection
    Output: ClassVar[type[Options]] = HttpOutput

    def __init__(
        self, name: str, key: TailKey, connection: HttpConnection, outputs: Mapping[str, HttpOutput]
    ) -> None:
        super().__init__(name, key, connection, outputs)
        self._secret = secret_bytes(connection.secret.get_secret_value()) if connection.secret else None
        self._clock = SystemClock()
        self._http = _session(connection)
        self._url = connection.url.get_secret_value()
        self._place = _place(self._url)
        self._hidden = _hidden(self._url)

    def preview(self, batch: Batch) -> str:
        """The messages, without a signature."""
        texts, dead = self._encoded(batch)
        if dead:
            raise PermanentError("; ".join(f"{id}: {why}" for id, why in dead.items()))
        return "\n".join(
            f"POST to {self._place}\n{message.body.decode()}\n"
            for message in messages(self.key, batch.epoch, texts, self.connection.max_bytes)
        )

    def open(self) -> TargetState:
        """Nothing is remembered, and nothing can be asked without sending something.

        Raises:
            ConfigError: a certificate's file is not there.
        """
        for path in (self.connection.ca_bundle, self.connection.client_cert):
            if path is not None and not path.is_file():
                raise ConfigError(f"There is no file {path}.", remedy="check the connection's certificates")
        return super().open()

    def write(self, batch: Batch) -> WriteResult:
        """Posts the batch; see `Transport.write`.

        Raises:
            AwayError: no connection to the receiver came about.
            RetryableError: it is busy, or did not answer, and has taken nothing that we know of.
            AccessError: it does not let us in.
            ConfigError: nothing is there that takes messages.
        """
        texts, dead = self._encoded(batch)
        waiting = list(messages(self.key, batch.epoch, texts, self.connection.max_bytes))[::-1]
        retry: dict[str, str] = {}
        taken = 0
        while waiting:
            message = waiting.pop()
            try:
                answer = self._post(message)
            except RetryableError as error:
                if not taken:
                    raise
                waiting.append(message)
                retry |= {id: str(error) for unsent in waiting for id in unsent.ids}
                break
            except PermanentError as error:
                if len(message.ids) == 1:
                    dead[message.ids[0]] = str(error)
                else:
                    waiting += list(message.halves())[::-1]
                continue
            taken += 1
            dead |= {id: why for id, why in answer.dead.items() if id in message.ids}
            retry |= {id: why for id, why in answer.retry.items() if id in message.ids}
        return WriteResult(dead=dead, retry=retry)

    def close(self) -> None:
        """Closes every idle connection."""
        self._http.close()

    def _encoded(self, batch: Batch) -> tuple[dict[str, bytes], dict[str, str]]:
        texts: dict[str, bytes] = {}
        dead: dict[str, str] = {}
        outputs: Sequence[str] = list(self.outputs)
        for document in newest(batch.documents):
            try:
                texts[document.id] = document_json(document, outputs, batch.epoch)
            except PermanentError as error:
                dead[document.id] = str(error)
        return texts, dead

    def _post(self, message: Message) -> Reply:
        body = message.body
        # requests' own timeouts are for the next byte: an answer that trickles would take for ever.
        late = RetryableError(f"The webhook did not answer within {self.connection.timeout:g} s.")
        try:
            with gevent.Timeout(self.connection.timeout, late):
                status, found, content = self._exchange(body)
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader) as error:
            raise ConfigError(
                f"The webhook's URL or headers are none: {type(error).__name__}.",
                remedy="check the connection's `url` and `headers`",
            ) from None
        except requests.exceptions.SSLError as error:
            raise AccessError(
                f"The certificate of {self._place} is not trusted: {_innermost(error)}.",
                remedy="set the connection's `ca_bundle`",
            ) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            kind = AwayError if is_connect_failure(error) else RetryableError
            raise kind(f"The webhook at {self._place} cannot be reached: {_innermost(error)}.") from None
        return self._meaning(status, found, content)

    def _exchange(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        with self._http.post(
            self._url,
            data=body,
            headers=headers(body, self._secret, int(self._clock.wall())),
            timeout=self.connection.timeout,
            allow_redirects=False,
            stream=True,
        ) as response:
            content = response.raw.read(_ANSWER_BYTES + 1, decode_content=True)
            if len(content) > _ANSWER_BYTES and response.ok:
                raise RetryableError(f"The webhook's answer is longer than {_ANSWER_BYTES} bytes.")
            return response.status_code, response.headers, content

    def _meaning(self, status: int, found: Mapping[str, str], content: bytes) -> Reply:
        text = self._hidden.sub("/***", content[:_COMPLAINT_BYTES].decode(errors="replace"))
        said = f"The webhook answered {status}: {text[:200].strip()}"
        decision = verdict(status)
        if decision is Verdict.TAKEN:
            return reply(content)
        if decision is Verdict.SPLIT:
            raise PermanentError(said)
        if decision is Verdict.NO_ACCESS:
            raise AccessError(said, remedy="check the connection's `headers`, `secret` and `client_cert`")
        if decision is Verdict.LATER:
            wait_seconds = retry_after(found, now=self._clock.wall())
            raise RetryableError(said, retry_after_seconds=wait_seconds)
        where = f" (it points to {_place(found['Location'])})" if "Location" in found else ""
        raise ConfigError(said + where, remedy="check the connection's `url`")


class _OwnHeaders(requests.auth.AuthBase):
    """Keeps requests from looking into ~/.netrc: credentials come from the configuration alone."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def _innermost(error: BaseException) -> str:
    """What happened. The errors around it quote the URL."""
    *_, cause = walk_causes(error)
    return f"{type(cause).__name__}: {cause}"


def _place(url: str) -> str:
    """What of a URL may be shown: a webhook's path or query often is its password."""
    parts = urlsplit(url)
    if not parts.hostname:
        return "another path of the same place"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _hidden(url: str) -> re.Pattern[str]:
    """Matches what else of a URL an answer may quote."""
    found: set[str] = set()
    for form in (url, requote_uri(url), unquote(url)):
        parts = urlsplit(form)
        found |= {f"{parts.path}?{parts.query}", parts.path, parts.query}
    longest_first = sorted(found - {"", "/", "?", "/?"}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _session(connection: HttpConnection) -> requests.Session:
    session = requests.Session()
    session.auth = _OwnHeaders()
    session.headers.update({name: value.get_secret_value() for name, value in connection.headers.items()})
    session.headers["User-Agent"] = "pillowd"
    session.verify = str(connection.ca_bundle) if connection.ca_bundle else True
    session.cert = str(connection.client_cert) if connection.client_cert else None
    return session

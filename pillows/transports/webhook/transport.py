"""Post batches as signed JSON to a webhook; see `encoder` for the messages.

At least once, in order: the next message is sent when this one was accepted. An answer of 2xx accepts
a message; its body may name documents as `dead` or `retry`. With 400, 413 or 422 the message is sent
again in halves until the documents at fault are found. Redirects are not followed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import ClassVar

from checkpoints import TailKey
from pillows.couch.errors import retry_after
from pillows.errors import AccessError, ConfigError, PermanentError, RetryableError
from pillows.halving import send_in_halves
from pillows.models import Batch, WriteResult, newest
from pillows.options import Options, OutputOptions
from pillows.transports.base import AppendOnlyTransport, TargetState
from pillows.transports.webhook.connection import WebhookClient, get_server
from pillows.transports.webhook.encoder import Message, encode_document, to_messages
from pillows.transports.webhook.errors import Reply, StatusVerdict, classify_status, parse_reply
from pillows.transports.webhook.options import WebhookConnection, WebhookOutput

#: The part of an answer that is searched for hidden parts of the URL before it is quoted.
_QUOTED_BYTES = 16 * 2**10


class WebhookTransport(AppendOnlyTransport):
    """Posts batches; see the module."""

    TYPE: ClassVar[str] = "webhook"
    Connection: ClassVar[type[Options]] = WebhookConnection
    Output: ClassVar[type[OutputOptions]] = WebhookOutput
    takes_json: ClassVar[bool] = True

    def __init__(
        self, name: str, key: TailKey, connection: WebhookConnection, outputs: Mapping[str, WebhookOutput]
    ) -> None:
        super().__init__(name, key, connection, outputs)
        self._client = WebhookClient(connection)

    def preview(self, batch: Batch) -> str:
        """Return the messages, without a signature."""
        texts, dead = self._encode(batch)
        if dead:
            raise PermanentError("; ".join(f"{id}: {why}" for id, why in dead.items()))
        return "\n".join(
            f"POST to {self._client.server}\n{message.body.decode()}\n"
            for message in to_messages(self.key, batch.epoch, texts, self.connection.max_bytes)
        )

    def open(self) -> TargetState:
        """Check the certificates' files. A webhook has no stored state to return.

        Raises:
            ConfigError: a certificate file does not exist.
        """
        for key in ("ca_bundle", "client_cert"):
            path = getattr(self.connection, key)
            if path is not None and not path.is_file():
                raise ConfigError(f"There is no file {path}.", remedy=f"correct `{key}` of the connection")
        return super().open()

    def write(self, batch: Batch) -> WriteResult:
        """Post the batch; see `Transport.write`.

        Raises:
            AwayError: no connection to the receiver could be opened.
            RetryableError: it is busy, or did not answer; as far as we know it accepted nothing.
            AccessError: it denies access.
            ConfigError: nothing there accepts messages.
        """
        texts, dead = self._encode(batch)
        delivery = _Delivery(self._post)
        for message in to_messages(self.key, batch.epoch, texts, self.connection.max_bytes):
            send_in_halves(message, delivery.send, is_permanent)
        return WriteResult(dead=dead | delivery.dead, retry=delivery.retry)

    def close(self) -> None:
        """Close every idle connection."""
        self._client.close()

    def _encode(self, batch: Batch) -> tuple[dict[str, bytes], dict[str, str]]:
        texts: dict[str, bytes] = {}
        dead: dict[str, str] = {}
        for document in newest(batch.documents):
            try:
                texts[document.id] = encode_document(document, list(self.outputs), batch.epoch)
            except PermanentError as error:
                dead[document.id] = str(error)
        return texts, dead

    def _post(self, message: Message) -> Reply:
        """Post a message.

        Raises:
            PermanentError: a document of it is at fault.
            RetryableError, AccessError, ConfigError: as `write`.
        """
        status, headers, content = self._client.post(message.body)
        text = self._client.redact(content[:_QUOTED_BYTES].decode(errors="replace"))
        answer = f"The webhook answered {status}: {text[:200].strip()}"
        match classify_status(status):
            case StatusVerdict.ACCEPTED:
                return parse_reply(content)
            case StatusVerdict.SPLIT:
                raise PermanentError(answer)
            case StatusVerdict.ACCESS:
                raise AccessError(
                    answer, remedy="check the connection's `headers`, `secret` and `client_cert`"
                )
            case StatusVerdict.RETRY:
                raise RetryableError(answer, retry_after_seconds=retry_after(headers, now=time.time()))
        where = f" (it points to {get_server(headers['Location'])})" if "Location" in headers else ""
        raise ConfigError(answer + where, remedy="check the connection's `url`")


class _Delivery:
    """The messages of one batch, sent in order until one is refused for now.

    Attributes:
        dead, retry: as in `WriteResult`.
    """

    def __init__(self, post: Callable[[Message], Reply]) -> None:
        self._post = post
        self._accepted = False
        self._trouble = ""
        self.dead: dict[str, str] = {}
        self.retry: dict[str, str] = {}

    def send(self, message: Message) -> None:
        """Send a message.

        Raises:
            PermanentError: one of its documents is at fault.
            RetryableError: nothing of the batch was accepted.
        """
        try:
            reply = self._reply_to(message)
        except RetryableError as error:
            if not self._accepted:
                raise
            self._trouble = str(error)
            reply = Reply(retry=dict.fromkeys(message.ids, self._trouble))
        except PermanentError as error:
            if len(message) > 1:
                raise
            reply = Reply(dead=dict.fromkeys(message.ids, str(error)))
        else:
            self._accepted = True
        self.dead |= {id: why for id, why in reply.dead.items() if id in message.ids}
        self.retry |= {id: why for id, why in reply.retry.items() if id in message.ids}

    def _reply_to(self, message: Message) -> Reply:
        if self._trouble:  # in order: what comes behind is not sent
            raise RetryableError(self._trouble)
        return self._post(message)


def is_permanent(error: Exception) -> bool:
    """Return whether documents of a message are at fault."""
    return isinstance(error, PermanentError)

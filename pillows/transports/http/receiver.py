"""The messages of the `http` transport, and what an answer to one means. Nothing here waits.

A message is one JSON object:

    {"pillow": "cases", "source": "couch/cases", "epoch": 1, "documents": [
        {"id": "a", "rev": "3-x", "version": 1099511627779, "rows": {"cases": [{"name": "Ada"}]}},
        {"id": "b", "rev": "2-y", "version": 1099511627778, "rows": {"cases": []}}]}

`rows` holds the complete rows of a document in every output: an empty list says that it has none (any
more). `version` is the guard (`epoch << 40 | version`): a receiver that keeps the highest one of each
id, and drops what is not higher, is in step with the source whatever arrives twice or late.

Signatures follow Standard Webhooks (www.standardwebhooks.com, specification 1.0), so receivers can
check them with its libraries. The message's id is a digest of its content: the same after a retry.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode
from binascii import Error as NoBase64
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum, auto

import msgspec

from checkpoints import TailKey
from pillows.errors import RetryableError
from pillows.models import DocumentRows, guard
from pillows.transports.common.columns import encode


class Verdict(Enum):
    """What an answer means for the documents of its message."""

    TAKEN = auto()
    LATER = auto()
    SPLIT = auto()  # some of them may be at fault: send halves; a single one can never be taken
    NO_ACCESS = auto()
    WRONG_ADDRESS = auto()


class Reply(msgspec.Struct, frozen=True):
    """What a receiver may say of single documents in the body of a 2xx answer.

    Attributes:
        dead: id -> why it can never be taken.
        retry: id -> why it was not taken this time.
    """

    dead: Mapping[str, str] = {}
    retry: Mapping[str, str] = {}


class Message(msgspec.Struct, frozen=True, gc=False):
    """Some documents, encoded.

    Attributes:
        ids: the documents' ids.
        parts: each document as JSON.
        head: the object's beginning, up to the list of documents.
    """

    ids: Sequence[str]
    parts: Sequence[bytes]
    head: bytes

    @property
    def body(self) -> bytes:
        """The whole body."""
        return self.head + b",".join(self.parts) + b"]}"

    def halves(self) -> Iterator[Message]:
        """The first and the second half of its documents."""
        middle = len(self.ids) // 2
        for part in (slice(None, middle), slice(middle, None)):
            yield Message(self.ids[part], self.parts[part], self.head)


def document_json(document: DocumentRows, outputs: Sequence[str], epoch: int) -> bytes:
    """One document of a message.

    Raises:
        PermanentError: a row has no JSON form.
    """
    rows = b",".join(
        b"%b:[%b]" % (encode(output), b",".join(encode(row) for row in document.rows.get(output, ())))
        for output in outputs
    )
    head = encode({"id": document.id, "rev": document.rev, "version": guard(epoch, document.version)})
    return b'%b,"rows":{%b}}' % (head[:-1], rows)


def messages(key: TailKey, epoch: int, documents: Mapping[str, bytes], max_bytes: int) -> Iterator[Message]:
    """Messages of at most `max_bytes` where a single document is not larger; in order."""
    head = encode({"pillow": key.pillow, "source": key.source, "epoch": epoch})[:-1] + b',"documents":['
    ids: list[str] = []
    size_bytes = 0
    for id, text in documents.items():
        if ids and size_bytes + len(text) > max_bytes:
            yield Message(ids, [documents[i] for i in ids], head)
            ids, size_bytes = [], 0
        ids.append(id)
        size_bytes += len(text) + 1
    if ids:
        yield Message(ids, [documents[i] for i in ids], head)


def headers(body: bytes, secret: bytes | None, now: int) -> dict[str, str]:
    """The headers of a message.

    Args:
        body: as it is sent.
        secret: signs it; None does not.
        now: wall-clock seconds.
    """
    id = f"msg_{hashlib.sha256(body).hexdigest()[:32]}"
    found = {"Content-Type": "application/json", "Idempotency-Key": f'"{id}"', "webhook-id": id}
    found["webhook-timestamp"] = str(now)
    if secret is not None:
        signed = hmac.digest(secret, b"%b.%d.%b" % (id.encode(), now, body), "sha256")
        found["webhook-signature"] = f"v1,{b64encode(signed).decode()}"
    return found


def secret_bytes(text: str) -> bytes:
    """A secret's bytes: base64 behind `whsec_` as Standard Webhooks writes it, any other text as it is.

    Raises:
        ValueError: what stands behind `whsec_` is no base64.
    """
    if not text.startswith("whsec_"):
        return text.encode()
    try:
        return b64decode(text.removeprefix("whsec_"), validate=True)
    except NoBase64 as error:
        raise ValueError("what stands behind whsec_ is no base64") from error


def verdict(status: int) -> Verdict:
    """What a status means.

    409 is what the Idempotency-Key draft of the IETF gives while the first try is still being worked
    on; 408, 425 and 429 ask for patience, too.
    """
    if 200 <= status < 300:
        return Verdict.TAKEN
    if status in (400, 413, 422):
        return Verdict.SPLIT
    if status in (401, 403, 407):
        return Verdict.NO_ACCESS
    if status in (408, 409, 425, 429) or status >= 500:
        return Verdict.LATER
    return Verdict.WRONG_ADDRESS


def reply(body: bytes) -> Reply:
    """What the body of a 2xx answer says of single documents; most say nothing, in whatever form.

    Raises:
        RetryableError: it names some, but not in our form: what it did not take must not be lost.
    """
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Reply()
    if not isinstance(said, dict) or not said.keys() & set(Reply.__struct_fields__):
        return Reply()
    try:
        return msgspec.convert(said, Reply)
    except msgspec.ValidationError as error:
        raise RetryableError(
            'The webhook\'s answer must name documents as {"dead": {id: why}, "retry": {id: why}}: '
            f"{error}."
        ) from error

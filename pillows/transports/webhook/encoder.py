"""The messages of the webhook transport. Nothing here waits.

A message is one JSON object:

    {"pillow": "cases", "source": "couch/cases", "epoch": 1, "documents": [
        {"id": "a", "rev": "3-x", "version": 1099511627779, "rows": {"cases": [{"name": "Ada"}]}},
        {"id": "b", "rev": "2-y", "version": 1099511627778, "rows": {"cases": []}}]}

`rows` holds the complete rows of a document in every output; an empty list means that it has none.
`version` is the write version (`epoch << 40 | version`): a receiver that keeps the highest one of each id,
and drops everything that is not higher, stays in step with the source even if messages arrive twice or late.

Signatures follow Standard Webhooks (www.standardwebhooks.com, specification 1.0), so receivers can
check them with its libraries. The message's id is a digest of its content, so a retry has the same id.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from checkpoints import TailKey
from pillows.models import DocumentRows, write_version
from pillows.strict_json import encode


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message: a JSON object with some documents.

    Attributes:
        ids: the documents' ids.
        parts: each document as JSON.
        head: the object's text up to the list.
    """

    ids: Sequence[str]
    parts: Sequence[bytes]
    head: bytes

    @property
    def body(self) -> bytes:
        """The whole body."""
        return self.head + b",".join(self.parts) + b"]}"

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.ids)

    def __getitem__(self, part: slice) -> Message:
        """Return a message with some of the documents."""
        return Message(self.ids[part], self.parts[part], self.head)


def encode_document(document: DocumentRows, outputs: Sequence[str], epoch: int) -> bytes:
    """Return one document of a message.

    Raises:
        PermanentError: a row has no JSON form.
    """
    rows = b",".join(
        b"%b:[%b]" % (encode(output), b",".join(map(encode, document.rows.get(output, ()))))
        for output in outputs
    )
    head = encode(
        {"id": document.id, "rev": document.rev, "version": write_version(epoch, document.leaf_version)}
    )
    return b'%b,"rows":{%b}}' % (head[:-1], rows)


def to_messages(
    key: TailKey, epoch: int, documents: Mapping[str, bytes], max_bytes: int
) -> Iterator[Message]:
    """Yield messages of at most `max_bytes`, in order; a larger document is alone in its message."""
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


def make_headers(body: bytes, secret: bytes | None, now: int) -> dict[str, str]:
    """Return the headers of a message.

    Args:
        body: as it is sent.
        secret: signs it; None sends it unsigned.
        now: wall-clock seconds.
    """
    id = f"msg_{hashlib.sha256(body).hexdigest()[:32]}"
    headers = {"Content-Type": "application/json", "Idempotency-Key": f'"{id}"', "webhook-id": id}
    headers["webhook-timestamp"] = str(now)
    if secret is not None:
        signature = hmac.digest(secret, b"%b.%d.%b" % (id.encode(), now, body), "sha256")
        headers["webhook-signature"] = f"v1,{b64encode(signature).decode()}"
    return headers


def decode_secret(text: str) -> bytes:
    """Return a secret's bytes: base64 after `whsec_`, as Standard Webhooks writes it, else the text's.

    Raises:
        ValueError: the text after `whsec_` is not valid base64.
    """
    if not text.startswith("whsec_"):
        return text.encode()
    try:
        return b64decode(text.removeprefix("whsec_"), validate=True)
    except Base64Error as error:
        raise ValueError("the text after whsec_ is not valid base64") from error

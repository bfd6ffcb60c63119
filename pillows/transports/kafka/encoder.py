"""The messages of a document: one for each topic, with the document's id as their key.

The value is the row as JSON, and null for a document without rows, which removes the key from a compacted
topic. The headers are `version` (the write version: of all messages of one key the highest counts), `rev` and
`source`. In Debezium's envelope a deletion has an event of its own before the null, as with Debezium's
`tombstones.on.delete`: https://debezium.io/documentation/reference/connectors/postgresql.html#postgresql-events
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from checkpoints import TailKey
from pillows.errors import PermanentError
from pillows.kafka.message import Headers, Message
from pillows.models import Batch, DocumentRows, Row, write_version
from pillows.strict_json import encode
from pillows.transports.kafka.options import KafkaOutput


def encode_document(
    key: TailKey,
    outputs: Mapping[str, KafkaOutput],
    batch: Batch,
    document: DocumentRows,
    now: float,
) -> list[Message]:
    """Return the messages of one document, in order.

    Args:
        key: the tail.
        outputs: output name -> its topic.
        batch: the document's batch.
        document: the document.
        now: wall-clock seconds.

    Raises:
        PermanentError: a row has no JSON form, or there are several and the topic takes one.
    """
    version = write_version(batch.epoch, document.leaf_version)
    headers: Headers = [("version", str(version)), ("rev", document.rev), ("source", key.source)]
    name = document.id.encode()
    origin: dict[str, object] = {
        "connector": "pillowd",
        "name": key.pillow,
        "db": key.source,
        "snapshot": "true" if batch.first_pass else "false",
        "rev": document.rev,
        "write_version": version,
    }
    return [
        Message(document.id, name, options.topic, value, headers)
        for output, options in outputs.items()
        for value in _make_values(document.rows.get(output, ()), options, origin, now)
    ]


def _make_values(
    rows: Sequence[Row], options: KafkaOutput, origin: Mapping[str, object], now: float
) -> Iterator[bytes | None]:
    row = _encode_rows(rows, options) if rows else None
    if options.envelope == "debezium":
        operation = "d" if row is None else "r" if origin["snapshot"] == "true" else "u"
        yield b'{"before":null,"after":%b,"source":%b,"op":"%b","ts_ms":%d}' % (
            row or b"null",
            encode(origin),
            operation.encode(),
            int(now * 1000),
        )
        if row is None:
            yield None
    else:
        yield row


def _encode_rows(rows: Sequence[Row], options: KafkaOutput) -> bytes:
    if options.value == "rows":
        return b"[%b]" % b",".join(map(encode, rows))
    if len(rows) > 1:
        raise PermanentError(
            f"It has {len(rows)} rows, and each document has one message in the topic {options.topic}: "
            "set `value: rows` there."
        )
    return encode(rows[0])


def format_message(message: Message) -> str:
    """Return a message as text, for a preview."""
    headers = " ".join(f"{name}={value}" for name, value in message.headers)
    value = "null" if message.value is None else message.value.decode()
    return f"{message.topic} {message.id} [{headers}]\n{value}\n"

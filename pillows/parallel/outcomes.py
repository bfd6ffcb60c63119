"""Encode changes for a worker, and their outcomes on the way back.

A row is sent as JSON if JSON preserves its values and every transport accepts JSON; the coordinator need not
decode it. Other rows are pickled. They may contain only values of `_CLASSES`, so reading them never runs a
user's code. A row that equals the document is not sent back.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from checkpoints import Seq, TailKey
from pillows.dead_letters.dead_letter import PIPELINE, DeadLetter, make_dead_letter
from pillows.delivery.items import Outcome
from pillows.errors import PermanentError
from pillows.models import Change, DocumentRows, Row
from pillows.parallel.protocol import to_payload
from pillows.strict_json import run_deeply
from pillows.user_code import confine

#: The type of pickled rows in MessagePack.
_PICKLED = 1
_LARGEST = 2**63
#: The classes that a pickled row may contain, in addition to plain values: module -> names.
_CLASSES = {
    "builtins": {"bytearray", "complex", "dict", "float", "frozenset", "int", "list", "set", "str", "tuple"},
    "collections": {"Counter", "OrderedDict", "defaultdict", "deque"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "fractions": {"Fraction"},
    "ipaddress": {"IPv4Address", "IPv4Network", "IPv6Address", "IPv6Network"},
    "uuid": {"SafeUUID", "UUID"},
    "zoneinfo": {"ZoneInfo"},
}

_encode_json = msgspec.json.Encoder().encode


class _Change(msgspec.Struct, frozen=True, array_like=True, gc=False):
    id: str
    revs: tuple[str, ...]
    leaf_version: int
    deleted: bool
    seq: str | None
    raw: bytes | None
    defect: str


#: A row: the document as it was sent (None), JSON, or pickled.
_Row = None | bytes | msgspec.msgpack.Ext


class SentRows(msgspec.Struct, frozen=True, array_like=True, tag="rows", gc=False):
    """The rows of a document, in the form that a worker sends."""

    rev: str
    leaf_version: int
    rows: dict[str, list[_Row]]
    size_bytes: int


class SentDeadLetter(msgspec.Struct, frozen=True, array_like=True, tag="dead-letter", gc=False):
    """A dead letter, in the form that a worker sends."""

    rev: str
    leaf_version: int
    stage: str
    error: str

    @classmethod
    def of(cls, dead: DeadLetter) -> SentDeadLetter:
        """Return a dead letter in the form that is sent."""
        return cls(dead.rev, dead.leaf_version, dead.stage, dead.error)


#: An outcome as a worker sends it.
Sent = SentRows | SentDeadLetter | None


class Outcomes(msgspec.Struct, frozen=True, array_like=True):
    """The outcomes of some changes, in their order.

    Attributes:
        outcomes: one for each change.
        kept, filtered: as in `Observer.change`.
        seconds: stage -> seconds spent in it.
        took_seconds: total time, without that to fetch documents: a slow source must not make chunks smaller.
    """

    outcomes: list[Sent]
    kept: int
    filtered: int
    seconds: dict[str, float]
    took_seconds: float


_decode_changes = msgspec.msgpack.Decoder(list[_Change]).decode
_decode_outcomes = msgspec.msgpack.Decoder(Outcomes).decode


def encode_changes(changes: Sequence[Change]) -> msgspec.Raw:
    """Return changes as the payload of a task."""
    sent = [
        (
            each.id,
            each.revs,
            each.leaf_version,
            each.deleted,
            None if each.seq is None else each.seq.json,
            None if each.raw is None else memoryview(each.raw),
            each.defect,
        )
        for each in changes
    ]
    return to_payload(sent)


def decode_changes(payload: msgspec.Raw) -> list[Change]:
    """Return the changes of a task."""
    return [
        Change(
            id=each.id,
            revs=each.revs,
            leaf_version=each.leaf_version,
            deleted=each.deleted,
            seq=None if each.seq is None else Seq(each.seq),
            raw=None if each.raw is None else msgspec.Raw(each.raw),
            defect=each.defect,
        )
        for each in _decode_changes(payload)
    ]


def encode_outcome(
    tail: TailKey, change: Change, outcome: Outcome, *, as_json: bool, with_text: bool = False
) -> Sent:
    """Encode an outcome; return a dead letter if its rows cannot be sent.

    Args:
        tail: the tail's key.
        change: the change, as received from the coordinator.
        outcome: the outcome of the change: rows, not a document.
        as_json: whether rows may become JSON.
        with_text: as `ErrorOptions.exception_text`.
    """
    if isinstance(outcome, DocumentRows):
        try:
            rows = {
                name: [_encode_row(row, change.raw, as_json=as_json) for row in rows]
                for name, rows in outcome.rows.items()
            }
            return SentRows(outcome.rev, outcome.leaf_version, rows, outcome.size_bytes)
        except BaseException as error:  # noqa: BLE001 - values of a user's code may raise anything
            outcome = make_dead_letter(tail, change, "transform", confine(error), with_text=with_text)
    if isinstance(outcome, DeadLetter):
        return SentDeadLetter.of(outcome)
    if outcome is None:
        return None
    raise TypeError(f"a {type(outcome).__name__} cannot be sent as an outcome")


def decode_outcomes(payload: msgspec.Raw) -> Outcomes:
    """Decode the outcomes that a worker sent.

    Raises:
        msgspec.DecodeError: the bytes are not outcomes.
    """
    found: Outcomes = _decode_outcomes(payload)
    return found


def to_outcome(tail: TailKey, change: Change, sent: Sent) -> Outcome:
    """Decode the outcome of a change; return a dead letter if its rows cannot be read.

    Args:
        tail: the tail's key.
        change: the change, as sent to the worker.
        sent: the outcome that came back.
    """
    if sent is None:
        return None
    if isinstance(sent, SentRows):
        try:
            rows = {name: [_to_row(row, change) for row in rows] for name, rows in sent.rows.items()}
        except Exception as error:  # noqa: BLE001 - whatever the bytes are, they harm one document
            return make_dead_letter(tail, change, "transform", error)
        return DocumentRows(
            id=change.id,
            rev=sent.rev,
            leaf_version=sent.leaf_version,
            rows=rows,
            size_bytes=sent.size_bytes,
        )
    return DeadLetter(
        tail=tail,
        transport=PIPELINE,
        id=change.id,
        rev=sent.rev,
        leaf_version=sent.leaf_version,
        stage=sent.stage,
        error=sent.error,
    )


def _encode_row(row: Row, document: msgspec.Raw | None, *, as_json: bool) -> _Row:
    if isinstance(row, msgspec.Raw):
        return None if row is document else bytes(row)
    if as_json and (text := _to_json(row)) is not None:
        return text
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(row)
    _unpickle(buffer.getvalue())  # what the coordinator cannot read, it is not sent
    return msgspec.msgpack.Ext(_PICKLED, buffer.getvalue())


class _Pickler(pickle.Pickler):
    """Pickles rows. A time zone is written as its name, since unpickling it would need `getattr`."""

    def reducer_override(self, value: Any) -> Any:
        return (ZoneInfo, (value.key,)) if type(value) is ZoneInfo else NotImplemented


class _Unpickler(pickle.Unpickler):
    """Unpickles rows; imports nothing but `_CLASSES`."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in _CLASSES.get(module, ()):
            raise PermanentError(
                f"A row has a value of {module}.{name}. Return plain values, dates, times, Decimal or "
                "UUID from transforms that run in workers."
            )
        return super().find_class(module, name)


def _unpickle(pickled: bytes) -> Row:
    row: Row = _Unpickler(io.BytesIO(pickled)).load()
    return row


def _to_json(row: Mapping[str, Any]) -> bytes | None:
    """Return a row as JSON; None if JSON does not preserve its values."""
    try:
        if run_deeply(lambda: _is_plain(row), frames=2):
            return run_deeply(lambda: _encode_json(row))
    except (RecursionError, UnicodeEncodeError):  # half of a surrogate pair has no UTF-8 form
        pass
    return None


def _is_plain(value: Any) -> bool:
    """Return whether JSON preserves a value; a tuple counts as a list."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int:
        return bool(-_LARGEST <= value < _LARGEST)
    if kind is float:
        return math.isfinite(value)
    if kind is dict:
        return all(type(name) is str and _is_plain(part) for name, part in value.items())
    return kind in (list, tuple) and all(map(_is_plain, value))


def _to_row(row: _Row, change: Change) -> Row:
    if row is None:
        if change.raw is None:
            raise ValueError("the worker refers to a document that was not sent to it")
        return change.raw
    if isinstance(row, bytes):
        return msgspec.Raw(row)
    return _unpickle(bytes(row.data))

"""The meaning of a webhook's answer for the documents of a message. Nothing here waits."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

import msgspec

from pillows.errors import RetryableError


class StatusVerdict(Enum):
    """The meaning of a status for the documents of its message."""

    ACCEPTED = auto()
    RETRY = auto()
    SPLIT = auto()  # some documents may be at fault: send halves; a single one can never be accepted
    ACCESS = auto()
    CONFIG = auto()


class Reply(msgspec.Struct, frozen=True):
    """The results for single documents that a receiver may send in the body of a 2xx answer.

    Attributes:
        dead: id -> why it can never be accepted.
        retry: id -> why it was not accepted this time.
    """

    dead: Mapping[str, str] = {}
    retry: Mapping[str, str] = {}


def classify_status(status: int) -> StatusVerdict:
    """Return the meaning of a status.

    409 is what the IETF's Idempotency-Key draft answers while the first attempt is still in progress;
    408, 425 and 429 ask to wait, too.
    """
    if 200 <= status < 300:
        return StatusVerdict.ACCEPTED
    if status in (400, 413, 422):
        return StatusVerdict.SPLIT
    if status in (401, 403, 407):
        return StatusVerdict.ACCESS
    if status in (408, 409, 425, 429) or status >= 500:
        return StatusVerdict.RETRY
    return StatusVerdict.CONFIG


def parse_reply(body: bytes) -> Reply:
    """Return what the body of a 2xx answer says of single documents; most bodies say nothing.

    Raises:
        RetryableError: the answer names documents, but not in our form, so it is unclear which were refused.
    """
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Reply()
    if not isinstance(answer, dict) or not answer.keys() & set(Reply.__struct_fields__):
        return Reply()
    try:
        return msgspec.convert(answer, Reply)
    except msgspec.ValidationError as error:
        raise RetryableError(
            'The webhook\'s answer must name documents as {"dead": {id: why}, "retry": {id: why}}: '
            f"{error}."
        ) from error

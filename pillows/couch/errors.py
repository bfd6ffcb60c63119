"""What an HTTP answer of a CouchDB server means. Pure: status, headers and body in, an error out."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import msgspec

from pillows.errors import AccessError, PillowError, RetryableError

#: A server that asks us to wait longer than this is asked again anyway.
MAX_RETRY_AFTER_SECONDS = 120.0

#: What CouchDB says of a database that is not there; 2.x and 3.x, and 1.x.
_NO_DATABASE = {"Database does not exist.", "no_db_file"}

#: What CouchDB says, with 403, of an account that failed too often, whatever its password; since 3.4.
_LOCKED = "Account is temporarily locked"

#: What CouchDB says, with 401, also to users whose password it took.
_NO_ADMIN = "You are not a server admin."

#: Client errors that are none: timeouts, "nodedown" (412), "too early".
_PASSING = {408, 412, 425}


class ThrottledError(RetryableError):
    """The server asked us to slow down."""


class MissingError(RetryableError):
    """The database does not exist."""


class RefusedError(AccessError):
    """The server did not take our credentials."""


class ForbiddenError(AccessError):
    """The server knows who we are, and that we may not do this."""


class RejectedError(RetryableError):
    """The server does not take the request as it is.

    What that means is the caller's to say, who knows what was asked for. It may well pass: proxies
    and servers that are starting answer like this, too.

    Attributes:
        status: the HTTP status, 4xx.
        said: CouchDB's own words; empty where the answer is not CouchDB's.
    """

    def __init__(self, message: str, *, status: int, said: ErrorBody) -> None:
        super().__init__(message)
        self.status = status
        self.said = said


class ServerError(RetryableError):
    """The server failed.

    Attributes:
        status: the HTTP status, 5xx.
    """

    def __init__(self, message: str, *, status: int, retry_after_seconds: float | None) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.status = status


class ErrorBody(msgspec.Struct, frozen=True):
    """A body in which CouchDB says what is wrong.

    Attributes:
        error: a word.
        reason: a sentence.
    """

    error: str = ""
    reason: str | None = None

    def __str__(self) -> str:
        """Both, as an operator reads them."""
        return f"{self.error}: {self.reason}" if self.reason else self.error


def parse_error_body(body: bytes) -> ErrorBody:
    """CouchDB's own words in a body; empty where the body is not CouchDB's."""
    try:
        return msgspec.json.decode(body, type=ErrorBody)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return ErrorBody()


def classify(status: int, headers: Mapping[str, str], body: bytes, *, now: float) -> PillowError:
    """The error that an answer other than 2xx stands for.

    Args:
        status: the HTTP status.
        headers: the answer's headers.
        body: its beginning.
        now: wall-clock seconds, for a `Retry-After` that is a date.
    """
    said = parse_error_body(body)
    text = f"The server answered {status}" + (f" ({said})." if said.error else ".")
    if status in (401, 403):
        return _unwelcome(status, said, text)
    if status == 429:
        return ThrottledError(text, retry_after_seconds=max(1.0, retry_after(headers, now=now) or 0.0))
    if status == 404 and said.reason in _NO_DATABASE:
        return MissingError(text)
    if 400 <= status < 500 and status not in _PASSING:
        return RejectedError(text, status=status, said=said)
    return ServerError(text, status=status, retry_after_seconds=retry_after(headers, now=now))


def _unwelcome(status: int, said: ErrorBody, text: str) -> AccessError:
    reason = said.reason or ""
    if reason == _NO_ADMIN or (status == 403 and not reason.startswith(_LOCKED)):
        return ForbiddenError(text, remedy="let the user do that: see the database's `_security`")
    return RefusedError(text, remedy="check the user, its password, and that it may read the database")


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds that `Retry-After` asks for, as a number or a date (RFC 9110, section 10.2.3)."""
    text = headers.get("Retry-After", "").strip()
    if not text:
        return None
    try:
        seconds = float(text) if text.isdigit() else parsedate_to_datetime(text).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)

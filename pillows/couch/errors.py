"""Turn an HTTP error response of a CouchDB server into an error. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import msgspec

from pillows.couch.explain import explain_redirect
from pillows.errors import AccessError, PillowError, RetryableError
from pillows.retry.backoff import MAX_RETRY_AFTER_SECONDS

#: CouchDB's reasons for a missing database; 2.x and 3.x, and 1.x.
_NO_DATABASE = {"Database does not exist.", "no_db_file"}

#: CouchDB's reason, with 403, for an account that failed to log in too often; since 3.4.
_LOCKED = "Account is temporarily locked"

#: CouchDB's reason, with 401, also for users whose password is right.
_NO_ADMIN = "You are not a server admin."

#: Client errors that are temporary: timeouts, "nodedown" (412), "too early".
_TEMPORARY = {408, 412, 425}


class ThrottledError(RetryableError):
    """The server asked us to slow down."""


class MissingError(RetryableError):
    """The database does not exist."""


class RefusedError(AccessError):
    """The server rejected our credentials."""


class ForbiddenError(AccessError):
    """The server knows our user, who lacks the permission."""


class RejectedError(RetryableError):
    """The server rejected the request.

    The caller decides what that means for its request. It may be temporary: proxies and servers that are
    starting answer like this, too.

    Attributes:
        status: the HTTP status, 4xx.
        body: CouchDB's error; empty when the response is not CouchDB's.
    """

    def __init__(self, message: str, *, status: int, body: ErrorBody) -> None:
        super().__init__(message)
        self.status = status
        self.body = body


class ServerError(RetryableError):
    """The server failed.

    Attributes:
        status: the HTTP status, 5xx.
    """

    def __init__(self, message: str, *, status: int, retry_after_seconds: float | None) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.status = status


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of CouchDB's error responses.

    Attributes:
        error: a word.
        reason: a sentence.
    """

    error: str = ""
    reason: str | None = None

    def __str__(self) -> str:
        """Return error and reason, as an operator reads them."""
        return f"{self.error}: {self.reason}" if self.reason else self.error


def parse_error_body(body: bytes) -> ErrorBody:
    """Return CouchDB's error in a body; empty when the body is not CouchDB's."""
    try:
        return msgspec.json.decode(body, type=ErrorBody)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return ErrorBody()


def classify(
    status: int, headers: Mapping[str, str], body: bytes, *, now: float, url: str = ""
) -> PillowError:
    """Return the error for a response with a status other than 2xx.

    Args:
        status: the HTTP status.
        headers: the response's headers.
        body: its beginning.
        now: wall-clock seconds, for a `Retry-After` with a date.
        url: the request's.
    """
    if 300 <= status < 400:
        text = explain_redirect(status, headers, url)
        return ServerError(text, status=status, retry_after_seconds=None)
    error = parse_error_body(body)
    text = f"The server answered {status}" + (f" ({error})." if error.error else ".")
    if status in (401, 403):
        return _to_access_error(status, error, text)
    if status == 429:
        return ThrottledError(text, retry_after_seconds=max(1.0, retry_after(headers, now=now) or 0.0))
    if status == 404 and error.reason in _NO_DATABASE:
        return MissingError(text)
    if 400 <= status < 500 and status not in _TEMPORARY:
        return RejectedError(text, status=status, body=error)
    return ServerError(text, status=status, retry_after_seconds=retry_after(headers, now=now))


def _to_access_error(status: int, error: ErrorBody, text: str) -> AccessError:
    reason = error.reason or ""
    if reason == _NO_ADMIN or (status == 403 and not reason.startswith(_LOCKED)):
        return ForbiddenError(text, remedy="grant the user access in the database's `_security`")
    return RefusedError(text, remedy="check the user, its password, and that it may read the database")


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return the seconds in `Retry-After`, a number or a date (RFC 9110, section 10.2.3), if it is there."""
    text = headers.get("Retry-After", "").strip()
    if not text:
        return None
    try:
        seconds = float(text) if text.isdigit() else parsedate_to_datetime(text).timestamp() - now
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def outcome_of(error: PillowError) -> str:
    """Return the outcome of a failed request, as a metric counts it.

    Returns:
        `refused`: the server denies access, or rejects the request. `throttled`: it asked us to slow down.
        `retry`: anything that may pass.
    """
    if isinstance(error, ThrottledError):
        return "throttled"
    return "refused" if isinstance(error, AccessError | RejectedError) else "retry"

"""The answers with which CouchDB refuses a request."""

from __future__ import annotations

from typing import Final


class Refusal(Exception):
    """End a request with an error.

    Attributes:
        status: HTTP status.
        error: the machine's word for it.
        reason: the text for people.
        ref: whether CouchDB adds the hash of its stack trace.
        headers: further headers of the answer.
        logged_out: whether the answer clears the session's cookie.
    """

    def __init__(
        self,
        status: int,
        error: str,
        reason: str,
        *,
        ref: bool = False,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {error}: {reason}")
        self.status = status
        self.error = error
        self.reason = reason
        self.ref = ref
        self.headers = headers or {}

    @property
    def content(self) -> dict[str, object]:
        """The body of the answer."""
        reference: dict[str, object] = {"ref": 1234567890} if self.ref else {}
        return {"error": self.error, "reason": self.reason, **reference}


CONFLICT: Final = "Document update conflict."
NO_DATABASE: Final = "Database does not exist."


def bad_request(reason: str) -> Refusal:
    """Return the error of a request that makes no sense."""
    return Refusal(400, "bad_request", reason)


def invalid_json() -> Refusal:
    """Return the error of a text that is not JSON."""
    return bad_request("invalid UTF-8 JSON")


def invalid_rev() -> Refusal:
    """Return the error of a malformed revision."""
    return bad_request("Invalid rev format")


def illegal_id(reason: str) -> Refusal:
    """Return the error of an illegal document id."""
    return Refusal(400, "illegal_docid", reason)


def missing(reason: str = "missing") -> Refusal:
    """Return the error of a missing document, database or page."""
    return Refusal(404, "not_found", reason)


def conflict() -> Refusal:
    """Return the error of an edit that extends no leaf."""
    return Refusal(409, "conflict", CONFLICT)


def unauthorized(reason: str) -> Refusal:
    """Return the error of a request by nobody who is known."""
    return Refusal(401, "unauthorized", reason)


def forbidden(reason: str) -> Refusal:
    """Return the error of a request by somebody who may not."""
    return Refusal(403, "forbidden", reason)


def function_clause() -> Refusal:
    """Return the error of a value for which CouchDB's code has no clause."""
    return Refusal(500, "unknown_error", "function_clause", ref=True)


def not_allowed(methods: str) -> Refusal:
    """Return the error of a method that a page does not take."""
    return Refusal(405, "method_not_allowed", f"Only {methods} allowed", headers={"Allow": methods})

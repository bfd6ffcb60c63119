"""The errors of requests to the daemon: a branch of the error tree in `pillows.errors`.

RemediedError
└── RequestError             the request cannot be carried out
    ├── InvalidRequestError      the request itself is wrong: change it
    ├── UnknownPillowError       it names no pillow, or several
    ├── NotFoundError            it names something that does not exist
    ├── ConflictError            the state forbids it
    ├── UnconditionalEditError   the edit does not say which state it changes
    ├── EditedMeanwhileError     another client made an edit first: read the state again
    ├── NotPermittedError        this client may not do it
    │   ├── UnauthenticatedError     ... because it has no valid token
    │   └── ThrottledError           ... until later
    ├── NotInTimeError           it was requested, but is not reached yet
    ├── UnavailableError         the daemon cannot do it now: ask again
    └── InternalError            a defect of pillowd

Each class has an HTTP status and, by its name, a URN; a client gets the class back from the URN.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

from pillows.errors import RemediedError


class RequestError(RemediedError):
    """The request cannot be carried out.

    Attributes:
        status: the status of the HTTP answer.
    """

    status: ClassVar[int] = 400

    def __init__(self, message: str | None = None, *, remedy: str = "", status: int | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.answer_status = self.status if status is None else status


class InvalidRequestError(RequestError):
    """The request is not valid."""


class UnknownPillowError(RequestError):
    """The text names no pillow, or several."""

    status = 404


class NotFoundError(RequestError):
    """The requested thing does not exist."""

    status = 404


class ConflictError(RequestError):
    """The state of the pillow or of the daemon forbids it."""

    status = 409


class UnconditionalEditError(RequestError):
    """The edit does not say which checkpoint it changes."""

    status = 428


class EditedMeanwhileError(RequestError):
    """Somebody else edited the checkpoint first."""

    status = 412


class NotPermittedError(RequestError):
    """This client may not do that."""

    status = 403


class UnauthenticatedError(NotPermittedError):
    """The request has no valid token."""

    status = 401


class ThrottledError(NotPermittedError):
    """There were too many wrong tokens from this address."""

    status = 429


class NotInTimeError(RequestError):
    """The request was accepted, but its effect has not come in time."""

    status = 504


class UnavailableError(RequestError):
    """The daemon cannot carry out the request at present."""

    status = 503


class InternalError(RequestError):
    """The daemon has a defect."""

    status = 500


def urn(kind: type[Exception]) -> str:
    """Return the URN of a class: that of `UnknownPillowError` is `urn:pillowd:error:unknown-pillow`."""
    words = re.findall(r"[A-Z][a-z]*", kind.__name__.removesuffix("Error"))
    return f"urn:pillowd:error:{'-'.join(words).lower()}"


def from_urn(text: str) -> type[RequestError]:
    """Return the class of the request errors that a URN names; `RequestError` for those of other branches."""
    return next((kind for kind in _branch(RequestError) if urn(kind) == text), RequestError)


def _branch(kind: type[RequestError]) -> Iterator[type[RequestError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _branch(child)

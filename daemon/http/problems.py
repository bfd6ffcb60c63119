"""Turn errors into problem documents (RFC 9457), and back."""

from __future__ import annotations

import secrets
import traceback
from collections.abc import Mapping
from typing import Any

import structlog

from checkpoints import IntegrityError, StoreError, StoreLocked, StoreWriteError
from daemon.config.problems import ConfigErrors, ConfigProblem, Place
from daemon.errors import InternalError, RequestError, from_urn, urn
from daemon.http.messages import PROBLEM, Answer
from pillows.errors import FatalError, PillowError, RetryableError, StoppedError
from pillows.redaction import Redactor
from pillows.user_code import describe_error

_log = structlog.get_logger("pillowd.http")

#: Status of errors that are not a `RequestError`; the first match counts.
_STATUSES: tuple[tuple[tuple[type[Exception], ...], int], ...] = (
    ((ConfigErrors,), 422),
    ((StoreLocked, StoreWriteError, RetryableError, StoppedError), 503),
    ((IntegrityError, FatalError, PillowError, StoreError), 409),
)


def to_answer(error: Exception, redactor: Redactor, *, pillow: str | None = None) -> Answer:
    """Return the answer for an error.

    Any other error is a defect: the answer contains only an id, and the log the details.

    Args:
        error: the error.
        redactor: removes secrets from its text.
        pillow: the pillow that the request names.
    """
    if not isinstance(error, PillowError | StoreError):
        error = _log_defect(error)
    status = error.answer_status if isinstance(error, RequestError) else _find_status(error)
    detail, remedy = split(error)
    problem: dict[str, Any] = {
        "type": urn(type(error)),
        "title": _title(type(error)),
        "status": status,
        "detail": redactor.redact(detail),
        "remedy": redactor.redact(remedy) or None,
        "pillow": pillow,
        "mistakes": _mistakes(error),
    }
    headers = {"Retry-After": "1"} if status == 503 else {"Retry-After": "60"} if status == 429 else {}
    return Answer(status=status, body=problem, headers=headers, media_type=PROBLEM)


def to_error(problem: Mapping[str, Any]) -> RequestError | ConfigErrors:
    """Return the error in a problem document: a `RequestError`, or the `ConfigErrors` of a configuration."""
    if problem.get("mistakes"):
        return ConfigErrors(map(_to_mistake, problem["mistakes"]))
    return from_urn(str(problem.get("type")))(
        str(problem.get("detail") or problem.get("title") or "the daemon refused it"),
        remedy=str(problem.get("remedy") or ""),
        status=int(problem.get("status") or 500),
    )


def split(error: Exception) -> tuple[str, str]:
    """Return the reason and the remedy of an error."""
    reason, _, remedy = str(error).partition(" Remedy: ")
    return reason.removesuffix(".") if remedy else reason, remedy


def _find_status(error: Exception) -> int:
    return next(status for kinds, status in _STATUSES if isinstance(error, kinds))


def _title(kind: type[Exception]) -> str:
    return (kind.__doc__ or kind.__name__).strip().splitlines()[0].removesuffix(".")


def _mistakes(error: Exception) -> list[dict[str, Any]]:
    if not isinstance(error, ConfigErrors):
        return []
    return [
        {
            "file": each.place.file,
            "line": each.place.line,
            "key": each.key,
            "message": each.message,
            "remedy": each.remedy,
        }
        for each in error.problems
    ]


def _to_mistake(each: Mapping[str, Any]) -> ConfigProblem:
    place = Place(file=str(each["file"]), line=int(each["line"]))
    path = (str(each["key"]),) if each["key"] else ()
    return ConfigProblem(place=place, path=path, message=str(each["message"]), remedy=str(each["remedy"]))


def _log_defect(error: Exception) -> InternalError:
    id = secrets.token_hex(6)
    stack = "".join(traceback.format_tb(error.__traceback__))
    _log.error("request.crashed", id=id, error=describe_error(error), stack=stack)
    return InternalError(
        f"pillowd failed in an unexpected way, {id}", remedy=f"look for {id} in the log, and report it"
    )

"""Find the cause of an error of requests or urllib3, however deep they have wrapped it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

#: They nest about four errors; more would be a cycle.
_MAX_DEPTH = 10


def walk_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes, from the outside in."""
    behind: BaseException | None = error
    for _ in range(_MAX_DEPTH):
        if behind is None:
            return
        yield behind
        reason = getattr(behind, "reason", None) or next(
            (part for part in behind.args if isinstance(part, BaseException)), None
        )
        behind = reason if isinstance(reason, BaseException) else behind.__cause__ or behind.__context__


def is_untrusted_certificate(error: BaseException) -> bool:
    """Return whether the cause is a certificate that is not trusted."""
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in walk_causes(error))


def is_connect_failure(error: BaseException) -> bool:
    """Return whether no connection was made, so that no request was sent."""
    return any(isinstance(cause, NewConnectionError | ConnectTimeoutError) for cause in walk_causes(error))

"""What is behind an error of requests or urllib3, however deep they have wrapped it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

#: They wrap some four errors; more would be a ring.
_DEEPEST = 10


def walk_causes(error: BaseException) -> Iterator[BaseException]:
    """The error itself, and what is behind it, from the outside in."""
    behind: BaseException | None = error
    for _ in range(_DEEPEST):
        if behind is None:
            return
        yield behind
        reason = getattr(behind, "reason", None) or next(
            (part for part in behind.args if isinstance(part, BaseException)), None
        )
        behind = reason if isinstance(reason, BaseException) else behind.__cause__ or behind.__context__


def is_untrusted_certificate(error: BaseException) -> bool:
    """Whether a certificate that is not trusted is behind an error."""
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in walk_causes(error))


def is_connect_failure(error: BaseException) -> bool:
    """Whether no connection came about, so that nothing was asked of anybody."""
    return any(isinstance(cause, NewConnectionError | ConnectTimeoutError) for cause in walk_causes(error))

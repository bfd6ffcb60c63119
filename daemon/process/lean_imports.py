"""Import libraries without what they would import for purposes that we do not have."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def import_requests() -> None:
    """Import requests without anything that guesses encodings: 4.5 MB.

    It would guess that of a text whose server names none, and takes UTF-8 now. JSON is UTF-8 anyway.
    """
    with _hidden("chardet", "charset_normalizer"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unable to find acceptable character detection")
        import requests  # noqa: F401, PLC0415  for its effect


def import_structlog() -> None:
    """Import structlog without rich, with which it would format tracebacks.

    The daemon shows none. rich and what it imports took 4.6 MB of an idle daemon. The commands' tables may
    import it later.
    """
    with _hidden("rich"):
        import structlog  # noqa: F401, PLC0415  for its effect


@contextmanager
def _hidden(*modules: str) -> Iterator[None]:
    """Let modules seem not to be installed. Later a user's functions may import them."""
    absent = [name for name in modules if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment] # so Python marks what cannot be imported
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]

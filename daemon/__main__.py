"""The first steps of the process: patch, then import.

gevent must replace the standard library's blocking parts before any of our modules, or a client
library, holds a reference to one of them.
"""

from __future__ import annotations

import gc
import os
import sys
import warnings


def start() -> None:
    """Patch the standard library, then run the command and exit with its code."""
    gc.disable()  # imports leave no garbage; `Commands.get_command` looks for it again
    from daemon.process.patching import patch  # noqa: PLC0415  nothing may be imported before the patch

    patch()
    _import_structlog_alone()
    _forgo_guesses()
    _forgo_plugins()
    from daemon.cli.main import run_command  # noqa: PLC0415  after the patch

    sys.exit(run_command(sys.argv[1:]))


def _forgo_guesses() -> None:
    """Let requests import nothing that guesses encodings: 3 MB of an idle daemon.

    It would guess that of a text whose server names none, and takes UTF-8 now. JSON is UTF-8 anyway.
    """
    for guesser in ("chardet", "charset_normalizer"):
        sys.modules[guesser] = None  # type: ignore[assignment]
    warnings.filterwarnings("ignore", "Unable to find acceptable character detection")


def _forgo_plugins() -> None:
    """Let pydantic look for no plugins: it would read the metadata of every installed distribution.

    Whoever has one for their functions sets the variable to another value (pydantic docs, "Plugins").
    """
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def _import_structlog_alone() -> None:
    """Import structlog without rich, which it would show tracebacks with if it could.

    The daemon shows none. rich and what it imports took 4.6 MB of an idle daemon.
    """
    # None is how Python marks a module that cannot be imported.
    sys.modules["rich"] = None  # type: ignore[assignment]
    import structlog  # noqa: F401, PLC0415  for its effect

    del sys.modules["rich"]  # the commands' tables need it


def main() -> None:
    """Run `python -m daemon`, which equals the console script."""
    import pillowd  # noqa: PLC0415  checks whether another distribution hides this package

    pillowd.main()


if __name__ == "__main__":
    main()

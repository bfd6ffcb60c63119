"""The first steps of the process: patch, then import.

gevent must replace the standard library's blocking parts before any of our modules, or a client
library, holds a reference to one of them.
"""

from __future__ import annotations

import gc
import os
import sys


def start() -> None:
    """Patch the standard library, then run the command and exit with its code."""
    gc.disable()  # imports leave no garbage; `Commands.get_command` looks for it again
    from daemon.process.patching import patch  # noqa: PLC0415  nothing may be imported before the patch

    patch()
    from daemon.process.lean_imports import import_requests, import_structlog  # noqa: PLC0415  after the patch

    import_structlog()
    import_requests()
    _forgo_plugins()
    from daemon.cli.main import run_command  # noqa: PLC0415  after the patch

    sys.exit(run_command(sys.argv[1:]))


def _forgo_plugins() -> None:
    """Let pydantic look for no plugins: it would read the metadata of every installed distribution.

    Whoever has one for their functions sets the variable to another value (pydantic docs, "Plugins").
    """
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def main() -> None:
    """Run `python -m daemon`, which equals the console script."""
    import pillowd  # noqa: PLC0415  checks whether another distribution hides this package

    pillowd.main()


if __name__ == "__main__":
    main()

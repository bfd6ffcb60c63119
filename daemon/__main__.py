"""The process's first steps, in the only order that works: look, patch, import.

gevent must replace the standard library's blocking parts before any module of ours, or a client
library, holds a reference to one of them.
"""

from __future__ import annotations

import sys


def start() -> None:
    """Patches the standard library, then runs the command and exits with its code."""
    from gevent import monkey  # noqa: PLC0415  nothing may be imported before the patch

    monkey.patch_all()
    from daemon.cli.main import run_command  # noqa: PLC0415  after the patch

    sys.exit(run_command(sys.argv[1:]))


def main() -> None:
    """`python -m daemon`: the same as the console script."""
    import pillowd  # noqa: PLC0415  decides whether this package may be used at all

    pillowd.main()


if __name__ == "__main__":
    main()

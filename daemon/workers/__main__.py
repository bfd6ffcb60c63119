"""The program of a pillow's worker; its argument is the descriptor of the socket to the daemon.

As in `daemon.__main__`, the standard library is patched before anything else is imported.
"""

from __future__ import annotations

import sys


def main(fd: int) -> None:
    """Serve the daemon at the other end of a socket.

    Args:
        fd: the socket's descriptor.
    """
    from daemon.process.patching import patch  # noqa: PLC0415  nothing may be imported before the patch

    patch()
    from daemon.process.lean_imports import import_requests  # noqa: PLC0415  after the patch

    import_requests()
    from daemon.workers.serving import serve_daemon  # noqa: PLC0415  after the patch

    serve_daemon(fd)


if __name__ == "__main__":
    main(int(sys.argv[1]))

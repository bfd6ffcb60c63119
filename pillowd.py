"""The console script, in a module that no other distribution hides.

PyPI's `python-daemon` installs a package named `daemon` too. Earlier on the path, it hides ours; in the
same site-packages folder, pip merges both, and the later `__init__.py` wins. So the console script
starts here, checks before it imports, and reports what is wrong.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path

#: The line that marks our `daemon/__init__.py`.
MARKER = 'DISTRIBUTION = "pillowd"'

#: EX_CONFIG of sysexits(3): a restart cannot help.
EXIT_CONFIG = 78
#: The exit code of any other failure.
EXIT_FAILED = 1

#: The commands that end with code 0 when they are asked to stop.
DAEMONS = frozenset({"run", "mirror"})


def handle_early_signals(arguments: list[str]) -> None:
    """Handle SIGTERM and SIGHUP until a daemon installs its own handlers.

    Importing and reading the configuration takes up to seconds. Nothing is open by then, so SIGTERM ends
    the process at once. SIGHUP asks for the configuration that is about to be read.

    Args:
        arguments: those after the program's name.
    """
    if DAEMONS.isdisjoint(arguments[:2]):
        return
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def claimants(origin: Path) -> list[str]:
    """Return the names of other distributions that installed `origin`, or a `daemon` beside it."""
    others = [each for each in origin.parents[1].glob("*-info") if each.name.partition("-")[0] != "pillowd"]
    claiming = [each for each in others if _has_daemon(each)]
    if not claiming:  # as nearly always: the import takes longer than all the rest
        return []
    from importlib import metadata  # noqa: PLC0415  slow: see above

    # pip renames ours to `~illowd-...` while it replaces it, and leaves that behind if it is killed.
    return sorted({metadata.PathDistribution(each).name for each in claiming} - {"pillowd"})


def _has_daemon(info: Path) -> bool:
    """Return whether the distribution that a `*.dist-info` or `*.egg-info` describes has a `daemon`."""
    if record := _read(info / "RECORD"):
        return b"\ndaemon/__init__.py," in b"\n" + record
    return b"daemon" in _read(info / "top_level.txt").split()


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def refusal() -> str | None:
    """Return why the package `daemon` cannot be used, with the remedy; None if it is ours alone."""
    spec = importlib.util.find_spec("daemon")
    if spec is None or spec.origin is None:
        return "pillowd's package `daemon` is not installed. Remedy: install pillowd again"
    origin = Path(spec.origin).resolve()
    others = claimants(origin)
    if not others and MARKER in origin.read_text(encoding="utf-8", errors="replace"):
        return None
    owner = f"the distribution {' and '.join(others)}" if others else "another distribution"
    return (
        f"the Python package `daemon` at {origin.parent} belongs to {owner}, which hides pillowd's own. "
        f"Remedy: install pillowd into a virtual environment of its own"
        + (f", or `pip uninstall {' '.join(others)}` and install pillowd again" if others else "")
    )


def main() -> None:
    """Run the command, unless another distribution hides our `daemon`."""
    handle_early_signals(sys.argv[1:])
    try:
        reason = refusal()
        if reason is not None:
            sys.stderr.write(f"pillowd: {reason}\n")
            sys.exit(EXIT_CONFIG)
        from daemon.__main__ import start  # noqa: PLC0415  only now is it known to be ours

        start()
    except KeyboardInterrupt:  # during the import; later, `run_command` handles it
        sys.stderr.write("pillowd: interrupted before the start. Remedy: run the same command again\n")
        sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    main()

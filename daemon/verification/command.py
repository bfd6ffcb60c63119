"""Compare one tail in a separate process: `pillowd verify`, while the daemon runs.

Reading a whole database is work for the processor. In the daemon it would delay every pillow; another
process has its own core and connections, and ends with all its memory.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
from gevent import subprocess

from checkpoints import TailKey
from daemon.process.environment import choose_environment
from daemon.verification.comparisons import Comparison

#: The script that starts this installation or checkout.
PROGRAM = (sys.executable, str(Path(__file__).parents[2] / "pillowd.py"))
#: Exit codes of `pillowd verify` that come with a report: equal, and different.
_REPORTED = (0, 3)
#: Priority of the process; see nice(1).
_NICE = 10
#: A comparison that takes longer is given up.
_MAX_SECONDS = 43_200.0
#: How long the process may take to end after SIGTERM.
_END_SECONDS = 5.0
_REASON_CHARACTERS = 500


class VerifyCommand:
    """Runs `pillowd verify`.

    Args:
        config_path: the configuration.
        environ: the daemon's environment.
        program: the first words of the command.
    """

    def __init__(
        self, config_path: Path, environ: Mapping[str, str], *, program: Sequence[str] = PROGRAM
    ) -> None:
        self._config_path = config_path
        self._environ = choose_environment(environ)
        self._program = tuple(program)

    def run(self, key: TailKey, *, options: Sequence[str] = (), now: Callable[[], float]) -> Comparison:
        """Compare a tail. The process ends with the calling greenlet.

        Args:
            key: the tail.
            options: more options of the command, such as `--repair`.
            now: returns wall-clock seconds.
        """
        words = [*self._program, "verify", str(key), "--json", "--config", str(self._config_path)]
        try:
            code, output, errors = self._communicate([*words, *options])
        except gevent.Timeout:
            return Comparison(at=now(), reason=f"it took longer than {_MAX_SECONDS / 3600:g} hours")
        except OSError as error:
            return Comparison(at=now(), reason=f"the process cannot be started: {error.strerror}")
        if code not in _REPORTED:
            return Comparison(at=now(), reason=_get_reason(code, errors))
        return read_report(output, at=now())

    def _communicate(self, words: Sequence[str]) -> tuple[int, bytes, bytes]:
        pipe = subprocess.PIPE
        with subprocess.Popen(
            words, env=self._environ, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe
        ) as process:
            try:
                with suppress(OSError):  # the unit's filter of system calls may forbid it
                    os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
                with gevent.Timeout(_MAX_SECONDS):
                    output, errors = process.communicate()
            except BaseException:
                _end(process)
                raise
        return process.returncode, output, errors


def read_report(output: bytes, *, at: float) -> Comparison:
    """Return the comparison that `pillowd verify --json` has printed."""
    try:
        report = json.loads(output)
        before = report.get("before_repair") or report
        found = _count_differences(report)
        earlier = sum(count for kinds in _count_differences(before).values() for count in kinds.values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Comparison(at=at, reason=f"its report cannot be read ({type(error).__name__})")
    left = sum(count for kinds in found.values() for count in kinds.values())
    return Comparison(at=at, differences=found, repaired=max(0, earlier - left))


def _count_differences(report: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for target in report["targets"]:
        kinds = found.setdefault(target["target"].partition("/")[0], {})
        for kind, count in target["counts"].items():
            name = "extra" if kind == "phantom" else kind
            kinds[name] = kinds.get(name, 0) + int(count)
    return found


def _get_reason(code: int, errors: bytes) -> str:
    lines = errors.decode(errors="replace").strip().splitlines()
    said = lines[-1].removeprefix("pillowd: ") if lines else f"it ended with {code}"
    return said[:_REASON_CHARACTERS]


def _end(process: Any) -> None:
    process.terminate()
    try:
        process.wait(timeout=_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()

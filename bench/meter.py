"""Measures a participant as a whole process: wall time, CPU of itself and of the servers, peak memory."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The figures of one participant.

    Attributes:
        name: the participant.
        docs: how many documents it moved.
        wall_seconds: from its start until it had moved them.
        cpu_seconds: process name -> user and system CPU seconds; "client" is the participant itself.
        peak_mib: the participant's largest resident size; 0 if it ended too soon to be looked at.
    """

    name: str
    docs: int
    wall_seconds: float
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    peak_mib: float = 0.0

    @property
    def rate(self) -> float:
        """Documents per second."""
        return self.docs / self.wall_seconds

    def cpu_micros(self, process: str = "client") -> float:
        """CPU microseconds per document of one process."""
        return self.cpu_seconds.get(process, 0.0) / self.docs * 1e6

    @property
    def total_micros(self) -> float:
        """CPU microseconds per document of the participant and of all servers that were measured."""
        return sum(self.cpu_seconds.values()) / self.docs * 1e6


def median_of(readings: Sequence[Reading]) -> Reading:
    """Return the median of each figure of one participant's runs."""
    first = readings[0]
    return Reading(
        name=first.name,
        docs=first.docs,
        wall_seconds=statistics.median(each.wall_seconds for each in readings),
        cpu_seconds={
            process: statistics.median(each.cpu_seconds[process] for each in readings)
            for process in first.cpu_seconds
        },
        peak_mib=statistics.median(each.peak_mib for each in readings),
    )


def server_cpu_seconds(pid: int) -> float:
    """CPU of a server so far: its processes, and those of its children that have ended."""
    total = 0.0
    parent = psutil.Process(pid)
    for process in [parent, *parent.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
        if process.pid == pid:
            total += times.children_user + times.children_system
    return total


class PeakMemory(threading.Thread):
    """Looks at a process's largest resident size until it ends.

    `wait4` would tell the size of the process that started it, if that is larger: it is counted before exec.

    Args:
        pid: the process.

    Attributes:
        mib: what was seen last.
    """

    LOOK_SECONDS = 0.05

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.mib = 0.0
        self._status = Path(f"/proc/{pid}/status")

    def run(self) -> None:
        while found := self._look():
            self.mib = int(found[1]) / 1024
            time.sleep(self.LOOK_SECONDS)

    def _look(self) -> re.Match[str] | None:
        try:
            return re.search(r"VmHWM:\s+(\d+) kB", self._status.read_text())  # none of a zombie
        except OSError:
            return None


def measure(
    name: str,
    docs: int,
    command: Sequence[str],
    servers: Mapping[str, int],
    *,
    done: Callable[[subprocess.Popen[bytes]], None] | None = None,
    env: Mapping[str, str] | None = None,
    stdout: int | None = subprocess.DEVNULL,
) -> Reading:
    """Runs a participant and measures it.

    Args:
        name: for the table.
        docs: how many documents it moves.
        command: its command line.
        servers: name -> pid of the servers that it makes work.
        done: returns when it has moved everything, for one that runs on; it is terminated then.
        env: more environment variables.
        stdout: where its output goes.
    """
    before = {server: server_cpu_seconds(pid) for server, pid in servers.items()}
    began = time.perf_counter()
    process = subprocess.Popen(command, env=os.environ | dict(env or {}), stdout=stdout)
    memory = PeakMemory(process.pid)
    memory.start()
    if done is not None:
        done(process)
        wall_seconds = time.perf_counter() - began
        process.terminate()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if done is None:
        wall_seconds = time.perf_counter() - began
    memory.join()
    if process.returncode:
        raise SystemExit(f"{name} failed with exit code {process.returncode}")
    cpu = {server: server_cpu_seconds(pid) - before[server] for server, pid in servers.items()}
    cpu["client"] = usage.ru_utime + usage.ru_stime
    return Reading(name=name, docs=docs, wall_seconds=wall_seconds, cpu_seconds=cpu, peak_mib=memory.mib)

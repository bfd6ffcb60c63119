"""Limit the memory of a task.

When memory runs out, the kernel kills any process, and does not name the document. So a task gets less memory
than is left, and its worker ends by itself if it needs more.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

#: The share of the available memory that one task may take.
SHARE = 0.8
#: Lowest limit of a task: with less, ordinary documents would exceed it.
LEAST_BYTES = 64 * 2**20

#: For both versions of control groups: folder, limit, usage, and the part of the usage that is cache.
_GROUPS = (
    ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def choose_task_bytes(most_bytes: int, available_bytes: int | None) -> int:
    """Return the memory limit of a task, in bytes.

    Args:
        most_bytes: the configured limit.
        available_bytes: available memory; None if unknown.
    """
    if available_bytes is None:
        return most_bytes
    return min(most_bytes, max(LEAST_BYTES, int(SHARE * available_bytes)))


def find_available_bytes(root: Path = Path("/")) -> int | None:
    """Return how much memory this machine and this process's control group have left; None if unknown.

    Args:
        root: the folder that contains `/proc` and `/sys`.
    """
    found = [_read_machine(root), *(_read_group(root, *group) for group in _GROUPS)]
    return min((each for each in found if each is not None), default=None)


def bound_memory(task_bytes: int) -> None:
    """Limit this process to its present memory plus that of one task.

    Args:
        task_bytes: memory of the task.
    """
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])  # data and stack: proc(5)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most_bytes = pages * os.sysconf("SC_PAGE_SIZE") + task_bytes
    if hard != resource.RLIM_INFINITY:
        most_bytes = min(most_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most_bytes, hard))


def _read_machine(root: Path) -> int | None:
    found = _read_table(root / "proc/meminfo").get("MemAvailable:")
    return None if found is None else found * 1024


def _read_group(root: Path, folder: str, limit: str, usage: str, cache: str) -> int | None:
    """Return the memory that is left in this process's control group and in each above it."""
    is_old = folder.endswith("memory")
    found = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if ("memory" in controllers.split(",")) if is_old else not controllers:
            group = root / folder / path.lstrip("/")
            for each in (group, *group.parents[: len(Path(path).parts) - 1]):
                most, used = _read(each / limit).strip(), _read(each / usage).strip()
                if most.isdigit() and used.isdigit():  # `max` is none
                    found.append(int(most) - int(used) + _read_table(each / "memory.stat").get(cache, 0))
    return min(found, default=None)


def _read_table(path: Path) -> dict[str, int]:
    rows = [line.split() for line in _read(path).splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")  # names of groups are anybody's
    except OSError:  # not of this version, or not to be seen from here
        return ""

"""A task gets less memory than what is left, by the kernel's own files."""

from __future__ import annotations

from pathlib import Path

import pytest

from pillows.parallel.memory import LEAST_BYTES, choose_task_bytes, find_available_bytes

MIB = 2**20


def write(root: Path, files: dict[str, object]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


MACHINE = {"proc/meminfo": "MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable: 8000 kB\nHugePages_Total: 0"}
NEW = {"proc/self/cgroup": "0::/pods/one"} | MACHINE
OLD = {"proc/self/cgroup": "5:cpu,memory:/pods\n0::/"} | MACHINE


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, None),
        (MACHINE, 8000 * 1024),
        (NEW, 8000 * 1024),
        (
            NEW
            | {
                "sys/fs/cgroup/pods/one/memory.max": "max",
                "sys/fs/cgroup/pods/one/memory.current": 300,
                "sys/fs/cgroup/pods/memory.max": 1000,
                "sys/fs/cgroup/pods/memory.current": 700,
                "sys/fs/cgroup/pods/memory.stat": "anon 600\ninactive_file 50",
            },
            350,
        ),
        (
            OLD
            | {
                "sys/fs/cgroup/memory/pods/memory.limit_in_bytes": 2**63 - 4096,
                "sys/fs/cgroup/memory/pods/memory.usage_in_bytes": 300,
                "sys/fs/cgroup/memory/memory.limit_in_bytes": 1000,
                "sys/fs/cgroup/memory/memory.usage_in_bytes": 700,
                "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 100",
            },
            400,
        ),
    ],
    ids=["nothing known", "machine", "no group to see", "group above", "first version"],
)
def test_the_least_that_is_left_counts(tmp_path, files, found):
    assert find_available_bytes(write(tmp_path, files)) == found


def test_this_machine_has_memory_left():
    assert (find_available_bytes() or 0) > 0


@pytest.mark.parametrize(
    ("most", "available", "chosen"),
    [
        (1000 * MIB, None, 1000 * MIB),
        (1000 * MIB, 2000 * MIB, 1000 * MIB),
        (1000 * MIB, 500 * MIB, 400 * MIB),
        (1000 * MIB, 10 * MIB, LEAST_BYTES),
    ],
)
def test_a_task_gets_what_the_settings_say_and_no_more_than_a_share_of_what_is_left(most, available, chosen):
    assert choose_task_bytes(most, available) == chosen

"""The modules that decide, and the tests that must notice a change of them."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]

#: The share of mutants that the tests must notice.
TO_KILL = 0.85

#: Module -> its tests, the most direct ones first; folders stand for all tests in them.
MODULES: dict[str, tuple[str, ...]] = {
    "pillows/runtime/start_decision.py": ("tests/unit/pillows/runtime/test_start_decision.py",),
    "pillows/progress/watermark.py": ("tests/unit/pillows/progress",),
    "pillows/progress/checkpointer.py": ("tests/unit/pillows/progress",),
    "pillows/delivery/batcher.py": ("tests/unit/pillows/delivery/test_batcher.py",),
    "pillows/delivery/items.py": ("tests/unit/pillows/delivery/test_items.py",),
    "pillows/delivery/stale_writes.py": ("tests/unit/pillows/delivery/test_stale_writes.py",),
    "pillows/delivery/batch_delivery.py": (
        "tests/unit/pillows/delivery/test_batch_delivery.py",
        "tests/unit/pillows/delivery/test_items.py",
        "tests/unit/pillows/runtime/test_kept_rows.py",
        "tests/unit/pillows/runtime/test_crash_between_steps.py",
    ),
    "pillows/feed/parsing/changes_parser.py": ("tests/unit/pillows/feed/parsing/test_changes_parser.py",),
    "pillows/feed/requests.py": ("tests/unit/pillows/feed/test_requests.py",),
    "pillows/feed/batch_cutter.py": ("tests/unit/pillows/feed/test_batch_cutter.py",),
    "pillows/delivery/fanout.py": ("tests/unit/pillows/delivery/test_fanout.py",),
    "pillows/progress/lag.py": ("tests/unit/pillows/progress/test_lag.py",),
    "pillows/runtime/missed_purges.py": ("tests/unit/pillows/runtime/test_missed_purges.py",),
    "daemon/reload/difference.py": ("tests/unit/daemon/reload/test_difference.py",),
    "daemon/supervision/restart_policy.py": ("tests/unit/daemon/supervision/test_restart_policy.py",),
    "daemon/http/access.py": ("tests/unit/daemon/http/test_access.py",),
    "checkpoints/pod/engine.py": (
        "tests/unit/checkpoints/pod/test_engine.py",
        "tests/unit/checkpoints/pod/test_commit.py",
    ),
    "checkpoints/pod/commit.py": (
        "tests/unit/checkpoints/pod/test_commit.py",
        "tests/unit/checkpoints/pod/test_segments.py",
    ),
    "checkpoints/journal/journal.py": ("tests/unit/checkpoints/journal",),
    "checkpoints/journal/files.py": ("tests/unit/checkpoints/journal",),
    "checkpoints/journal/records.py": ("tests/unit/checkpoints/journal",),
    "checkpoints/checkpoint_store.py": ("tests/unit/checkpoints/test_checkpoint_store.py",),
    "pillows/transports/sqlite/writer.py": (
        "tests/unit/pillows/transports/test_sqlite_writer.py",
        "tests/integration/transports/test_sqlite.py",
    ),
    "pillows/transports/common/search/encoder.py": ("tests/unit/pillows/transports/test_search.py",),
    "pillows/transports/common/search/errors.py": ("tests/unit/pillows/transports/test_search.py",),
    "pillows/transports/common/search/misfits.py": (
        "tests/unit/pillows/transports/common/search/test_misfits.py",
    ),
    "pillows/transports/postgres/writer.py": (
        "tests/unit/pillows/transports/test_postgres_writer.py",
        "tests/unit/pillows/transports/test_postgres.py",
        "tests/integration/transports/test_postgres.py",
        "tests/integration/transports/test_postgres_failures.py",
    ),
}


def find_tests(module: str) -> list[str]:
    """Return the paths of a module's tests, without those that another one holds already."""
    files: list[str] = []
    for path in MODULES[module]:
        below = sorted((ROOT / path).rglob("test_*.py")) if (ROOT / path).is_dir() else [ROOT / path]
        files += [name for each in below if (name := str(each.relative_to(ROOT))) not in files]
    direct = f"test_{Path(module).stem}.py"
    return sorted(files, key=lambda name: Path(name).name != direct)

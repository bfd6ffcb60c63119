"""The programs for the test servers that the machine itself has.

The standard library alone: it is asked before anything is installed.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

LEAST_JDK = 21
JVM_FOLDERS = (Path("/usr/lib/jvm"), Path("/Library/Java/JavaVirtualMachines"))
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")


@cache
def installed_jdk() -> Path | None:
    """Returns the machine's JDK, if it has one that is new enough."""
    return next((home for home in _java_homes() if _java_version(home) >= LEAST_JDK), None)


def installed_binaries() -> Path | None:
    """Returns the folder of the newest PostgreSQL server that is installed; Debian keeps it off the PATH."""
    debian = sorted(DEBIAN_POSTGRES.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if debian:
        return debian[-1].parent
    initdb, postgres = shutil.which("initdb"), shutil.which("postgres")
    return Path(postgres).parent if initdb and postgres else None


def _java_homes() -> Iterator[Path]:
    if os.environ.get("JAVA_HOME"):
        yield Path(os.environ["JAVA_HOME"])
    for folder in JVM_FOLDERS:
        yield from sorted(folder.glob("*"), reverse=True)
        yield from sorted(folder.glob("*/Contents/Home"), reverse=True)
    if java := shutil.which("java"):
        yield Path(java).resolve().parents[1]


def _java_version(home: Path) -> int:
    release = home / "release"
    found = re.search(r'JAVA_VERSION="(\d+)', release.read_text()) if release.exists() else None
    return int(found[1]) if found and (home / "bin" / "java").exists() else 0

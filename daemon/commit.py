"""The version, and the commit that it is from."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path

#: The commit of a wheel or an sdist; the build writes it here (`versioningit-onbuild` in pyproject.toml).
BUILT_FROM = ""
ROOT = Path(__file__).parents[1]


def describe_version() -> str:
    """Return the line that `pillowd --version` prints."""
    commit = find_commit()
    return f"pillowd {version('pillowd')}" + (f" (commit {commit})" if commit else "")


def find_commit() -> str:
    """Return the commit that this code is from; nothing if that cannot be known.

    In a checkout, it is the one that is checked out now, with `-dirty` if files differ from it.
    """
    if BUILT_FROM or not (ROOT / ".git").exists():
        return BUILT_FROM
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603  ours
    except (OSError, subprocess.SubprocessError):  # no git, or a repository of another user
        return ""
    return done.stdout.strip()

"""Tools for all steps of a release: commands that say why they failed, a folder, a JSON file."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class ReleaseError(Exception):
    """Something cannot be built, or must not be published."""


def run(command: Sequence[str | Path], *, cwd: Path | None = None, **environ: str) -> str:
    """Run a command and return what it prints.

    Args:
        command: the program and its arguments.
        cwd: where it runs.
        environ: variables to add to the environment.

    Raises:
        ReleaseError: it failed; the text has what it said.
    """
    # PYTHONPATH would bring the checkout into environments that are to have the wheel alone.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, cwd=cwd, env=inherited | environ, capture_output=True, text=True, check=False, timeout=900
        )
    except OSError as error:
        raise ReleaseError(f"`{words[0]}` cannot be run: {error}") from error
    if done.returncode:
        raise ReleaseError(f"`{' '.join(words)}` failed:\n{done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="pillowd-release-") as name:
        yield Path(name)


def write_json(path: Path, content: Any) -> None:
    """Write a file for people and programs to read."""
    path.write_text(
        json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )

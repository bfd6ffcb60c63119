"""Find what a server is made of: a program of the machine, else a wheel that brings it along."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.servers.process import CACHE, ROOT, ServerUnavailable, as_user

LOCK = ROOT / "requirements-dev.lock"


def say(line: str) -> None:
    """Tells a person who waits for an installation what is going on."""
    print(f"servers: {line}", file=sys.stderr, flush=True)


def wheel(distribution: str, module: str) -> Path:
    """Returns the folder of a wheel's top module: of this environment, else installed beside the cache.

    The second way is for people who run the demo without the development set-up. Version and hashes are
    those of the development lock either way.
    """
    spec = importlib.util.find_spec(module)
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent
    return cached(f"wheel-{distribution}", lambda folder: _pip_install(distribution, folder)) / module


def cached(name: str, build: Callable[[Path], None]) -> Path:
    """Returns `.cache/name`, built first if it is missing; complete or absent, whoever else builds it too."""
    target = CACHE / name
    if target.exists():
        return target
    CACHE.mkdir(exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=CACHE))
    scratch.chmod(0o755)  # a server that drops to another user reads from here
    try:
        build(scratch)
        scratch.rename(target)
    except OSError:
        if not target.exists():  # nobody was faster: a failure of ours
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
) -> str:
    """Runs a step of an installation and returns what it printed.

    Args:
        command: the command line.
        cwd: the folder to run it in.
        env: what is added to our own environment.
        user: the operating system's user to run it as; None is ours.

    Raises:
        ServerUnavailable: it failed; with the end of its output.
    """
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        **as_user(user),
    )
    if done.returncode != 0:
        raise ServerUnavailable(f"{command[0]} failed ({done.returncode}): {done.stdout[-2000:]}")
    return str(done.stdout)


def _pip_install(distribution: str, folder: Path) -> None:
    say(f"installing {distribution} into {folder.parent}")
    with tempfile.NamedTemporaryFile("w", suffix=".lock") as lock:
        lock.write(locked(distribution))
        lock.flush()
        run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--require-hashes",
             "--target", folder, "-r", lock.name])  # fmt: skip


def locked(distribution: str) -> str:
    """Returns a distribution's entry in the development lock: name, version and hashes."""
    entry: list[str] = []
    for line in LOCK.read_text().splitlines():
        if line.startswith(f"{distribution}=="):
            entry = [line]
        elif entry and line.startswith("    --hash"):
            entry.append(line)
        elif entry:
            break
    if not entry:
        raise ServerUnavailable(f"{distribution} is not in {LOCK.name}")
    return "\n".join(entry) + "\n"

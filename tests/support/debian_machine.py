"""This Debian, with a layer of its own over all its files: packages are installed into the layer only."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.process import ServerUnavailable

#: Where a machine sees the folder that it shares with the tests.
SHARED = "/mnt"
#: Makes the layer in memory, since one over another does not go, and waits.
_SCRIPT = """\
set -e
mount -t tmpfs tmpfs "$0"
mkdir "$0/upper" "$0/work" "$0/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$0/upper,workdir=$0/work" "$0/root"
mount --rbind /dev "$0/root/dev"
mount -t proc proc "$0/root/proc"
mount --bind "$1" "$0/root/mnt"
echo ready
exec sleep infinity
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianMachine:
    """A running machine.

    Attributes:
        shared: the folder on the host that is mounted at SHARED.
    """

    shared: Path
    _pid: int
    _folder: Path

    def command(self, *words: str) -> list[str]:
        """Return the command that runs these words on the machine, as root."""
        return ["nsenter", f"--target={self._pid}", "--mount", "chroot", f"{self._folder}/root", *words]

    def run(self, *words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; its exit code may be anything."""
        environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"}
        return subprocess.run(
            self.command(*words),
            input=text,
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def say(self, *words: str, text: str | None = None) -> str:
        """Run a command and return what it prints; it must succeed."""
        done = self.run(*words, text=text)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def list_new(self) -> list[str]:
        """Return the paths of all files that are new, or not as this Debian has them."""
        layer = Path(f"/proc/{self._pid}/root{self._folder}/upper")
        files = (path for path in layer.rglob("*") if path.is_file() or path.is_symlink())
        return [f"/{path.relative_to(layer)}" for path in files]


@contextmanager
def debian_machine(folder: Path) -> Iterator[DebianMachine]:
    """Yield a machine, which is gone afterwards.

    Args:
        folder: an empty one.

    Raises:
        ServerUnavailable: this machine does not run Debian, or we may not mount.
    """
    if not shutil.which("dpkg") or os.getuid() != 0:
        raise ServerUnavailable("a machine to install packages into needs a Debian, and root")
    shared, layer = folder / "shared", folder / "layer"
    shared.mkdir()
    layer.mkdir()
    command: Sequence[str] = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _SCRIPT]
    with subprocess.Popen(
        [*command, str(layer), str(shared)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        try:
            if holder.stdout.readline() != "ready\n":
                _, reason = holder.communicate(timeout=10)
                raise ServerUnavailable(f"overlays cannot be mounted here: {reason}")
            yield DebianMachine(shared=shared, _pid=holder.pid, _folder=layer)
        finally:
            holder.send_signal(signal.SIGKILL)

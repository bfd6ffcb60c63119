"""The strictest disk that POSIX allows: after a crash only what was synced is sure to be there.

A file's content is sure once it was synced itself. A name (made, renamed over, removed) is sure once
its directory was synced; until then each name may show any of the files that it showed since the last
sync of the directory, independently of all other names. Of what was written to a file since its last sync,
any beginning may be there, and any stretch of that may be zeros.
"""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import strategies as st

from checkpoints.files.directory import Directory


class PowerFailure(BaseException):
    """The machine is off."""


class File:
    """A file's bytes, of which so many from the beginning were synced."""

    def __init__(self, data, synced=0):
        self.data = data
        self.synced = synced

    def crash(self, draw):
        data = self.data
        if self.synced < len(data):
            data = data[: draw(st.integers(self.synced, len(data)))]
            if draw(st.booleans()):
                start = draw(st.integers(self.synced, len(data)))
                end = draw(st.integers(start, len(data)))
                data = data[:start] + bytes(end - start) + data[end:]
        return File(data, len(data))


class Disk(Directory):
    """A directory on a disk that keeps nothing but what it must.

    `faults_at`: how many more operations succeed; then `fault` is raised.
    """

    def __init__(self, files):
        self.path = Path("/disk")
        self.durable = True
        self.names_now = files
        self.names_since_sync = {name: [file] for name, file in files.items()}
        self.left = None
        self.fault = None
        self._fd, self._lock, self._pid = 0, None, os.getpid()

    def names(self):
        return list(self.names_now)

    def read(self, name):
        if name not in self.names_now:
            raise FileNotFoundError(name)
        return self.names_now[name].data

    def close(self):
        pass

    def fail(self, fault: BaseException, after):
        self.left, self.fault = after, fault

    def _operation(self):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None if isinstance(self.fault, OSError) else 0
                raise self.fault  # type: ignore[misc]

    def _show(self, name, file):
        self.names_since_sync.setdefault(name, [None]).append(file)
        if file is None:
            del self.names_now[name]
        else:
            self.names_now[name] = file

    def _write(self, name, pieces, mode=0):
        data = b"".join(pieces)
        file = File(b"")
        self._show(name, file)
        file.data = data[: len(data) // 2]
        self._operation()
        file.data = data
        self._operation()
        file.synced = len(data)
        return len(data)

    def append(self, name, data):
        if name not in self.names_now:
            raise FileNotFoundError(name)
        file = self.names_now[name]
        whole = file.data + data
        self._operation()
        file.data += data[: len(data) // 2]
        self._operation()
        file.data = whole
        self._operation()
        file.synced = len(whole)

    def link(self, name, other):
        self._operation()
        self._show(other, self.names_now[name])

    def _rename(self, source, target):
        self._operation()
        self._show(target, self.names_now[source])
        self._show(source, None)

    def _unlink(self, name):
        if name not in self.names_now:
            raise FileNotFoundError(name)
        self._operation()
        self._show(name, None)

    def sync(self):
        self._operation()
        self.names_since_sync = {name: [file] for name, file in self.names_now.items()}

    def crash(self, draw):
        """Returns the files as they may be when the machine comes up again."""
        left = {}
        for name, shown in sorted(self.names_since_sync.items()):
            file = draw(st.sampled_from(shown)) if len(shown) > 1 else shown[0]
            if file is not None:
                left[name] = file.crash(draw)
        return Disk(left)

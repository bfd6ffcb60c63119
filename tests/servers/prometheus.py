"""Prometheus, and promtool: the machine's, else Debian's package, unpacked without being installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import requests
import yaml

from tests.servers.packages import cached, run, say
from tests.servers.process import HttpServer, ServerUnavailable


@cache
def find_program(name: str) -> Path:
    """Returns a program of Prometheus: `prometheus` or `promtool`.

    Raises:
        ServerUnavailable: it cannot be had.
    """
    installed = shutil.which(name)
    return Path(installed) if installed else cached("prometheus", _unpack) / "usr" / "bin" / name


def _unpack(folder: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise ServerUnavailable("no prometheus, and no apt-get to fetch it. Remedy: put promtool on the PATH")
    say("fetching Debian's package prometheus (19 MB)")
    try:
        run(["apt-get", "-qq", "download", "prometheus"], cwd=folder)
    except ServerUnavailable:
        if os.getuid() != 0:
            raise
        run(["apt-get", "-qq", "update"])  # a fresh container knows no package
        run(["apt-get", "-qq", "download", "prometheus"], cwd=folder)
    (package,) = folder.glob("prometheus_*.deb")
    run(["dpkg", "-x", package, folder])
    package.unlink()


def promtool(*arguments: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
    """Runs promtool; `text` is its standard input."""
    command = [str(part) for part in (find_program("promtool"), *arguments)]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=120)


class Prometheus(HttpServer):
    """One Prometheus.

    Args:
        settings: its configuration; paths are relative to its data directory.
        rules: the text of `pillowd.rules.yml` beside it.
    """

    name = "prometheus"

    def __init__(self, settings: Mapping[str, Any], *, rules: str = "groups: []") -> None:
        super().__init__()
        self.config = self.data_dir / "prometheus.yml"
        self._settings = settings
        self._rules = rules

    @classmethod
    def install(cls) -> None:
        """Fetches the package, where that is still missing."""
        find_program("prometheus")

    def prepare(self) -> None:
        """Writes its files."""
        self.config.write_text(yaml.safe_dump(dict(self._settings)))
        (self.data_dir / "pillowd.rules.yml").write_text(self._rules)

    def command(self) -> Sequence[str | Path]:
        """Returns the command line."""
        return [
            find_program("prometheus"),
            f"--config.file={self.config}",
            f"--storage.tsdb.path={self.data_dir / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]

    def answers(self) -> bool:
        """Asks whether it is ready."""
        return requests.get(f"{self.url}/-/ready", timeout=5).ok

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Returns the series of an expression at this moment."""
        answer = requests.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=30).json()
        assert answer["status"] == "success", json.dumps(answer)
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def firing(self) -> set[tuple[str, str]]:
        """Returns the alerts that fire: name and severity."""
        answer = requests.get(f"{self.url}/api/v1/alerts", timeout=30).json()
        return {
            (each["labels"]["alertname"], each["labels"]["severity"])
            for each in answer["data"]["alerts"]
            if each["state"] == "firing"
        }

"""OpenSearch: one real node from its published jars, on a JDK of 21 or newer.

The jars come by Maven; a small Java file in `opensearch/` stands in for the launcher, which is not published.
There is no security (plain HTTP), no scripting, no ingest, no reindex and no analysis module.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import requests

from tests.servers.maven import compile_java, copy_jars, find_java_home, java_command, pinned_version
from tests.servers.packages import cached, say
from tests.servers.process import HttpServer

SOURCE = Path(__file__).parent / "opensearch"
HEAP = "384m"


def version() -> str:
    """Returns the version that `pom.xml` asks for."""
    return pinned_version(SOURCE, "opensearch")


def home() -> Path:
    """Returns the node's home folder, installed once per version."""
    return cached(f"opensearch-{version()}", _install)


def _install(folder: Path) -> None:
    say(f"installing OpenSearch {version()} (about 60 MB, by Maven)")
    for made in (folder / "lib", folder / "classes"):
        made.mkdir(parents=True)
    copy_jars(SOURCE, folder / "lib")
    compile_java(folder, [SOURCE / "TestNode.java"], folder / "classes")


class OpenSearch(HttpServer):
    """One OpenSearch node.

    Args:
        data_dir: where its data lives; a temporary directory of its own if None.
        port: where it listens; a free port if None.
        settings: node settings, e.g. ``{"http.max_content_length": "64kb"}``.
    """

    name = "opensearch"

    def __init__(
        self,
        *,
        data_dir: Path | None = None,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(data_dir=data_dir, port=port)
        self._settings = dict(settings or {})

    @classmethod
    def install(cls) -> None:
        """Finds Java and installs the node."""
        find_java_home()
        home()

    def command(self) -> Sequence[str | Path]:
        """Returns Java's command line."""
        settings = [f"{key}={value}" for key, value in self._settings.items()]
        node = home()
        return [
            *java_command(HEAP),
            f"-Djava.io.tmpdir={self.data_dir}",
            *("-cp", os.pathsep.join([str(node / "classes"), str(node / "lib" / "*")])),
            *("TestNode", str(self.data_dir), str(self.port), *settings),
        ]

    def answers(self) -> bool:
        """Asks for the cluster's health: an open port alone still refuses writes."""
        health = requests.get(f"{self.url}/_cluster/health", timeout=5)
        return health.ok and health.json()["status"] in {"green", "yellow"}

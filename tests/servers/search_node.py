"""The common parts of a node of Elasticsearch and one of OpenSearch."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import requests

from tests.servers.maven import find_java_home, java_command
from tests.servers.process import HttpServer


class SearchNode(HttpServer):
    """One node of a search cluster, run by the `TestNode` of its folder.

    Args:
        data_dir: where its data lives; a temporary directory of its own if None.
        port: where it listens; a free port if None.
        settings: node settings, e.g. ``{"http.max_content_length": "64kb"}``.
    """

    #: The size of Java's heap.
    HEAP: ClassVar[str]

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
    @abstractmethod
    def home(cls) -> Path:
        """Returns the node's home folder, installed once per version."""

    @classmethod
    def install(cls) -> None:
        """Finds Java and installs the node."""
        find_java_home()
        cls.home()

    def command(self) -> Sequence[str | Path]:
        """Returns Java's command line."""
        home = self.home()
        settings = [f"{key}={value}" for key, value in self._settings.items()]
        return [
            *java_command(self.HEAP),
            f"-Djava.io.tmpdir={self.data_dir}",
            *self.java_options(home),
            *("-cp", os.pathsep.join([str(home / "classes"), str(home / "lib" / "*")])),
            *("TestNode", *self.folders(home), str(self.port), *settings),
        ]

    def java_options(self, home: Path) -> Sequence[str]:
        """Returns more options of Java."""
        del home
        return ()

    def folders(self, home: Path) -> Sequence[str]:
        """Returns the folders that `TestNode` is told."""
        del home
        return (str(self.data_dir),)

    def answers(self) -> bool:
        """Asks for the cluster's health: an open port alone still refuses writes."""
        health = requests.get(f"{self.url}/_cluster/health", timeout=5)
        return health.ok and health.json()["status"] in {"green", "yellow"}

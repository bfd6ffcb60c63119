"""OpenSearch: one real node from its published jars, on a JDK of 21 or newer.

The jars come by Maven; small Java files in `opensearch/` stand in for the launcher, which is not published.
There is no security (plain HTTP), no scripting, no ingest, no reindex and no analysis module.

`PILLOWD_TEST_OPENSEARCH=2` runs the tests on OpenSearch 2.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.servers.maven import compile_java, copy_jars, pinned_version
from tests.servers.packages import cached, say
from tests.servers.search_node import SearchNode

SOURCE = Path(__file__).parent / "opensearch"
MAJOR = os.environ.get("PILLOWD_TEST_OPENSEARCH", "3")


def version() -> str:
    """Returns the version that `pom.xml` asks for."""
    return pinned_version(SOURCE / MAJOR, "opensearch")


def _install(folder: Path) -> None:
    say(f"installing OpenSearch {version()} (about 60 MB, by Maven)")
    for made in (folder / "lib", folder / "classes"):
        made.mkdir(parents=True)
    copy_jars(SOURCE / MAJOR, folder / "lib")
    compile_java(folder, [SOURCE / "TestNode.java", SOURCE / MAJOR / "Http.java"], folder / "classes")


class OpenSearch(SearchNode):
    """One OpenSearch node; see `SearchNode`."""

    name = "opensearch"
    HEAP = "384m"

    @classmethod
    def home(cls) -> Path:
        """Returns the node's home folder, installed once per version."""
        return cached(f"opensearch-{version()}", _install)

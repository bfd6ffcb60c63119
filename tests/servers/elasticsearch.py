"""Elasticsearch: one real node from its published jars, on a JDK of 21 or newer.

The jars come by Maven; the three small Java files in `elasticsearch/` stand in for the launcher and the root
page, which are not published. There is no security (plain HTTP), no scripting, no ingest, no reindex and no
analysis module.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import requests

from tests.servers.maven import compile_java, copy_jars, find_java_home, java_command, pinned_version
from tests.servers.packages import cached, say
from tests.servers.process import HttpServer

SOURCE = Path(__file__).parent / "elasticsearch"
ZSTD = ("/usr/lib/*/libzstd.so.1", "/usr/lib64/libzstd.so.1", "/usr/lib/libzstd.so.1")
HEAP = "512m"


def version() -> str:
    """Returns the version that `pom.xml` asks for."""
    return pinned_version(SOURCE, "elasticsearch")


def home() -> Path:
    """Returns the node's home folder, installed once per version."""
    return cached(f"elasticsearch-{version()}", _install)


def _install(folder: Path) -> None:
    say(f"installing Elasticsearch {version()} (about 60 MB, by Maven)")
    library, modules = folder / "lib", folder / "modules"
    netty, root = modules / "transport-netty4", modules / "rest-root"
    for made in (library, netty, root, folder / "plugins", folder / "classes"):
        made.mkdir(parents=True)
    copy_jars(SOURCE, library)
    for jar in [*library.glob("netty-*.jar"), *library.glob("transport-netty4-*.jar")]:
        jar.rename(netty / jar.name)
    _describe_netty(netty)
    compile_java(folder, [SOURCE / "TestNode.java"], folder / "classes")
    _build_root_module(folder, root)
    _link_zstd(library)


def _describe_netty(module: Path) -> None:
    """Unpacks the module's descriptor, without the module name: here it is loaded from the class path."""
    with zipfile.ZipFile(next(module.glob("transport-netty4-*.jar"))) as jar:
        text = jar.read("META-INF/es-plugins/transport-netty4/plugin-descriptor.properties").decode()
    kept = [line for line in text.splitlines() if not line.startswith(("#", "modulename"))]
    (module / "plugin-descriptor.properties").write_text("\n".join(kept) + "\n")


def _build_root_module(folder: Path, module: Path) -> None:
    classes = folder / "root-classes"
    classes.mkdir()
    compile_java(folder, [SOURCE / "RootPlugin.java", SOURCE / "RootHandler.java"], classes)
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
        """Returns Java's command line."""
        settings = [f"{key}={value}" for key, value in self._settings.items()]
        node = home()
        return [
            *java_command(HEAP),
            "-Dorg.elasticsearch.nativeaccess.enableVectorLibrary=false",
            *(f"-Des.nativelibs.path={node / 'lib'}", f"-Djava.io.tmpdir={self.data_dir}"),
            *("-cp", os.pathsep.join([str(node / "classes"), str(node / "lib" / "*")])),
            *("TestNode", str(node), str(self.data_dir), str(self.port), *settings),
        ]

    def answers(self) -> bool:
        """Asks for the cluster's health: an open port alone still refuses writes."""
        health = requests.get(f"{self.url}/_cluster/health", timeout=5)
        return health.ok and health.json()["status"] in {"green", "yellow"}

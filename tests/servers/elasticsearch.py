"""Elasticsearch: one real node from its published jars, on a JDK of 21 or newer.

The jars come by Maven; the three small Java files in `elasticsearch/` stand in for the launcher and the root
page, which are not published. There is no security (plain HTTP), no scripting, no ingest, no reindex and no
analysis module.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

from tests.servers.maven import compile_java, copy_jars, pinned_version
from tests.servers.packages import cached, say
from tests.servers.search_node import SearchNode

SOURCE = Path(__file__).parent / "elasticsearch"
ZSTD = ("/usr/lib/*/libzstd.so.1", "/usr/lib64/libzstd.so.1", "/usr/lib/libzstd.so.1")


def version() -> str:
    """Returns the version that `pom.xml` asks for."""
    return pinned_version(SOURCE, "elasticsearch")


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


class Elasticsearch(SearchNode):
    """One Elasticsearch node; see `SearchNode`."""

    name = "elasticsearch"
    HEAP = "512m"

    @classmethod
    def home(cls) -> Path:
        """Returns the node's home folder, installed once per version."""
        return cached(f"elasticsearch-{version()}", _install)

    def java_options(self, home: Path) -> Sequence[str]:
        """Returns the options of its native libraries."""
        return (
            "-Dorg.elasticsearch.nativeaccess.enableVectorLibrary=false",
            f"-Des.nativelibs.path={home / 'lib'}",
        )

    def folders(self, home: Path) -> Sequence[str]:
        """Returns its home, which has modules, and the folder of its data."""
        return (str(home), str(self.data_dir))

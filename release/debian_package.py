"""The Debian package: the environment, a unit, a user, a configuration, man page and shell completion."""

from __future__ import annotations

import gzip
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from release.distributions import Distributions
from release.environment import PREFIX
from release.steps import run

TEMPLATES = Path(__file__).with_name("debian")
#: Made executable; dpkg runs them.
SCRIPTS = ("postinst", "prerm", "postrm")
#: Shell -> where Debian's shells look for what `pillowd completion SHELL` prints.
COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/pillowd",
    "zsh": "usr/share/zsh/vendor-completions/_pillowd",
    "fish": "usr/share/fish/vendor_completions.d/pillowd.fish",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianPackage:
    """A package to build.

    Attributes:
        root: the folder that stands for `/`; it has the environment.
        checkout: the sources.
        made: the distributions that the environment was made from.
        licenses: a line for each library in it.
    """

    root: Path
    checkout: Path
    made: Distributions
    licenses: str

    def build(self, output: Path) -> Path:
        """Build the package.

        Args:
            output: folder for the file.

        Returns:
            The file, pillowd_VERSION_ARCHITECTURE.deb.

        Raises:
            ReleaseError: it cannot be built.
        """
        self._add_configuration()
        self._add_service()
        self._add_pages()
        version = to_debian(self.made.version)
        architecture = run(["dpkg", "--print-architecture"]).strip()
        self._add_control(version, architecture)
        file = output / f"pillowd_{version}_{architecture}.deb"
        run(["chmod", "-R", "u+rwX,go+rX,go-w", self.root])
        (self.root / "etc/pillowd/credentials").chmod(0o700)
        # zstd: xz makes the file a sixth smaller, and takes 20 times as long.
        run(
            ["dpkg-deb", "--root-owner-group", "-Zzstd", "-z9", "--build", self.root, file],
            SOURCE_DATE_EPOCH=str(self.made.committed_at),
        )
        return file

    def _add_configuration(self) -> None:
        self._copy("etc/first.yaml", "etc/pillowd/pillowd.yaml")
        self._copy("etc/pillowd.yaml", "usr/share/pillowd/pillowd.yaml.example")
        self._write("usr/share/pillowd/pillowd.schema.json", self._pillowd("config", "schema"))
        for name in ("pillowd.yaml.example", "pillowd.schema.json"):
            link = self.root / "etc/pillowd" / name
            link.unlink(missing_ok=True)
            link.symlink_to(f"/usr/share/pillowd/{name}")
        for name in ("pillows.d", "credentials"):
            (self.root / "etc/pillowd" / name).mkdir(exist_ok=True)

    def _add_service(self) -> None:
        unit = (self.checkout / "etc/pillowd.service").read_text()
        unit = unit.replace("/opt/pillowd/bin/pillowd", "/usr/bin/pillowd")
        # A user that stays: files and PostgreSQL's peer authentication can name it.
        unit = unit.replace("DynamicUser=yes\n", "User=pillowd\nGroup=pillowd\n")
        unit = re.sub(r"(?m)^# pillowd as a systemd service: .*\n", "# pillowd as a systemd service.\n", unit)
        self._write("lib/systemd/system/pillowd.service", unit)
        shutil.copy(TEMPLATES / "sysusers.conf", self._place("usr/lib/sysusers.d/pillowd.conf"))
        link = self._place("usr/bin/pillowd")
        link.unlink(missing_ok=True)
        link.symlink_to(PREFIX / "bin" / "pillowd")

    def _add_pages(self) -> None:
        page = self._run(["-m", "daemon.cli.man_page"])
        self._write_gzip("usr/share/man/man1/pillowd.1.gz", page)
        for shell, place in COMPLETIONS.items():
            self._write(place, self._pillowd("completion", shell))
        documents = "usr/share/doc/pillowd"
        self._write_gzip(f"{documents}/changelog.gz", (self.checkout / "CHANGELOG.md").read_text())
        self._write(
            f"{documents}/copyright",
            (TEMPLATES / "copyright").read_text().replace("LICENSES\n", self.licenses),
        )
        for name in ("prometheus/pillowd.rules.yml", "grafana/pillowd.json"):
            self._copy(f"etc/{name}", f"{documents}/examples/{Path(name).name}")

    def _add_control(self, version: str, architecture: str) -> None:
        folder = self.root / "DEBIAN"
        folder.mkdir(exist_ok=True)
        minor = int(self._run(["-c", "import sys; print(sys.version_info.minor)"]))
        files = [path for path in self.root.rglob("*") if path.is_file() and not path.is_symlink()]
        values = {
            "VERSION": version,
            "ARCHITECTURE": architecture,
            "SIZE": str(sum(path.stat().st_size for path in files) // 1024),
            "PYTHON": f"python3 (>= 3.{minor}), python3 (<< 3.{minor + 1})",
        }
        text = (TEMPLATES / "control").read_text()
        for name, value in values.items():
            text = text.replace(f"${name}", value)
        (folder / "control").write_text(text)
        (folder / "conffiles").write_text("/etc/pillowd/pillowd.yaml\n")
        for name in SCRIPTS:
            shutil.copy(TEMPLATES / name, folder / name)
            (folder / name).chmod(0o755)

    def _pillowd(self, *words: str) -> str:
        return self._run(["-m", "pillowd", *words])

    def _run(self, words: list[str]) -> str:
        """Run the environment's Python, with its bytecode elsewhere."""
        python = self.root / PREFIX.relative_to("/") / "bin" / "python"
        return run([python, *words], cwd=self.root, PYTHONPYCACHEPREFIX=str(self.root.with_name("bytecode")))

    def _place(self, path: str) -> Path:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def _copy(self, source: str, place: str) -> None:
        shutil.copy(self.checkout / source, self._place(place))

    def _write(self, place: str, text: str) -> None:
        self._place(place).write_text(text, encoding="utf-8")

    def _write_gzip(self, place: str, text: str) -> None:
        self._place(place).write_bytes(gzip.compress(text.encode(), mtime=0))


def to_debian(version: str) -> str:
    """Return a version as Debian orders it: what leads to 0.1.0 comes before it."""
    return re.sub(r"\.?(dev|rc|a|b)(?=\d)", r"~\1", version)

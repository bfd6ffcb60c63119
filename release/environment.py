"""The virtual environment that the Debian package brings: pillowd and what requirements.lock pins.

Debian has no packages of ibmcloudant, elasticsearch 9 and msgspec in the versions that pillowd is tested
with, so the package brings its own, apart from Debian's Python packages.
"""

from __future__ import annotations

import sys
from pathlib import Path

from release.steps import ReleaseError, run

#: Where it is once the package is installed.
PREFIX = Path("/usr/lib/pillowd")


def make_environment(root: Path, python: str, checkout: Path, wheel: Path) -> None:
    """Make the environment.

    Args:
        root: the folder that stands for `/`.
        python: what `bin/python` will be a link to.
        checkout: has the lock file.
        wheel: of pillowd.

    Raises:
        ReleaseError: a package cannot be had, or is not the one that the lock file names.
    """
    folder = root / PREFIX.relative_to("/")
    if not Path(python).exists():
        raise ReleaseError(f"there is no {python}. Remedy: `apt-get install python3`, or --python")
    uv: list[str | Path] = [sys.executable, "-m", "uv", "--quiet"]
    run([*uv, "venv", "--no-project", "--python", python, folder])
    install: list[str | Path] = [
        *uv,
        "pip",
        "install",
        "--python",
        folder / "bin" / "python",
        "--link-mode",
        "copy",
    ]
    run([*install, "--require-hashes", "--requirement", checkout / "requirements.lock"])
    run([*install, "--no-deps", "--no-index", "--find-links", wheel.parent, "--reinstall", "pillowd"])
    _tidy(folder)


def _tidy(folder: Path) -> None:
    """Leave Python and the command in `bin`, and nothing that names the folder in which it was made."""
    for file in (folder / "bin").iterdir():
        if file.name != "pillowd" and not file.is_symlink():
            file.unlink()
    script = folder / "bin" / "pillowd"
    script.write_text(script.read_text().replace(str(folder), str(PREFIX)))
    for record in folder.glob("lib/python3*/site-packages/*.dist-info/RECORD"):
        lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
        # Digests of scripts as they were, and when uv saw the wheel.
        wanted = [
            line for line in lines if not line.startswith("../../../bin/") and "/uv_cache.json" not in line
        ]
        record.write_text("".join(wanted))
        record.with_name("uv_cache.json").unlink(missing_ok=True)
    for name in (".gitignore", "CACHEDIR.TAG", ".lock"):
        (folder / name).unlink(missing_ok=True)

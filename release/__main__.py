"""`python -m release` makes a release in `build/release`; `python -m release deb` only the Debian package."""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from release.bill_of_materials import make_bill
from release.debian_package import DebianPackage
from release.distributions import Distributions, clone
from release.environment import make_environment
from release.licenses import find_refused, list_licenses
from release.steps import ReleaseError, temporary_folder, write_json

FOLDER = Path("build/release")

Made = TypeVar("Made")


def main() -> int:
    """Return 0 if everything has been made."""
    parser = argparse.ArgumentParser(prog="python -m release", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["all", "deb"], default="all")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder for the files")
    parser.add_argument(
        "--python", default="/usr/bin/python3", help="Debian's Python, which the package uses"
    )
    parser.add_argument(
        "--fast", action="store_true", help="for tests: do not validate the bill of materials"
    )
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    try:
        make(given.output.resolve(), given.python, is_all=given.what == "all", is_fast=given.fast)
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    return 0


def make(output: Path, python: str, *, is_all: bool, is_fast: bool) -> None:
    """Make the files of a release.

    Args:
        output: folder for the files; those of earlier releases are removed.
        python: of the Debian that the package is for.
        is_all: not the Debian package alone.
        is_fast: whether the bill of materials may stay unchecked.

    Raises:
        ReleaseError: something cannot be built, or must not be published.
    """
    for old in output.iterdir():
        if old.is_file():
            old.unlink()
    with temporary_folder() as folder:
        checkout = _timed("checkout", lambda: clone(folder / "checkout"))
        made = _timed("sdist and wheel", lambda: Distributions.build(checkout, folder / "first"))
        root = folder / "root"
        _timed("environment", lambda: make_environment(root, python, checkout, made.wheel))
        bill = _timed("bill of materials", lambda: make_bill(root, checkout, made, is_validated=not is_fast))
        if refused := find_refused(bill):
            raise ReleaseError(f"licenses that nobody has allowed (release/licenses.py): {refused}")
        package = DebianPackage(root=root, checkout=checkout, made=made, licenses=list_licenses(bill))
        _timed("Debian package", lambda: package.build(output))
        if is_all:
            again = _timed(
                "sdist and wheel again",
                lambda: Distributions.build(
                    clone(folder / "second-checkout", made.commit), folder / "second"
                ),
            )
            made.check_equal(again)
            for file in (made.sdist, made.wheel):
                (output / file.name).write_bytes(file.read_bytes())
            write_json(output / f"pillowd-{made.version}.cdx.json", bill)
            (output / "licenses.txt").write_text(list_licenses(bill))
            _write_checksums(output)
    print(f"{made.version} of {made.commit} is in {output}:")
    for file in sorted(output.iterdir()):
        print(f"  {file.stat().st_size:>11,}  {file.name}")


def _timed(name: str, step: Callable[[], Made]) -> Made:
    began = time.monotonic()
    result = step()
    print(f"{time.monotonic() - began:6.1f} s  {name}", flush=True)
    return result


def _write_checksums(folder: Path) -> None:
    files = sorted(file for file in folder.iterdir() if file.is_file())
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (folder / "SHA256SUMS").write_text("".join(lines))


if __name__ == "__main__":
    sys.exit(main())

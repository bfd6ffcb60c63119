"""The sdist and the wheel, built from a clean checkout of the commit."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from release.steps import ReleaseError, run

ROOT = Path(__file__).parents[1]


def clone(folder: Path, commit: str = "") -> Path:
    """Return a clean checkout: nothing but what is committed.

    Args:
        folder: where it is made.
        commit: the one that is checked out here by default.

    Raises:
        ReleaseError: this is no repository.
    """
    run(["git", "clone", "--quiet", "--shared", "--no-checkout", ROOT, folder])
    commit = commit or run(["git", "rev-parse", "HEAD"], cwd=ROOT).strip()
    run(["git", "checkout", "--quiet", "--detach", commit], cwd=folder)
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Distributions:
    """The two distributions of a version.

    Attributes:
        version: as Python writes it: 0.1.0, or 0.2.0.dev7 between two releases.
        commit: its 40 digits.
        committed_at: seconds since 1970; the time of all files that are made.
        sdist: the file.
        wheel: the file.
    """

    version: str
    commit: str
    committed_at: int
    sdist: Path
    wheel: Path

    @classmethod
    def build(cls, checkout: Path, folder: Path) -> Distributions:
        """Build both in `folder`, the wheel from the sdist, as pip does for who has no wheel.

        hatchling and versioningit are those of this environment (requirements-dev.lock).

        Raises:
            ReleaseError: they cannot be built.
        """
        committed_at = run(["git", "log", "-1", "--format=%ct"], cwd=checkout).strip()
        command = [sys.executable, "-m", "uv", "build", "--quiet", "--no-build-isolation"]
        run(
            [*command, "--python", sys.executable, "--out-dir", folder, checkout],
            SOURCE_DATE_EPOCH=committed_at,
        )
        (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
        return cls(
            version=wheel.name.split("-")[1],
            commit=run(["git", "rev-parse", "HEAD"], cwd=checkout).strip(),
            committed_at=int(committed_at),
            sdist=sdist,
            wheel=wheel,
        )

    def check_equal(self, other: Distributions) -> None:
        """Compare with the same, built again.

        Raises:
            ReleaseError: they differ.
        """
        for ours, theirs in ((self.sdist, other.sdist), (self.wheel, other.wheel)):
            if (ours.name, ours.read_bytes()) != (theirs.name, theirs.read_bytes()):
                raise ReleaseError(
                    f"{ours.name} was built twice, and the two differ: `diffoscope` shows where"
                )

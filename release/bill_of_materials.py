"""The bill of materials (SBOM) of what the Debian package installs, as CycloneDX describes it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from release.distributions import Distributions
from release.environment import PREFIX
from release.steps import ReleaseError, run

#: What says which library the page brings along, in words.
PAGE_NOTICE = Path("daemon/http/page/NOTICE.md")


def make_bill(root: Path, checkout: Path, made: Distributions, *, is_validated: bool) -> dict[str, Any]:
    """Return the bill.

    Args:
        root: the folder with the environment.
        checkout: the sources.
        made: says version and time.
        is_validated: whether it is compared with CycloneDX's schema, which takes 5 s.

    Raises:
        ReleaseError: it cannot be made.
    """
    python = root / PREFIX.relative_to("/") / "bin" / "python"
    program = Path(sys.executable).with_name("cyclonedx-py")
    validation = "--validate" if is_validated else "--no-validate"
    text = run(
        [
            program,
            "environment",
            python,
            "--pyproject",
            checkout / "pyproject.toml",
            "--output-reproducible",
            validation,
        ],
        SOURCE_DATE_EPOCH=str(made.committed_at),
    )
    bill: dict[str, Any] = json.loads(text)
    bill["metadata"]["component"] |= {
        "version": made.version,
        "purl": f"pkg:pypi/pillowd@{made.version}",
        "properties": [{"name": "pillowd:commit", "value": made.commit}],
    }
    bill["components"].append(_find_page_library(checkout))
    return bill


def _find_page_library(checkout: Path) -> dict[str, Any]:
    """Return the component for the JavaScript library that the page brings along."""
    found = re.search(r"are (\w+) ([\d.]+) \((\S+)\)", (checkout / PAGE_NOTICE).read_text())
    if found is None:
        raise ReleaseError(f"{PAGE_NOTICE} does not say name, version and license of the page's library")
    name, version, license_id = found.groups()
    return {
        "type": "library",
        "bom-ref": f"{name}=={version}",
        "name": name,
        "version": version,
        "purl": f"pkg:npm/{name.lower()}@{version}",
        "licenses": [{"license": {"id": license_id}}],
    }

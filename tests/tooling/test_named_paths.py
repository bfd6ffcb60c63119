"""The files and modules that the pages for people name exist in this repository."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Made from the code and not kept: a clean checkout has them after `make docs` and `make schema`.
GENERATED = {
    "api.md",
    "commands.md",
    "configuration.md",
    "exit-codes.md",
    "log-events.md",
    "metrics.md",
    "pillowd.schema.json",
}
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.name not in GENERATED),
]
SCRIPTS = [*PAGES, *(ROOT / name for name in ("Makefile", "Dockerfile", "etc/install.sh", ".ci/run"))]

#: A path from the repository's root: `daemon/config/`, `tests/support/sizes.py`; not `/etc/pillowd.yaml`.
PATH = re.compile(r"(?<![\w/.~-])((?:checkpoints|pillows|daemon|tests|bench|docs|etc)/[\w./*-]*[\w*/])")
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)")
MODULE = re.compile(r"-m ((?:daemon|tests|bench|pillows|checkpoints)[\w.]*\w)")


def named(text: str, pattern: re.Pattern[str]) -> set[str]:
    found = set(pattern.findall(text))
    return {name for name in found if "NAME" not in name and Path(name).name not in GENERATED}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    missing = [name for name in named(text, PATH) if not any(ROOT.glob(name.rstrip("/")))]
    missing += [link for link in named(text, LINK) if not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_leads_to_a_page_that_a_checkout_lacks(page: Path) -> None:
    """A reader of the repository may not have run `make docs`."""
    assert [link for link in LINK.findall(page.read_text()) if Path(link).name in GENERATED] == []


@pytest.mark.parametrize("page", SCRIPTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_module_that_is_to_be_run_exists(page: Path) -> None:
    missing = [name for name in named(page.read_text(), MODULE) if importlib.util.find_spec(name) is None]
    assert missing == []


def test_the_map_has_every_package() -> None:
    """The subpackages of one folder share its line: the map names those that a stranger would miss."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    packages = {
        path.parent.relative_to(ROOT)
        for each in ("pillows", "daemon")
        for path in ROOT.glob(f"{each}/*/__init__.py")
    }
    assert {str(each) for each in packages if f"`{each}/`" not in text} == set()


def test_what_is_named_is_seen() -> None:
    line = "see `daemon/gone.py`, [it](../gone.md#how), /etc/pillowd.yaml and https://x/docs/y; `make -m`"
    assert (named(line, PATH), named(line, LINK)) == ({"daemon/gone.py"}, {"../gone.md"})
    assert named("$(BIN)/python -m daemon.man_page > x", MODULE) == {"daemon.man_page"}

"""The page is files of the package, and needs nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import pytest

from daemon.errors import NotFoundError
from daemon.http.routes import page
from daemon.http.routes.page import get_asset, get_page

FOLDER = Path(page.__file__).parents[1] / "page"
API: Any = cast("Any", None)


def test_every_file_that_the_page_names_is_there() -> None:
    html = get_page(API).body.decode()
    named = re.findall(r'(?:src|href)="assets/([^"]+)"', html)
    assert len(named) >= 5
    assert all(get_asset(API, name=name).body for name in named)
    scripts = [path for path in FOLDER.glob("*.js") if not path.name.startswith("uPlot")]
    imported = {name for path in scripts for name in re.findall(r'from "\./([^"]+)"', path.read_text())}
    assert {path.name for path in scripts} - {"main.js"} == imported


def test_types_are_those_that_browsers_insist_on() -> None:
    types = {name: get_asset(API, name=name).media_type for name in ("main.js", "page.css", "icon.svg")}
    assert types == {"main.js": "text/javascript", "page.css": "text/css", "icon.svg": "image/svg+xml"}


@pytest.mark.parametrize(
    "name", ["../app.py", "..", "/etc/passwd", "nothing.js", "NOTICE.md", "MAIN.JS", "\0"]
)
def test_nothing_else_can_be_had(name: str) -> None:
    with pytest.raises(NotFoundError):
        get_asset(API, name=name)


def test_the_policy_of_the_answers_allows_all_that_the_page_does() -> None:
    html = (FOLDER / "index.html").read_text()
    assert not re.search(r"<style|\son\w+=|style=|<script(?![^>]*\ssrc=)|https?:", html)
    own = "".join(path.read_text() for path in FOLDER.glob("*.js") if not path.name.startswith("uPlot"))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", own)
    assert "http" not in re.sub(r"http://www\.w3\.org/2000/svg", "", own)


def test_the_library_comes_with_its_version_and_licence() -> None:
    assert "uPlot 1.6.32" in (FOLDER / "NOTICE.md").read_text()
    assert "v1.6.32" in (FOLDER / "uPlot.iife.min.js").read_text()[:100]
    assert "MIT License" in (FOLDER / "uPlot.LICENSE.txt").read_text()

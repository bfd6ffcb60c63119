"""The page and its assets, from files of this package."""

from __future__ import annotations

from pathlib import Path

from daemon.control.api import ControlApi
from daemon.errors import NotFoundError
from daemon.http.messages import Answer

_FOLDER = Path(__file__).parents[1] / "page"
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}


class NoSuchAssetError(NotFoundError):
    """The page has no such file."""


def get_page(api: ControlApi) -> Answer:
    """Return the page."""
    return get_asset(api, name="index.html")


def get_asset(api: ControlApi, *, name: str) -> Answer:
    """Return a file of the page.

    Raises:
        NoSuchAssetError: there is no file of that name.
    """
    del api
    # Only names in the folder are found, so a path that leads elsewhere is not.
    found = {path.name: path for path in _FOLDER.iterdir() if path.suffix in _TYPES}.get(name)
    if found is None:
        raise NoSuchAssetError("the page has no such file", remedy="open / in a browser")
    return Answer(body=found.read_bytes(), media_type=_TYPES[found.suffix])

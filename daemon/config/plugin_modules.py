"""The modules of `daemon.plugins_path`: made importable, and exchanged as one set.

An exchange imports fresh module objects and leaves the former ones as they are, so pillows that keep
running keep their functions. `importlib.reload` would run the new text inside the old module, and so change
the functions of those pillows, too.

`sys.path`, `sys.modules` and the registry belong to the process, and so does the record of folders here.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ExtensionFileLoader, FileFinder
from importlib.machinery import SourceFileLoader as _SourceFileLoader
from importlib.util import decode_source
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from msgspec import Struct

from daemon.config.trust import check_folder
from pillows import registry

#: Files that are configuration: it is compared by its values.
_CONFIGURATION_SUFFIXES = (".yaml", ".yml")

#: Folder -> digest of its files, taken before the first import from it.
_folders: dict[str, str] = {}


def add_folders(folders: Sequence[Path]) -> None:
    """Make the modules in these folders importable.

    Raises:
        ConfigError: another user can write to a folder.
    """
    for folder in folders:
        path = str(folder)
        if path in _folders and path in sys.path:
            continue
        check_folder(folder)
        _folders[path] = digest_folder(folder)
        if path not in sys.path:
            sys.path.append(path)
        if _find_in_plugins not in sys.path_hooks:
            sys.path_hooks.insert(0, _find_in_plugins)
        _forget_finders(path)


def have_changed() -> bool:
    """Return whether a file in a folder of plugins differs from when the folder was made importable."""
    return any(digest_folder(Path(folder)) != digest for folder, digest in _folders.items())


def is_plugin(module: str) -> bool:
    """Return whether an imported module comes from a folder of plugins."""
    return _comes_from_plugins(sys.modules.get(module))


def get_text(module: str) -> str | None:
    """Return the text that a plugin's module was compiled from; None if it is not a plugin's."""
    loader = getattr(sys.modules.get(module), "__loader__", None)
    return loader.text if isinstance(loader, SourceFileLoader) else None


def digest_folder(folder: Path) -> str:
    """Return a digest of the files in a folder: of the content of modules, of size and time of others.

    Hidden files, byte code and configuration do not count.
    """
    found = hashlib.sha256()
    for at, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if name != "__pycache__" and not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and not name.endswith(_CONFIGURATION_SUFFIXES):
                found.update(f"{at}/{name}\0{_describe_file(Path(at, name))}\0".encode())
    return found.hexdigest()


@contextmanager
def exchange(*, keep: bool = True) -> Iterator[None]:
    """Import the modules of plugins again, as new module objects, within the `with`.

    Args:
        keep: keep the new ones at the end. If not, or if the body raises, the former modules are put back as
            if nothing had happened.
    """
    former, kept = _take_out(), False
    try:
        yield
        kept = keep
    finally:
        if not kept:
            _take_out()
            _put_back(former)


class _Taken(Struct, frozen=True, kw_only=True):
    folders: dict[str, str]
    modules: dict[str, ModuleType]
    registered: dict[tuple[str, str], Any]


def _take_out() -> _Taken:
    modules = {name: module for name, module in list(sys.modules.items()) if _comes_from_plugins(module)}
    taken = _Taken(
        folders=dict(_folders), modules=modules, registered=registry.take_out(lambda name: name in modules)
    )
    for name in modules:
        del sys.modules[name]
    for folder in taken.folders:
        if folder in sys.path:
            sys.path.remove(folder)
        _forget_finders(folder)
    _folders.clear()
    return taken


def _put_back(taken: _Taken) -> None:
    _folders.update(taken.folders)
    sys.path.extend(taken.folders)
    sys.modules.update(taken.modules)
    registry.put_back(taken.registered)
    for folder in taken.folders:
        _forget_finders(folder)


def _comes_from_plugins(module: ModuleType | None) -> bool:
    places = [getattr(module, "__file__", None), *(getattr(module, "__path__", None) or ())]
    return any(_is_inside(place) for place in places if isinstance(place, str))


def _is_inside(path: str) -> bool:
    return any(path == folder or path.startswith(f"{folder}{os.sep}") for folder in _folders)


def _describe_file(path: Path) -> str:
    try:
        if path.suffix in SOURCE_SUFFIXES:
            return hashlib.sha256(path.read_bytes()).hexdigest()
        found = path.stat()
    except OSError as error:  # it has just been removed, or may not be read; importing it will say so
        return type(error).__name__
    return f"{found.st_size} {found.st_mtime_ns}"


def _forget_finders(folder: str) -> None:
    """Forget what the import system has listed of a folder and those in it."""
    for path in list(sys.path_importer_cache):
        if path == folder or path.startswith(f"{folder}{os.sep}"):
            del sys.path_importer_cache[path]
    importlib.invalidate_caches()


class SourceFileLoader(_SourceFileLoader):
    """Compiles a module from its text, and remembers the text.

    Byte code counts as current if it has the second and the size of the text, which two edits can share.
    """

    @cached_property
    def text(self) -> str:
        """The text that is compiled."""
        return decode_source(self.get_data(self.path))

    def get_code(self, fullname: str) -> CodeType:
        """Compile the text."""
        return self.source_to_code(self.text, self.get_filename(fullname))


def _find_in_plugins(path: str) -> FileFinder:
    """Return the finder of modules in a folder of plugins; a hook of `sys.path_hooks`."""
    if not _is_inside(path):
        raise ImportError(f"{path} is not a folder of plugins", path=path)
    return FileFinder(path, (ExtensionFileLoader, EXTENSION_SUFFIXES), (SourceFileLoader, SOURCE_SUFFIXES))

"""The modules of `plugins_path`, exchanged as one set while pillows run on with the former ones."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.config import plugin_modules
from daemon.config.plugins import digest_module, is_outdated
from pillows import registry
from pillows.errors import ConfigError


class Plugins:
    """A folder with a module that uses a helper, both of names of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.module, self.helper = f"module_{folder.name}", f"helper_{folder.name}"
        self.filter = f"filter-{folder.name}"

    def write(self, answer: str, *, code: str = "") -> None:
        (self.folder / f"{self.helper}.py").write_text(f"ANSWER = {answer!r}\n")
        (self.folder / f"{self.module}.py").write_text(
            f"import {self.helper} as helper\n"
            "from pillows.registry import register\n"
            f"@register('filter', {self.filter!r})\n"
            f"def answer():\n    return helper.ANSWER\n{code}\n"
        )

    def load(self) -> Any:
        plugin_modules.add_folders([self.folder])
        return importlib.import_module(self.module).answer


@pytest.fixture
def plugins(tmp_path: Path) -> Iterator[Plugins]:
    folder = tmp_path / f"plugins_{tmp_path.name}"
    folder.mkdir()
    made = Plugins(folder)
    made.write("one")
    with plugin_modules.exchange(keep=False):  # puts back what other tests have loaded
        yield made


def test_an_exchange_leaves_former_functions_as_they_are(plugins: Plugins) -> None:
    former = plugins.load()
    former_module = sys.modules[plugins.module]
    plugins.write("two")
    with plugin_modules.exchange():
        fresh = plugins.load()
    assert (former(), fresh()) == ("one", "two"), "the helper is exchanged with the module"
    assert former_module.answer is former
    assert registry.registered("filter", plugins.filter) is fresh


def test_an_exchange_that_fails_puts_everything_back(plugins: Plugins) -> None:
    former = plugins.load()
    path = list(sys.path)
    plugins.write("two", code="raise ValueError('broken')")
    with pytest.raises(ValueError, match="broken"), plugin_modules.exchange():
        plugins.load()
    assert importlib.import_module(plugins.module).answer is former
    assert registry.registered("filter", plugins.filter) is former
    assert sys.path == path
    assert plugin_modules.have_changed(), "so the next reload tries again"


def test_a_registration_that_is_gone_is_forgotten(plugins: Plugins) -> None:
    plugins.load()
    (plugins.folder / f"{plugins.module}.py").write_text("def answer(): pass\n")
    with plugin_modules.exchange():
        plugins.load()
        assert registry.registered("filter", plugins.filter) is None


def test_an_edit_of_the_same_size_in_the_same_second_counts(plugins: Plugins) -> None:
    plugins.load()
    helper = plugins.folder / f"{plugins.helper}.py"
    before = helper.stat()
    plugins.write("two")
    os.utime(helper, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert plugin_modules.have_changed()
    with plugin_modules.exchange():
        assert plugins.load()() == "two"


@pytest.mark.parametrize(
    ("name", "counts"),
    [("data.json", True), ("new.py", True), ("pillowd.yaml", False), (".hidden", False)],
)
def test_files_that_count_as_a_change(plugins: Plugins, name: str, counts: bool) -> None:
    plugins.load()
    assert not plugin_modules.have_changed()
    (plugins.folder / name).write_text("{}")
    assert plugin_modules.have_changed() is counts


def test_the_digest_of_a_module_is_that_of_the_text_that_runs(plugins: Plugins) -> None:
    plugins.load()
    before = digest_module(plugins.module)
    plugins.write("one", code="OTHER = 1")
    assert digest_module(plugins.module) == before
    assert not is_outdated(plugins.module), "a reload imports it again"
    with plugin_modules.exchange():
        plugins.load()
        assert digest_module(plugins.module) != before


def test_an_installed_module_whose_file_has_changed_is_outdated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"installed_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text("A = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module(name)
    digest_module(name)
    assert not is_outdated(name)
    (tmp_path / f"{name}.py").write_text("A = 22\n")
    assert is_outdated(name)


def test_a_folder_that_others_may_write_is_refused(plugins: Plugins) -> None:
    plugins.folder.chmod(0o777)
    with pytest.raises(ConfigError, match="every user"):
        plugin_modules.add_folders([plugins.folder])

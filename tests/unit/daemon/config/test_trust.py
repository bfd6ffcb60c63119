"""Which files and folders are trusted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon.config.load import load
from daemon.config.problems import ConfigErrors
from daemon.config.trust import check_file, check_folder
from pillows.errors import ConfigError
from tests.support.configuration import ENVIRON, GOOD


def test_d1_a_file_of_the_user_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("version: 1")
    check_file(tmp_path / "a.yaml")
    check_folder(tmp_path)


def test_d1_a_missing_file_is_left_to_the_reader(tmp_path: Path) -> None:
    check_file(tmp_path / "a.yaml")


def test_d1_a_file_that_everybody_can_write_is_refused_with_a_remedy(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(GOOD)
    file.chmod(0o666)
    with pytest.raises(ConfigErrors) as raised:
        load(file, ENVIRON)
    (problem,) = raised.value.problems
    assert "can be written by every user of this machine" in problem.message
    assert f"`chmod go-w {file}`" in problem.remedy


def test_d1_an_included_file_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD.replace("version: 1", "version: 1\ninclude: [b.yaml]"))
    (tmp_path / "b.yaml").write_text("{}")
    (tmp_path / "b.yaml").chmod(0o666)
    with pytest.raises(ConfigErrors, match=r"b\.yaml can be written by every user"):
        load(tmp_path / "a.yaml", ENVIRON)


def test_d1_a_file_in_a_folder_that_everybody_can_write_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    (folder / "a.yaml").write_text("version: 1")
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match=r"open can be written by every user"):
        check_file(folder / "a.yaml")
    folder.chmod(0o1777)  # as /tmp: nobody can replace another's file there
    check_file(folder / "a.yaml")


def test_d1_a_module_inside_a_plugin_folder_is_checked(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    module = tmp_path / "package" / "a.py"
    module.touch()
    module.chmod(0o666)
    with pytest.raises(ConfigError, match=r"a\.py can be written by every user"):
        check_folder(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_d1_a_link_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real.yaml").write_text("version: 1")
    link = tmp_path / "a.yaml"
    link.symlink_to(tmp_path / "real.yaml")
    check_file(link)
    os.lchown(link, 65534, 65534)
    with pytest.raises(ConfigError, match=r"a\.yaml belongs to the user nobody"):
        check_file(link)

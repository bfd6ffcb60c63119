"""Refuse files and folders that other users could have written, since pillowd obeys or runs them."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from pillows.errors import ConfigError


def check_file(path: Path) -> None:
    """Check that only this user and root can have written a file, or put another in its place.

    A file that is missing passes.

    Raises:
        ConfigError: another user can.
    """
    _check(path, [path])


def check_folder(folder: Path) -> None:
    """Check that only this user and root can write to a folder; see `check_file`.

    Raises:
        ConfigError: another user can.
    """
    inside = (Path(at, name) for at, names, files in os.walk(folder) for name in (*names, *files))
    _check(folder, [folder, *inside])


def _check(named: Path, paths: list[Path]) -> None:
    uid = os.geteuid()
    above = [*named.absolute().parents, *named.resolve().parents]
    for path in dict.fromkeys([*paths, *(each.resolve() for each in paths), *above]):
        if reason := find_distrust(path, uid, is_above=path in above):
            raise ConfigError(
                f"{path} {reason}, so they can make this user run their code.",
                remedy=f"run pillowd as that user, or make it yours: {_format_repair(path)}",
            )


def find_distrust(path: Path, uid: int, *, is_above: bool = False) -> str:
    """Return why a path cannot be trusted by a user; empty if it can, or does not exist.

    Args:
        path: the path; the owner of a symbolic link counts, its mode does not.
        uid: the user.
        is_above: it is a folder above, where only replacing counts: the sticky bit forbids it.
    """
    try:
        found = path.lstat()
    except OSError:
        return ""
    if _is_read_only_mount(path, uid):
        return ""
    if found.st_uid not in (0, uid):
        return f"belongs to the user {_get_user_name(found.st_uid)}"
    if stat.S_ISLNK(found.st_mode) or (is_above and found.st_mode & stat.S_ISVTX):
        return ""
    return _find_other_writers(found, uid)


def _find_other_writers(found: os.stat_result, uid: int) -> str:
    if found.st_mode & stat.S_IWOTH:
        return "can be written by every user of this machine"
    if found.st_mode & stat.S_IWGRP and (others := sorted(_list_others(found.st_gid, uid))):
        return f"can be written by its group, {', '.join(others)}"
    return ""


def _is_read_only_mount(path: Path, uid: int) -> bool:
    """Return whether the service's own view of a path is read-only, as for a file in a container.

    Its owner is a user of the host then. Root could have been given any mount, so it does not count there.
    """
    try:
        return uid != 0 and bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _list_others(gid: int, uid: int) -> Iterator[str]:
    """Yield the members of a group other than the user and root; none of a user's private group."""
    with_group = (entry.pw_name for entry in pwd.getpwall() if entry.pw_gid == gid)
    try:
        members = grp.getgrgid(gid).gr_mem
    except KeyError:
        members = []
    yield from {*members, *with_group} - {"root", _get_user_name(uid)}


def _get_user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _format_repair(path: Path) -> str:
    return f"`chown {_get_user_name(os.geteuid())} {path}`, `chmod go-w {path}`"

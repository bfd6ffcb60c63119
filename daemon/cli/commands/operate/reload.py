"""`pillowd reload`: have the running daemon take up a changed configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from daemon.cli.exit_codes import UnreachableError
from daemon.cli.options import common_options
from daemon.cli.output import echo, print_json
from daemon.config.default_folders import find_default_folders
from daemon.config.load import load
from daemon.config.problems import ConfigErrors
from daemon.config.yaml.includes import load_tree
from daemon.http.client import HttpClient

#: What became of a pillow -> the sign before its name.
_SIGNS = {"added": "+", "changed": "~", "removed": "-"}


@click.command()
@click.option("--check", is_flag=True, help="Change nothing, and print what a reload would change.")
@common_options
def reload(config_path: Path, as_json: bool, check: bool) -> None:
    """Have the running daemon read its configuration again.

    If the configuration has a problem, nothing changes and the exit code is 78. Only pillows whose settings
    or code have changed restart. The command returns when their former runs have ended.
    """
    client = _connect(config_path)
    done = client.call("validate_config" if check else "reload_config")
    if as_json:
        print_json(done)
        return
    for line in format_result(done, verb="would be" if check else "is"):
        echo(line)


def format_result(done: Mapping[str, Any], *, verb: str) -> list[str]:
    """Return a line about the result for each pillow."""
    counts = ", ".join(f"{len(done[what])} {what}" for what in _SIGNS)
    lines = [f"the configuration {verb} reloaded: {counts}, {done['unchanged']} unchanged"]
    lines += [f"  {sign} {key}" for what, sign in _SIGNS.items() for key in done[what]]
    lines += [f"not taken up: {note}" for note in done["notes"]]
    return lines


def find_socket(config_path: Path) -> tuple[Path | None, ConfigErrors | None]:
    """Return the admin socket of the daemon, even if the configuration has problems.

    The daemon is asked then, too: it notes the refusal, and may have variables that this process lacks.

    Returns:
        The socket, None if it is switched off; and the problems that this process finds.
    """
    try:
        return load(config_path, plugins=False).daemon.admin.path, None
    except ConfigErrors as error:
        tree, _ = load_tree(config_path, os.environ)
        node = tree.node.find(("daemon", "admin", "listen")) if tree else None
        if node is not None and isinstance(node.value, str):
            return Path(node.value.removeprefix("unix:")), error
        _, folder = find_default_folders(os.environ, uid=os.getuid())
        return folder / "admin.sock", error


def _connect(config_path: Path) -> HttpClient:
    path, problems = find_socket(config_path)
    if path is None:
        raise UnreachableError(
            "`daemon.admin.listen` is null, so no command reaches the daemon. Remedy: send it SIGHUP"
        )
    client = HttpClient(path)
    if client.answers():
        return client
    if problems is not None:
        raise problems
    raise UnreachableError(f"no daemon answers on {path}. Remedy: `pillowd run` reads the configuration")

"""`pillowd demo`."""

from __future__ import annotations

import shutil
from pathlib import Path

import click
from rich.console import Console

from daemon.demo.story import Demo, DemoFailed

#: Says that a folder is the demo's own, so that it may be emptied.
MARK = ".pillowd-demo"


@click.command()
@click.option("--serve", is_flag=True, help="Keep server and daemon up until Ctrl-C.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("demo-data"),
    show_default=True,
    help="Where everything is kept; emptied first.",
)
def demo(folder: Path, *, serve: bool) -> None:
    """Shows the whole path on this machine, with nothing to configure."""
    folder = folder.absolute()
    if folder.exists() and not (folder / MARK).exists() and any(folder.iterdir()):
        raise click.UsageError(f"{folder} is not empty and not the demo's; give another --dir")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARK).touch()
    try:
        Demo(folder, Console()).run(serve=serve)
    except DemoFailed as failure:
        raise click.ClickException(str(failure)) from failure

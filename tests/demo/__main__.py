"""`make demo` and `make demo-cluster`: show the whole path on this machine, with nothing to configure.

python -m tests.demo [--serve | --cluster] [--dir FOLDER]
"""

from __future__ import annotations

import shutil
from pathlib import Path

import click
from rich.console import Console

from tests.demo.cluster import run_cluster
from tests.demo.daemon import DemoError
from tests.demo.story import Demo

#: Marks a folder that the demo made, and may therefore empty.
MARK = ".pillowd-demo"


@click.command()
@click.option("--serve", is_flag=True, help="Keep server and daemon up until Ctrl-C.")
@click.option("--cluster", is_flag=True, help="Two daemons that share the pillows over Kafka.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("demo-data"),
    show_default=True,
    help="Folder for all files; emptied first.",
)
def main(folder: Path, *, serve: bool, cluster: bool) -> None:
    """Copy a clinic's CouchDB database into SQLite and JSON lines, or with --cluster into PostgreSQL."""
    if serve and cluster:
        raise click.UsageError("--serve and --cluster can't be combined")
    folder = folder.absolute()
    if folder.exists() and not (folder / MARK).exists() and any(folder.iterdir()):
        raise click.UsageError(f"{folder} is not empty, and the demo did not make it; give another --dir")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARK).touch()
    try:
        if cluster:
            run_cluster(folder, Console())
        else:
            Demo(folder, Console()).run(serve=serve)
    except DemoError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()

"""`pillowd mirror`."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict, Unpack

import click

from daemon.cli.exit_codes import CommandError
from daemon.cli.options import json_option

#: A file of certificates.
_PEM = click.Path(exists=True, dir_okay=False, path_type=Path)


class _Typed(TypedDict):
    """The arguments and options."""

    url: str
    target: str
    once: bool
    name: str | None
    columns: str
    source_ca: Path | None
    target_ca: Path | None
    on_recreated: str
    workers: str
    state_dir: Path
    write_config: str | None
    as_json: bool


@click.command()
@click.argument("url")
@click.argument("target")
@click.option("--once/--follow", default=False, help="Exit when caught up, or keep following (default).")
@click.option(
    "--name", help="Name of the table, index, topic or file. Default: made from the database's name."
)
@click.option(
    "--columns",
    type=click.Choice(["auto", "none"]),
    default="auto",
    show_default=True,
    help="Infer the columns of a table from a sample (auto), or write the whole document only (none).",
)
@click.option("--source-ca", type=_PEM, help="Verify the server at URL with these certificates (PEM).")
@click.option("--target-ca", type=_PEM, help="Verify the server of TARGET with these certificates (PEM).")
@click.option(
    "--on-recreated",
    type=click.Choice(["fail", "reload"]),
    default="fail",
    show_default=True,
    help="If the database was deleted and created again: stop (fail), or read all of it again (reload).",
)
@click.option(
    "--workers",
    metavar="N",
    default="0",
    show_default=True,
    help="Processes that share the work while far behind; `auto` means one fewer than the number of cores.",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    default=Path("pillowd-state"),
    show_default=True,
    help="Folder for checkpoints and configuration.",
)
@click.option(
    "--write-config",
    metavar="FILE",
    help="Write the equivalent configuration to FILE (`-` is standard output) and exit.",
)
@json_option
def mirror(**typed: Unpack[_Typed]) -> int:
    """Keep TARGET equal to the CouchDB database at URL, without a configuration file.

    URL is like https://etl@couch.example:6984/cases; a `/` in the name of a database is written %2F.
    TARGET is one of sqlite:///FILE, postgresql://USER@HOST/DATABASE, elasticsearch+https://HOST:PORT,
    opensearch+https://HOST:PORT (either with a path, if a proxy wants one), kafka://HOST:PORT (kafka+tls://
    for TLS) and jsonl:FOLDER.

    Set passwords in $COUCHDB_PASSWORD and $TARGET_PASSWORD: other users of this machine can see those in
    URLs. PostgreSQL also reads $PGPASSWORD and ~/.pgpass.

    Ctrl-C drains the batches in flight and saves; run the same command again to continue. With --once, the
    exit code is 3 if documents could not be written.
    """
    try:
        # Imported here, so that Ctrl-C during the import is handled, too.
        from daemon.mirror import run  # noqa: PLC0415  see above
        from daemon.mirror.config import parse_mirror  # noqa: PLC0415  see above

        wanted = parse_mirror(
            typed["url"],
            typed["target"],
            name=typed["name"],
            state_dir=typed["state_dir"],
            source_ca=typed["source_ca"],
            target_ca=typed["target_ca"],
            on_recreated=typed["on_recreated"],
            workers=typed["workers"],
        )
        return run.run_mirror(
            wanted,
            once=typed["once"],
            with_columns=typed["columns"] == "auto",
            write_config_to=typed["write_config"],
            as_json=typed["as_json"],
        )
    except KeyboardInterrupt:  # later, it stops the mirror as SIGINT stops a daemon
        raise CommandError("interrupted before the start. Remedy: run the same command again") from None

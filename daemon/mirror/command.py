"""`pillowd mirror`."""

from __future__ import annotations

from pathlib import Path

import click

from daemon.cli.exit_codes import CommandError
from daemon.cli.options import json_option


@click.command()
@click.argument("url")
@click.argument("target")
@click.option("--once/--follow", default=False, help="Exit when caught up, or keep following (default).")
@click.option("--name", help="Name of the table, index or file. Default: derived from the database's name.")
@click.option(
    "--columns",
    type=click.Choice(["auto", "none"]),
    default="auto",
    show_default=True,
    help="Infer the columns of a table from a sample (auto), or write the whole document only (none).",
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
def mirror(
    *,
    url: str,
    target: str,
    once: bool,
    name: str | None,
    columns: str,
    state_dir: Path,
    write_config: str | None,
    as_json: bool,
) -> int:
    """Keep TARGET equal to the CouchDB database at URL, without a configuration file.

    URL is like https://etl@couch.example:6984/cases. TARGET is one of sqlite:///FILE,
    postgresql://USER@HOST/DATABASE, elasticsearch+https://HOST:PORT and jsonl:FOLDER.

    Set passwords in $COUCHDB_PASSWORD and $TARGET_PASSWORD: other users of this machine can see those in
    URLs. PostgreSQL also reads $PGPASSWORD and ~/.pgpass.

    Ctrl-C drains the batches in flight and saves; run the same command again to continue. With --once, the
    exit code is 3 if documents could not be written.
    """
    try:
        # Imported here, so that Ctrl-C during the import is handled, too.
        from daemon.mirror import run  # noqa: PLC0415  see above
        from daemon.mirror.config import parse_mirror  # noqa: PLC0415  see above

        wanted = parse_mirror(url, target, name=name, state_dir=state_dir)
        return run.run_mirror(
            wanted,
            once=once,
            with_columns=columns == "auto",
            write_config_to=write_config,
            as_json=as_json,
        )
    except KeyboardInterrupt:  # later, it stops the mirror as SIGINT stops a daemon
        raise CommandError("interrupted before the start. Remedy: run the same command again") from None

"""`pillowd mirror`."""

from __future__ import annotations

from pathlib import Path

import click

from daemon.cli.exit_codes import CommandError
from daemon.cli.options import json_option


@click.command()
@click.argument("url")
@click.argument("target")
@click.option("--once/--follow", default=False, help="End when caught up; or go on, the default.")
@click.option("--name", help="Name of the table, index or file. Default: from the database's.")
@click.option(
    "--columns",
    type=click.Choice(["auto", "none"]),
    default="auto",
    show_default=True,
    help="Of a table: inferred from a sample, beside the whole document; or that alone.",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    default=Path("pillowd-state"),
    show_default=True,
    help="Where it remembers how far it got.",
)
@click.option(
    "--write-config", metavar="FILE", help="Write the YAML that does the same (`-`: print it), and end."
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
    """Keeps TARGET equal to the CouchDB database at URL, with nothing to configure.

    URL is like https://etl@couch.example:6984/cases. TARGET is one of sqlite:///FILE,
    postgresql://USER@HOST/DATABASE, elasticsearch+https://HOST:PORT and jsonl:FOLDER. Passwords may stand
    in the URLs; others on this machine can then see them, so better: leave them out, and set
    $COUCHDB_PASSWORD and $TARGET_PASSWORD (for PostgreSQL, $PGPASSWORD and ~/.pgpass serve as well).

    Ctrl-C finishes what is in flight and saves; the same command then goes on from there. With --once it
    ends with 3 when documents could not be written.
    """
    try:
        # Loaded in here: Ctrl-C while it loads is answered like one a moment later.
        from daemon.mirror import run  # noqa: PLC0415  see above
        from daemon.mirror.config import read  # noqa: PLC0415  see above

        wanted = read(url, target, name=name, state_dir=state_dir)
        return run.follow(
            wanted,
            once=once,
            with_columns=columns == "auto",
            write_config_to=write_config,
            as_json=as_json,
        )
    except KeyboardInterrupt:  # while it runs, it is a stop like any other
        raise CommandError("interrupted before it began; the same command goes on") from None

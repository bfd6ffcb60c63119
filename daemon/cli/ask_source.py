"""Ask a pillow's source whether it knows a position, before a checkpoint is moved there."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from checkpoints import Seq, TailKey
from daemon.cli.exit_codes import CommandError, UnreachableError
from daemon.config.models import Config
from pillows.clock import SystemClock
from pillows.couch.client import CouchClient
from pillows.couch.http.response import ActivityMonitor
from pillows.errors import FatalError, InvalidSeqError, RetryableError
from pillows.feed.source_database import SourceDatabase
from pillows.redaction import Redactor

#: The position of the end of the feed, whatever it is when it is asked for.
NOW = "now"


def ask_position(config: Config, tail: TailKey, position: Any) -> Any:
    """Return the position; for `now`, the position of the end of the feed.

    Args:
        config: a valid configuration.
        tail: a configured tail.
        position: a token, or `now`.

    Raises:
        CommandError: the source does not know it, or denies access.
        UnreachableError: the source does not answer.
    """
    options = config.tails[tail.pillow].source.model_copy(update={"database": tail.database})
    connection: Any = config.connections[options.connection].options
    redactor = Redactor.of_settings(config)
    try:
        query = Seq.of(position).query
        with closing(CouchClient(connection)) as couch:
            end = SourceDatabase(couch, options, ActivityMonitor(SystemClock())).probe(query)
    except RetryableError as error:
        raise UnreachableError(
            f"the source can't be asked: {redactor.redact(str(error))} "
            "Remedy: --force moves the checkpoint unasked"
        ) from error
    except (InvalidSeqError, TypeError) as error:
        raise CommandError(
            f"the source does not know this position: {redactor.redact(str(error.args[0]))} "
            f"Remedy: `pillowd checkpoint history {tail}` lists earlier ones; --force skips the question"
        ) from error
    except FatalError as error:
        raise CommandError(f"the source can't be asked: {redactor.redact(str(error))}") from error
    return end.seq.value if position == NOW else position

"""Call the control API on the files of a daemon that does not run."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from checkpoints import StoreLocked
from daemon import state_dir
from daemon.assembly.services import Services
from daemon.assembly.tails import repair_documents, run_backfills
from daemon.cli.exit_codes import UnreachableError
from daemon.config.models import Config
from daemon.control.api import ControlApi
from daemon.control.audit import Actor
from daemon.http.contract import load_contract
from daemon.http.dispatch import carry_out
from daemon.http.problems import to_answer
from daemon.rebuilds.definitions import with_builds
from daemon.tail_lookup import tail_keys
from pillows.clock import SystemClock
from pillows.observer import Observer
from pillows.redaction import Redactor


def open_files(stack: ExitStack, config: Config, *, writes: bool) -> Callable[..., Any]:
    """Lock the state directory for this command.

    Args:
        stack: releases it.
        config: names it.
        writes: create it if it is missing.

    Returns:
        The function that calls an operation of the HTTP API by its id.

    Raises:
        UnreachableError: a daemon holds it, but does not answer on the admin socket.
    """
    path = config.daemon.state_dir
    config = with_builds(config)
    # The command prints the result, so the log would only repeat it.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    stack.callback(structlog.reset_defaults)
    stack.enter_context(state_dir.run_as_owner(path))
    if not writes and not path.exists():
        # Nothing was ever saved, and reading must not create a state directory.
        path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pillowd-")))
    clock, redactor = SystemClock(), Redactor.of_settings(config)
    try:
        state = stack.enter_context(state_dir.open_state_dir(path, clock, redactor))
    except StoreLocked as error:
        where = config.daemon.admin.path or "a socket, as `daemon.admin.listen` is null"
        raise UnreachableError(
            f"{error}, but no daemon answers on {where}. "
            "Remedy: use the daemon's own configuration with --config FILE"
        ) from error
    services = Services(store=state.store, dead_letters=state.dead_letters, clock=clock, observer=Observer())
    send = partial(repair_documents, config, services)
    api = ControlApi(
        keys=tail_keys(config),
        state=state,
        clock=clock,
        daemon=None,
        repair=send,
        explain=lambda error: to_answer(error, redactor).body,
    )
    api.backfills.run_here = lambda key: run_backfills(config, services, key, api.backfills)
    stack.callback(api.operations.close)
    stack.callback(api.backfills.close)
    by = Actor.this_process("cli")

    def call(operation: str, /, **arguments: Any) -> Any:
        given = {name: value for name, value in arguments.items() if value is not None}
        return carry_out(api, load_contract().operations[operation], given, by).body

    return call

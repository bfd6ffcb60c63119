"""Makes an operator's calls on the files of a daemon that does not run."""

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
from daemon import assembly, state_dir
from daemon.assembly import tail_keys
from daemon.cli.exit_codes import UnreachableError
from daemon.config.models import Config
from daemon.control.api import Operations
from pillows.clock import SystemClock
from pillows.observer import Observer


def take(stack: ExitStack, config: Config, *, writes: bool) -> Callable[..., Any]:
    """Takes the state directory for this command.

    Args:
        stack: lets it go.
        config: says where it is.
        writes: it may be made where it is missing.

    Returns:
        What makes a call by its name.

    Raises:
        UnreachableError: a daemon has it, but was not found on the control socket.
    """
    path = config.daemon.state_dir
    # What the daemon would log is what the command prints anyway.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    stack.callback(structlog.reset_defaults)
    stack.enter_context(state_dir.as_owner_of(path))
    if not writes and not path.exists():
        # Nothing was ever saved, and merely to look must not make a state directory.
        path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pillowd-")))
    clock = SystemClock()
    try:
        state = stack.enter_context(state_dir.opened(path, clock))
    except StoreLocked as error:
        raise UnreachableError(
            f"{error}, but nobody answers on {config.daemon.control.path}. "
            "Remedy: give this command the configuration that the daemon runs with"
        ) from error
    send = partial(
        assembly.repair, config, store=state.store, letters=state.letters, clock=clock, observer=Observer()
    )
    operations = Operations(keys=tail_keys(config), state=state, clock=clock, supervisor=None, repair=send)

    def call(name: str, /, **arguments: Any) -> Any:
        return operations.calls[name](**arguments)

    return call

"""Where a command makes its calls: at the running daemon, or on the files when none runs."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import structlog

from checkpoints import ControlClient, RemoteError, StoreLocked, StoreUnavailable
from daemon import state_dir
from daemon.build import tail_keys
from daemon.config_models import Config
from daemon.exits import CommandError, UnreachableError
from daemon.keys import UnknownPillowError
from daemon.operations import Operations
from pillows.clock import SystemClock

#: Makes a call by its name.
Call = Callable[..., Any]


@contextmanager
def opened(config: Config, *, writes: bool = False) -> Iterator[Call]:
    """Gives the function that makes calls.

    Args:
        config: says where socket and state directory are.
        writes: the call changes something, so the state directory may be made.

    Raises:
        UnreachableError: a daemon has the state directory but does not answer.
    """
    with ControlClient(config.daemon.control.path) as client:
        if _answers(client):
            yield _plain(client.call)
            return
    with ExitStack() as stack:
        yield _plain(_on_files(stack, config, writes=writes))


def _answers(client: ControlClient) -> bool:
    try:
        client.call("ping")
    except StoreUnavailable:
        return False
    return True


def _on_files(stack: ExitStack, config: Config, *, writes: bool) -> Call:
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
    operations = Operations(keys=tail_keys(config), state=state, clock=clock, supervisor=None)

    def call(name: str, /, **arguments: Any) -> Any:
        return operations.calls[name](**arguments)

    return call


def _plain(call: Call) -> Call:
    """The same, with what a call cannot do as an error of the command."""

    def checked(name: str, /, **arguments: Any) -> Any:
        try:
            return call(name, **arguments)
        except UnknownPillowError:
            raise
        except RemoteError as error:
            if error.kind == UnknownPillowError.__name__:
                raise UnknownPillowError(str(error).removeprefix(f"{error.kind}: ")) from error
            raise
        except ValueError as error:
            raise CommandError(str(error)) from error

    return checked

"""Call the control API: of the running daemon, or on the files if none runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from gevent.event import Event

from checkpoints import ControlClient, RemoteError, StoreUnavailable
from daemon.cli.exit_codes import CommandError, UnreachableError
from daemon.config.load import load
from daemon.config.models import Config
from daemon.errors import UnknownPillowError
from pillows.clock import Clock, SystemClock

#: Calls a method of the control API by its name.
Call = Callable[..., Any]

#: Longest wait for a daemon that starts or ends, or for another command; each takes about a second.
_BUSY_SECONDS = 5.0
_BUSY_STEP_SECONDS = 0.1


@contextmanager
def open_control(config: Config, *, writes: bool = False, clock: Clock | None = None) -> Iterator[Call]:
    """Open the control API and yield the function that calls it.

    Wait while a daemon that starts or ends, or another command, holds the state directory without answering
    on the socket.

    Args:
        config: names the socket and the state directory.
        writes: the call changes something, so create the state directory if it is missing.
        clock: measures the wait.

    Raises:
        UnreachableError: a process holds the state directory but does not answer.
    """
    with _open_patiently(config, writes, clock or SystemClock()) as call:
        yield _translate_errors(call)


def call_control(config_path: Path, method: str, *, writes: bool = False, **arguments: Any) -> Any:
    """Load the configuration, and call one method of the control API; see `open_control`."""
    with open_control(load(config_path, plugins=False), writes=writes) as call:
        return call(method, **arguments)


@contextmanager
def _open_patiently(config: Config, writes: bool, clock: Clock) -> Iterator[Call]:
    give_up_at = clock.monotonic() + _BUSY_SECONDS
    while True:
        with ExitStack() as stack:
            try:
                call = _open_once(stack, config, writes=writes)
            except UnreachableError:
                if clock.monotonic() >= give_up_at:
                    raise
            else:
                yield call
                return
        clock.wait(Event(), _BUSY_STEP_SECONDS)


def _open_once(stack: ExitStack, config: Config, *, writes: bool) -> Call:
    """Return the call of the running daemon if it answers, else that of the files."""
    client = stack.enter_context(ControlClient(config.daemon.control.path))
    if _answers(client):
        return client.call
    # Imported only here: most calls are answered by the daemon, and this is half of all imports.
    from daemon.cli import offline_control  # noqa: PLC0415

    return offline_control.open_files(stack, config, writes=writes)


def _answers(client: ControlClient) -> bool:
    try:
        client.call("ping")
    except StoreUnavailable:
        return False
    return True


def _translate_errors(call: Call) -> Call:
    """Return the same call, which raises errors of the command."""

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

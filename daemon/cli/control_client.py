"""Where a command makes its calls: at the running daemon, or on the files when none runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from gevent.event import Event

from checkpoints import ControlClient, RemoteError, StoreUnavailable
from daemon.cli.exit_codes import CommandError, UnreachableError
from daemon.config.models import Config
from daemon.tail_lookup import UnknownPillowError
from pillows.clock import Clock, SystemClock

#: Makes a call by its name.
Call = Callable[..., Any]

#: A daemon that starts answers within a second; a command on the files is as quick.
_BUSY_SECONDS = 5.0
_BUSY_STEP_SECONDS = 0.1


@contextmanager
def opened(config: Config, *, writes: bool = False, clock: Clock | None = None) -> Iterator[Call]:
    """Gives the function that makes calls.

    A daemon that starts or ends holds the state directory for a moment without answering on its
    socket, and another command holds it for as long as it runs: both are waited for.

    Args:
        config: says where socket and state directory are.
        writes: the call changes something, so the state directory may be made.
        clock: for the wait.

    Raises:
        UnreachableError: somebody has the state directory but does not answer.
    """
    with _taken(config, writes, clock or SystemClock()) as call:
        yield _plain(call)


@contextmanager
def _taken(config: Config, writes: bool, clock: Clock) -> Iterator[Call]:
    give_up_at = clock.monotonic() + _BUSY_SECONDS
    while True:
        with ExitStack() as stack:
            try:
                call = _found(stack, config, writes=writes)
            except UnreachableError:
                if clock.monotonic() >= give_up_at:
                    raise
            else:
                yield call
                return
        clock.wait(Event(), _BUSY_STEP_SECONDS)


def _found(stack: ExitStack, config: Config, *, writes: bool) -> Call:
    """The running daemon where it answers, else the files."""
    client = stack.enter_context(ControlClient(config.daemon.control.path))
    if _answers(client):
        return client.call
    # Loaded only here: the running daemon answers most calls, and these are half of what loads.
    from daemon.cli import offline_control  # noqa: PLC0415

    return offline_control.take(stack, config, writes=writes)


def _answers(client: ControlClient) -> bool:
    try:
        client.call("ping")
    except StoreUnavailable:
        return False
    return True


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

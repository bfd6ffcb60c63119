"""Where a command makes its calls: at the running daemon, or on the files when none runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from checkpoints import ControlClient, RemoteError, StoreUnavailable
from daemon.config_models import Config
from daemon.exits import CommandError
from daemon.keys import UnknownPillowError

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
        # Loaded only here: the running daemon answers most calls, and these are half of what loads.
        from daemon import desk_files  # noqa: PLC0415

        yield _plain(desk_files.take(stack, config, writes=writes))


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

"""Call the control API: of the running daemon by HTTP, or on the files if none runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from gevent.event import Event

from daemon.cli.exit_codes import StandbyError, UnreachableError
from daemon.cli.output import echo
from daemon.config.load import ConfigErrors, find_admin_socket, load
from daemon.config.models import Config
from daemon.http.client import HttpClient
from daemon.http.event_reader import Message
from pillows.clock import Clock, SystemClock
from pillows.errors import PillowError

#: Calls an operation of the HTTP API by its `operationId`, with its parameters and body as arguments.
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
    clock = clock or SystemClock()
    give_up_at = clock.monotonic() + _BUSY_SECONDS
    while True:
        with ExitStack() as stack:
            try:
                call = _open_once(stack, config, writes=writes)
            except UnreachableError as error:
                if isinstance(error, StandbyError) or clock.monotonic() >= give_up_at:
                    raise
            else:
                yield call
                return
        clock.wait(Event(), _BUSY_STEP_SECONDS)


def call_control(config_path: Path, operation: str, *, writes: bool = False, **arguments: Any) -> Any:
    """Load the configuration, and call one operation of the API; see `open_control`."""
    with open_control(load(config_path, plugins=False), writes=writes) as call:
        return call(operation, **arguments)


def find_control(config_path: Path) -> Callable[[], AbstractContextManager[Call]]:
    """Load the configuration, and return the function that opens the control API; see `open_control`.

    If the file gets problems, a running daemon keeps its configuration and its socket. The calls then go to
    that daemon, with a warning on standard error.

    Raises:
        ConfigErrors: the configuration has problems, and no daemon answers.
    """
    try:
        return partial(open_control, load(config_path, plugins=False))
    except ConfigErrors as errors:
        path = find_admin_socket(config_path)
        if path is None or not HttpClient(path).answers():
            raise
        count = len(errors.problems)
        echo(
            f"pillowd: {config_path} has {count} problem{'s' if count > 1 else ''}; the daemon on {path} "
            "still runs with what it has loaded. Remedy: `pillowd check` shows what to correct",
            err=True,
        )
        return lambda: nullcontext(HttpClient(path).call)


def open_stream(
    config: Config, operation: str, **arguments: Any
) -> AbstractContextManager[Iterator[Message]]:
    """Open a stream of the running daemon; see `HttpClient.stream`.

    Raises:
        UnreachableError: no daemon runs.
    """
    path = config.daemon.admin.path
    if path is None:
        raise UnreachableError("the daemon has no admin socket. Remedy: set `daemon.admin.listen`")
    client = HttpClient(path)
    if not client.answers():
        raise UnreachableError(f"no daemon answers on {path}. Remedy: `pillowd run`")
    return client.stream(operation, **arguments)


def name_pillow(text: str) -> dict[str, Any]:
    """Return the parameters that name a pillow, as an operator writes it: `pillow`, or `pillow@source`."""
    key, at, source = text.partition("@")
    return {"key": key, "source": source} if at else {"key": key}


def list_pillows(call: Call) -> list[dict[str, Any]]:
    """Return the state of every pillow."""
    pillows: list[dict[str, Any]] = get_status(call)["pillows"]
    return pillows


def get_status(call: Call) -> dict[str, Any]:
    """Return the state of the daemon and of every pillow, from all pages."""
    return join_pages(call, "list_pillows", "pillows")


def join_pages(call: Call, operation: str, listed: str, **arguments: Any) -> dict[str, Any]:
    """Return the first page of an operation, with what all pages list.

    Args:
        call: calls the API.
        operation: the operation.
        listed: the name of the list.
        arguments: of every call.
    """
    whole: dict[str, Any] = call(operation, **arguments)
    while (after := whole.pop("next")) is not None:
        page = call(operation, **arguments, after=after)
        whole[listed] += page[listed]
        whole["next"] = page["next"]
    return whole


def _open_once(stack: ExitStack, config: Config, *, writes: bool) -> Call:
    """Return the call of the running daemon if it answers, else that of the files."""
    path = config.daemon.admin.path
    if path is not None:
        client = HttpClient(path)
        if client.answers():
            return client.call
    if config.coordination.type != "none":
        raise StandbyError(_describe_standby(config))
    # Imported only here: most calls are answered by the daemon, and this is half of all imports.
    from daemon.cli import offline_control  # noqa: PLC0415

    return offline_control.open_files(stack, config, writes=writes)


def _describe_standby(config: Config) -> str:
    """Return where the pillows run, as the state of the service is not in the files of this machine."""
    from daemon.coordination.coordinator import describe_service  # noqa: PLC0415  as above

    try:
        holder = describe_service(config)
    except PillowError as error:
        holder = str(error)
    return (
        f"no active daemon of the service {config.coordination.service} runs on this machine: {holder}. "
        "Remedy: run the command on the machine that holds the lease"
    )

"""The stacks of greenlets: where each of them waits. They hold lines of code, and no values."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator
from typing import Any, TypeAlias

from gevent import Greenlet
from msgspec import Struct

from checkpoints import TailKey
from pillows.user_code import describe_greenlet

#: One run of a tail.
Run: TypeAlias = "Greenlet[..., BaseException | None]"

_PILLOW = "pillow"


class Stack(Struct, frozen=True, kw_only=True):
    """A greenlet, and where it waits.

    Attributes:
        name: of the greenlet, with its function.
        pillow: the key of the tail that it belongs to; None for the daemon's own.
        lines: the frames, the outermost first, as Python prints them.
    """

    name: str
    pillow: str | None
    lines: list[str]


def mark_family(root: Greenlet[..., Any], key: TailKey) -> None:
    """Note in a greenlet, before it starts, which tail it runs; greenlets that it spawns inherit that."""
    root.spawn_tree_locals = {_PILLOW: str(key)}


def list_stacks() -> list[Stack]:
    """Return the stacks of all greenlets that wait, those of tails first.

    It visits every object that Python tracks, which takes some tens of milliseconds.
    """
    found = [_describe(each) for each in _find_waiting()]
    return sorted(found, key=lambda stack: (stack.pillow is None, stack.pillow or "", stack.name))


def format_family(root: Run) -> str:
    """Return the stacks of a greenlet and of those that it spawned as text, its own first."""
    family = [each for each in _find_waiting() if each.spawn_tree_locals is root.spawn_tree_locals]
    stacks = [_describe(each) for each in sorted(family, key=lambda each: each is not root)]
    return "\n".join(f"{stack.name}\n{''.join(stack.lines)}" for stack in stacks)


def _find_waiting() -> Iterator[Greenlet[..., Any]]:
    for each in gc.get_objects():
        if isinstance(each, Greenlet) and each.gr_frame is not None:
            yield each


def _describe(greenlet: Greenlet[..., Any]) -> Stack:
    return Stack(
        name=describe_greenlet(greenlet),
        pillow=(greenlet.spawn_tree_locals or {}).get(_PILLOW),
        lines=traceback.format_stack(greenlet.gr_frame),
    )

"""Replace the blocking parts of the standard library, before anything else is imported."""

from __future__ import annotations


def patch() -> None:
    """Patch the standard library.

    For each of its parts gevent looks for plugins in all installed distributions, 0.1 s where there are a
    hundred of them, unless that is switched off.
    """
    from gevent import events, monkey  # noqa: PLC0415  the module itself imports nothing

    events.notify_and_call_entry_points = events.notify  # type: ignore[attr-defined] # of no stub
    monkey.patch_all()

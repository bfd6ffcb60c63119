"""Suggest the name that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def find_similar(wrong: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the known name that is most like a wrong one; None if none is similar.

    Args:
        wrong: the unknown name; case is ignored.
        known: the valid names.
        cutoff: the least similarity, from 0 to 1 (difflib's ratio).
    """
    import difflib  # noqa: PLC0415  0.6 MB, and most processes never need it

    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(wrong.lower(), list(by_lower), n=1, cutoff=cutoff)
    return by_lower[close[0]] if close else None


def suggest(wrong: str, known: Sequence[str], what: str) -> str:
    """Return the remedy for an unknown name: a similar one, and the list of all.

    Args:
        wrong: the unknown name.
        known: the valid names.
        what: a plural for the known names, such as `keys here`.
    """
    if not known:
        return f"there are no {what}"
    listed = f"{what}: {', '.join(known)}"
    similar = find_similar(wrong, known)
    return f"did you mean `{similar}`? ({listed})" if similar else listed

"""The licenses of all that pillowd needs, and which of them are allowed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from license_expression import BaseSymbol, ExpressionError, get_spdx_licensing

#: SPDX identifiers of licenses that let everybody use, change and pass on pillowd together with the library.
ALLOWED = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "MIT",
        "MPL-2.0",  # binds changes of its own files only; we change none
        "PSF-2.0",
        "Unlicense",
        "ZPL-2.1",
    }
)
#: Library -> a license that is allowed for it alone.
ALLOWED_FOR = {
    # Python imports it, so whoever gets pillowd can put another version in its place, as the LGPL asks.
    "psycopg": "LGPL-3.0-only",
    "psycopg-binary": "LGPL-3.0-only",
}
#: How older distributions say it, where no SPDX identifier is.
CLASSIFIERS = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: BSD License": "BSD-3-Clause",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


@cache
def _spdx() -> Any:
    """Return the index of all SPDX identifiers; it takes 0.2 s."""
    return get_spdx_licensing()


def find_refused(bill: dict[str, Any]) -> dict[str, list[str]]:
    """Return library -> its licenses, for those that have one that is not allowed, or none at all."""
    return {
        component["name"]: list(_licenses(component))
        for component in bill["components"]
        if not _is_allowed(component)
    }


def list_licenses(bill: dict[str, Any]) -> str:
    """Return a line for each library: name, version, licenses."""
    lines = [
        f"{component['name']} {component['version']}: {', '.join(dict.fromkeys(_licenses(component)))}\n"
        for component in sorted(bill["components"], key=lambda each: str(each["name"]).lower())
    ]
    return "".join(lines)


def _is_allowed(component: dict[str, Any]) -> bool:
    allowed = ALLOWED | {ALLOWED_FOR.get(component["name"], "MIT")}
    licenses = list(_licenses(component))
    return bool(licenses) and all(_fits(expression, allowed) for expression in licenses)


def _licenses(component: dict[str, Any]) -> Iterator[str]:
    """Yield SPDX expressions, or what stands in the place of one."""
    for each in component.get("licenses", ()):
        name = each.get("expression") or each["license"].get("id") or each["license"]["name"]
        yield CLASSIFIERS.get(name, name)


def _fits(expression: str, allowed: frozenset[str]) -> bool:
    try:
        return _is_met(_spdx().parse(expression, validate=True), allowed)
    except ExpressionError:  # a text that is no expression
        return False


def _is_met(parsed: Any, allowed: frozenset[str]) -> bool:
    """Return whether one side of each OR, and all sides of each AND, are allowed."""
    if isinstance(parsed, BaseSymbol):
        return str(parsed) in allowed
    combine = any if isinstance(parsed, _spdx().OR) else all
    return combine(_is_met(side, allowed) for side in parsed.args)

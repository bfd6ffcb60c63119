"""Keeps secrets out of whatever is written: values by their name, by their form, and known ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, SecretStr

MASK = "***"

_SECRET_NAME = re.compile(
    r"(?i)^(.*[_-])?(pass(word|wd|phrase)?|secret|api_?key|access_?token|bearer|authorization|cookie|dsn)$"
)
_FORMS = (
    # user:password@ of a URL; a password may hold another @, so up to the last one before a slash
    (re.compile(r"(?<=://)[^/\s?#]*@"), f"{MASK}@"),
    # password=... of a libpq connection string, "password": "..." of a JSON body
    (
        re.compile(
            r"(?i)\b(password|passwd|secret|api_?key|access_token)([\"']?\s*[=:]\s*)([\"']?)[^\s\"',;&}]+"
        ),
        rf"\1\2\3{MASK}",
    ),
    # an Authorization or Cookie header that an error quotes
    (re.compile(r"(?i)\b(basic|bearer|apikey)\s+[A-Za-z0-9+/=._~-]{8,}"), rf"\1 {MASK}"),
    (re.compile(r"AuthSession=[^;\s]+"), f"AuthSession={MASK}"),
)

#: A known secret shorter than this is masked by name only: it would hit ordinary words.
_SHORTEST = 4


class Mask:
    """Masks secrets in values of any shape.

    Args:
        secrets: the secrets that the configuration holds.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({s for s in secrets if len(s) >= _SHORTEST}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def text(self, text: str) -> str:
        """`text` without what looks like, or is known to be, a secret."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        for form, replacement in _FORMS:
            text = form.sub(replacement, text)
        return text

    def value(self, value: Any) -> Any:
        """`value` with every text in it masked; other objects as their masked text."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, Mapping):
            return {str(k): self.named(str(k), v) for k, v in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(v) for v in value]
        return self.text(str(value))

    def named(self, name: str, value: Any) -> Any:
        """As `value`, and all of it where its name says that it is a secret."""
        return MASK if value is not None and _SECRET_NAME.match(name) else self.value(value)


def secrets_of(settings: object) -> set[str]:
    """Every secret in validated settings, however deep."""
    if isinstance(settings, SecretStr):
        return {settings.get_secret_value()}
    if isinstance(settings, BaseModel):
        return secrets_of([value for _, value in settings])
    if isinstance(settings, Mapping):
        return secrets_of(list(settings.values()))
    if isinstance(settings, list | tuple | set | frozenset):
        return set().union(*map(secrets_of, settings))
    return set()

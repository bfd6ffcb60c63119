"""Keep secrets out of everything that is written: by name, by form, and known ones by value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, SecretStr

MASK = "***"

_SECRET_NAME = re.compile(
    r"(?i)^(.*[_-])?(pass(word|wd|phrase)?|secret|api_?key|access_?token|bearer|authorization|cookie|dsn)$"
)
# A password may hold an `@`, so it ends at the last one before the path.
_USERINFO = re.compile(r"(?<=://)[^/\s?#]*@")
_PASSWORD = re.compile(r"(?<=://)([^/\s:@?#]*):[^/\s?#]*@")
_FORMS = (
    (_USERINFO, f"{MASK}@"),
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
_SETTING = re.compile(r"(?i)(\b\w*(?:pass|pwd|token|api_?key|secret)\w*)\s*=\s*('(?:\\.|[^'])*'|[^\s&'\"]+)")

#: A known secret shorter than this is masked by its name only: it would hit ordinary words.
_MIN_CHARACTERS = 4


class Redactor:
    """Masks secrets in values of any shape.

    Args:
        secrets: the known secrets.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({s for s in secrets if len(s) >= _MIN_CHARACTERS}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    @classmethod
    def of_settings(cls, settings: object) -> Redactor:
        """Return a redactor that knows every secret in validated settings."""
        return cls(secret.get_secret_value() for _, secret in find_secrets(settings))

    def redact(self, text: str) -> str:
        """Return `text` without what is known to be, or looks like, a secret."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        for form, replacement in _FORMS:
            text = form.sub(replacement, text)
        return text

    def redact_value(self, value: Any) -> Any:
        """Return `value` with every text in it masked; other objects become their masked text."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, Mapping):
            return {str(k): self.redact_item(str(k), v) for k, v in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.redact_value(v) for v in value]
        return self.redact(str(value))

    def redact_item(self, name: str, value: Any) -> Any:
        """Return `value` masked as a whole if its name says that it is secret, else its redacted form."""
        return MASK if value is not None and _SECRET_NAME.match(name) else self.redact_value(value)


def redact_address(address: str) -> str:
    """Return a URL or connection string without its password; the user's name stays."""
    return _SETTING.sub(rf"\1={MASK}", _PASSWORD.sub(rf"\1:{MASK}@", address))


def find_secrets(settings: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[Any, SecretStr]]:
    """Yield the path and value of every secret in validated settings, however deep."""
    if isinstance(settings, SecretStr):
        yield path, settings
    elif isinstance(settings, BaseModel):
        for name, field in type(settings).model_fields.items():
            yield from find_secrets(getattr(settings, name), (*path, field.alias or name))
    elif isinstance(settings, Mapping):
        for key, child in settings.items():
            yield from find_secrets(child, (*path, key))
    elif isinstance(settings, list | tuple | set | frozenset):
        for index, child in enumerate(settings):
            yield from find_secrets(child, (*path, index))

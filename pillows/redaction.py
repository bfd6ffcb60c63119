"""Keep secrets out of everything that is written: by name, by form, and known ones by value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

MASK = "***"

_SECRET_NAME = re.compile(
    r"(?i)^(.*[_-])?(pass(word|wd|phrase)?|secret|api_?key|access_?token|bearer|authorization|cookie|dsn)$"
)
# A password may hold an `@`, and even `/`, `?` or `#` that ought to be percent-encoded: it ends at the last
# `@`, unless what is before such a character is a whole host, or host and port.
_TO_LAST_AT = r"(?:(?!://)[^\s\"'<>])*@"
_USERINFO = re.compile(rf"(?<=://)(?![^/\s:@?#]*(?:(?::\d{{1,5}})?[/?]|#)){_TO_LAST_AT}")
_PASSWORD = re.compile(rf"(?<=://)([^/\s:@?#]*):(?!\d{{1,5}}[/?]){_TO_LAST_AT}")
_FORMS = (
    (_USERINFO, f"{MASK}@"),
    # password=... of a libpq connection string, "password": "..." of a JSON body; `auth.password: is missing`
    # is our own word about a key
    (
        re.compile(
            r"(?i)\b(?!(?<=[a-z_]\.)\w+: )(password|passwd|secret|api_?key|access_token)"
            r"([\"']?\s*[=:]\s*)([\"']?)[^\s\"',;&}]+"
        ),
        rf"\1\2\3{MASK}",
    ),
    # an Authorization or Cookie header that an error quotes
    (re.compile(r"(?i)\b(basic|bearer|apikey)\s+[A-Za-z0-9+/=._~-]{8,}"), rf"\1 {MASK}"),
    (re.compile(r"AuthSession=[^;\s]+"), f"AuthSession={MASK}"),
)
_SETTING = re.compile(r"(?i)(\b\w*(?:pass|pwd|token|api_?key|secret)\w*)\s*=\s*('(?:\\.|[^'])*'|[^\s&'\"]+)")

#: Where our own words come from.
_PACKAGES = ("checkpoints", "pillows", "daemon")

#: A known secret shorter than this is masked by its name only: it would hit ordinary words.
_MIN_CHARACTERS = 4


def _find_maskable(secrets: Iterable[str]) -> set[str]:
    """Return those secrets that can be masked by their value in a message of ours.

    A short secret, or one that is part of our own words, is not removed: the text would become unreadable,
    and the gap would reveal the secret. The source of these packages has every word that a message or an
    event can have. It is read for each call (15 ms): kept, it took 5.7 MB.
    """
    left = {secret: secret.encode(errors="surrogatepass") for secret in secrets}
    root = Path(__file__).parents[1]
    for file in (file for package in _PACKAGES for file in (root / package).rglob("*.py")):
        if not left:
            break
        text = file.read_bytes()
        left = {secret: encoded for secret, encoded in left.items() if encoded not in text}
    return set(left)


class Redactor:
    """Masks secrets in values of any shape.

    Args:
        secrets: the known secrets; a short one, or one of our own words, is masked by its name and form only.
        is_foreign: the texts are others' alone, such as an error of a library: mask every known secret that
            is not too short.
    """

    def __init__(self, secrets: Iterable[str] = (), *, is_foreign: bool = False) -> None:
        self._is_foreign = is_foreign
        self._masked: frozenset[str] = frozenset()
        self._known: re.Pattern[str] | None = None
        self._add(secrets)

    @classmethod
    def of_settings(cls, settings: object) -> Redactor:
        """Return a redactor that knows every secret in validated settings."""
        redactor = cls()
        redactor.learn(settings)
        return redactor

    def learn(self, settings: object) -> None:
        """Mask the secrets in these validated settings as well from now on."""
        self._add(secret.get_secret_value() for _, secret in find_secrets(settings))

    def redact(self, text: str) -> str:
        """Return `text` without known secrets, and without parts that look like one."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        for form, replacement in _FORMS:
            text = form.sub(replacement, text)
        return text

    def _add(self, secrets: Iterable[str]) -> None:
        long = {each for each in secrets if len(each) >= _MIN_CHARACTERS and each not in self._masked}
        self._masked |= long if self._is_foreign else _find_maskable(long)
        known = sorted(self._masked, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

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


def find_stray_password(url: str) -> str:
    """Return why a URL is refused whose password may contain `/`, `?` or `#`; empty if it is not refused.

    Such a URL is cut in the wrong place: its host is then a piece of the password. Nothing of it is quoted.
    """
    after_host = re.sub(r"^[^:/?#]*://[^/?#]*", "", url)
    if "://" not in url or "@" not in after_host:
        return ""
    return "has an `@` after its host, as if a password held an unescaped `/`, `?` or `#`"


#: What to do about it.
STRAY_PASSWORD_REMEDY = "write `/` as %2F, `?` as %3F, `#` as %23; or give the password by a variable"  # noqa: S105  a remedy


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


def put_at(plain: Any, path: Sequence[str | int], value: object) -> None:
    """Set the value at a path of `find_secrets` in the same settings as plain data."""
    for part in path[:-1]:
        plain = plain[part]
    plain[path[-1]] = value

"""Passwords, sessions, lockout, administrators and members."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

from tests.servers.couchdb.config import Config
from tests.servers.couchdb.database import Database
from tests.servers.couchdb.errors import Refusal, bad_request, forbidden, unauthorized
from tests.servers.couchdb.http import Request
from tests.servers.couchdb.jsontext import loads

FAILURES_ALLOWED = 5
LOCKED_SECONDS = 300
ITERATIONS = 10  # CouchDB takes 600,000; a test has no time for them
PREFIX = "org.couchdb.user:"
LOCKED = "Account is temporarily locked due to multiple authentication failures"
WRONG = "Name or password is incorrect."
RENEWED_AFTER = 0.1  # of a session's time
USER_ID = "Doc ID must be of the form org.couchdb.user:name"


@dataclass(frozen=True, slots=True)
class User:
    """The sender of a request.

    Attributes:
        name: None for nobody.
        roles: `_admin` for an administrator.
        handler: how the name is known: `default` by password, `cookie`.
        cookie: the header that renews the session.
    """

    name: str | None = None
    roles: tuple[str, ...] = ()
    handler: str = ""
    cookie: str = ""

    @property
    def is_admin(self) -> bool:
        """Whether they are an administrator of the server."""
        return "_admin" in self.roles

    def context(self, database: str | None = None) -> dict[str, Any]:
        """Return the `userCtx` that functions of design documents see."""
        return {"db": database, "name": self.name, "roles": list(self.roles)}


NOBODY = User()


class Auth:
    """Knows users by their passwords and cookies.

    Args:
        admins: passwords of the administrators.
        users: the database of all other users.
        config: the node's settings.
    """

    def __init__(self, admins: Mapping[str, str], users: Database, config: Config) -> None:
        self._admins = admins
        self._users = users
        self._config = config
        self._secret = os.urandom(16)
        self._failures: dict[tuple[str, str], list[float]] = {}

    def identify(self, request: Request) -> User:
        """Return the user of a request.

        Raises:
            Refusal: the password is wrong, the account is locked, or the header is malformed.
        """
        user = self._by_cookie(request) or self._by_password(request)
        return user or NOBODY

    def log_in(self, name: str, password: str, address: str) -> User:
        """Return the user with this name and password.

        Raises:
            Refusal: there is none, or the account is locked.
        """
        key = (name, address)
        failures = [at for at in self._failures.get(key, []) if at > time.monotonic() - LOCKED_SECONDS]
        if len(failures) >= FAILURES_ALLOWED:
            raise forbidden(LOCKED)
        user = self._check(name, password)
        if user is None:
            self._failures[key] = [*failures, time.monotonic()]
            raise unauthorized(WRONG)
        self._failures.pop(key, None)
        return user

    def cookie(self, name: str) -> str:
        """Return the header that begins a session."""
        stamp = f"{name}:{int(time.time() * 1000):X}"
        text = base64.urlsafe_b64encode(stamp.encode() + b":" + self._sign(stamp)).decode().rstrip("=")
        return self.cookie_header(text)

    def cookie_header(self, text: str = "") -> str:
        """Return a header that sets the cookie, or clears it."""
        seconds = self._config.session_seconds
        expires = formatdate(time.time() + seconds, usegmt=True)
        return f"AuthSession={text}; Version=1; Expires={expires}; Max-Age={seconds}; Path=/; HttpOnly"

    def _check(self, name: str, password: str) -> User | None:
        if name in self._admins:
            return User(name, ("_admin",), "default") if self._admins[name] == password else None
        document = self._document(name)
        if not document:
            return None
        derived = derive(password, str(document.get("salt", "")))
        if not hmac.compare_digest(derived, str(document.get("derived_key", ""))):
            return None
        return User(name, tuple(document.get("roles", ())), "default")

    def _document(self, name: str) -> dict[str, Any]:
        tree = self._users.tree(PREFIX + name)
        if tree is None or tree.deleted or not tree.winner.body:
            return {}
        document: dict[str, Any] = loads(b"{" + tree.winner.body + b"}")
        return document

    def _by_password(self, request: Request) -> User | None:
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            given = base64.b64decode(text, validate=True).decode()
        except (binascii.Error, ValueError):
            raise bad_request("Authorization header has invalid base64 value") from None
        name, colon, password = given.partition(":")
        return self.log_in(name, password, request.address) if colon else None

    def _by_cookie(self, request: Request) -> User | None:
        pairs = (part.strip().partition("=") for part in request.headers.get("cookie", "").split(";"))
        text = next((value for name, _, value in pairs if name == "AuthSession"), "")
        if not text:
            return None
        try:
            data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            name, stamp, signature = data.split(b":", 2)
            began = int(stamp, 16) / 1000
        except (binascii.Error, ValueError):
            raise bad_request("Malformed AuthSession cookie. Please clear your cookies.") from None
        age, seconds = time.time() - began, self._config.session_seconds
        if age > seconds or not hmac.compare_digest(self._sign((name + b":" + stamp).decode()), signature):
            return None
        return self._in_session(name.decode(), renewed=age > seconds * RENEWED_AFTER)

    def _in_session(self, name: str, *, renewed: bool) -> User | None:
        cookie = self.cookie(name) if renewed else ""
        if name in self._admins:
            return User(name, ("_admin",), "cookie", cookie)
        document = self._document(name)
        return User(name, tuple(document.get("roles", ())), "cookie", cookie) if document else None

    def _sign(self, stamp: str) -> bytes:
        return hmac.new(self._secret, stamp.encode(), hashlib.sha256).digest()


def derive(password: str, salt: str) -> str:
    """Return the key that is stored for a password."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt.encode(), ITERATIONS).hex()


def hide_password(doc_id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return a user's document as it is stored.

    Raises:
        Refusal: the document's id is not made of the name.
    """
    if doc_id != f"{PREFIX}{body.get('name')}":
        raise forbidden(USER_ID)
    if "password" not in body:
        return body
    salt = os.urandom(16).hex()
    kept = {name: value for name, value in body.items() if name != "password"}
    return {
        **kept,
        "password_scheme": "pbkdf2",
        "pbkdf2_prf": "sha256",
        "iterations": ITERATIONS,
        "salt": salt,
        "derived_key": derive(body["password"], salt),
    }


def check_server_admin(user: User) -> None:
    """Refuse everyone but administrators of the server."""
    if not user.is_admin:
        raise unauthorized("You are not a server admin.")


def _group(security: Any, name: str) -> tuple[list[str], list[str]]:
    group = security.get(name) or {}
    return group.get("names") or [], group.get("roles") or []


def _belongs(user: User, names: list[str], roles: list[str]) -> bool:
    return user.name in names or any(role in roles for role in user.roles)


def is_database_admin(user: User, database: Database) -> bool:
    """Return whether a user administers a database."""
    return user.is_admin or _belongs(user, *_group(loads(database.security), "admins"))


def check_member(user: User, database: Database) -> None:
    """Refuse whoever may not read a database."""
    if is_database_admin(user, database):
        return
    names, roles = _group(loads(database.security), "members")
    if (not names and not roles) or _belongs(user, names, roles):
        return
    if user.name is None:
        raise unauthorized("You are not authorized to access this db.")
    raise forbidden("You are not allowed to access this db.")


def check_security(value: Any) -> None:
    """Refuse a malformed security object, for which CouchDB finds no majority."""
    groups = [value.get(name, {}) for name in ("admins", "members")] if isinstance(value, dict) else [None]
    for group in groups:
        if not isinstance(group, dict) or not all(
            isinstance(group.get(part, []), list) for part in ("names", "roles")
        ):
            raise no_majority()


def no_majority() -> Refusal:
    """Return the error of a change that no copy of a database made."""
    return Refusal(500, "error", "no_majority")

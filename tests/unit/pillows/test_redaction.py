from __future__ import annotations

import pytest
from pydantic import SecretStr

from pillows.options import Options, Secret
from pillows.redaction import Redactor, find_secrets


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("GET https://etl:p@ss@couch:6984/db failed", "GET https://***@couch:6984/db failed"),
        ("postgresql://u:pw@db/x and http://a:b@c/", "postgresql://***@db/x and http://***@c/"),
        ("https://couch/db?author=a@b", "https://couch/db?author=a@b"),
        ("host=db password=hunter2 user=x", "host=db password=*** user=x"),
        ('{"name": "etl", "password": "hunter2"}', '{"name": "etl", "password": "***"}'),
        ("Authorization: Basic ZXRsOnBhc3N3b3Jk", "Authorization: Basic ***"),
        ("Cookie: AuthSession=ZXRsOjY1; Version=1", "Cookie: AuthSession=***; Version=1"),
        ("no pillow has failed", "no pillow has failed"),
        ("seq 12-g1AAAACTeJzLYWBgYMpgTmHgz8tPST", "seq 12-g1AAAACTeJzLYWBgYMpgTmHgz8tPST"),
    ],
)
def test_secrets_are_masked_by_their_form(text: str, masked: str) -> None:
    assert Redactor().redact(text) == masked


def test_known_secrets_are_masked_wherever_they_stand() -> None:
    redactor = Redactor(["hunter2", "hunter2-longer", "abc"])
    assert redactor.redact("tried hunter2-longer, then hunter2, abc") == "tried ***, then ***, abc"


@pytest.mark.parametrize("name", ["password", "api_key", "couch_password", "Authorization", "dsn"])
def test_secrets_are_masked_by_their_name(name: str) -> None:
    assert Redactor().redact_item(name, {"anything": 1}) == "***"


@pytest.mark.parametrize("name", ["seq", "token_count", "passes", "pass_number", "secretary"])
def test_innocent_names_are_not_masked(name: str) -> None:
    assert Redactor().redact_item(name, "7-x") == "7-x"


def test_values_of_any_shape_are_searched() -> None:
    value = {"a": ["http://u:p@h/", {"password": "x", "n": 3, "none": None}], "e": ValueError("password=x")}
    assert Redactor().redact_value(value) == {
        "a": ["http://***@h/", {"password": "***", "n": 3, "none": None}],
        "e": "password=***",
    }


def test_every_secret_in_settings_is_found() -> None:
    class Auth(Options):
        password: Secret
        username: str = "etl"

    class Root(Options):
        auths: dict[str, Auth]
        keys: tuple[Secret, ...] = ()

    root = Root(auths={"a": Auth(password=SecretStr("one"))}, keys=(SecretStr("two"),))
    found = {path: secret.get_secret_value() for path, secret in find_secrets(root)}
    assert found == {("auths", "a", "password"): "one", ("keys", 0): "two"}

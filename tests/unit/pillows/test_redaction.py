from __future__ import annotations

import pytest
from pydantic import SecretStr

from pillows.options import Options, Secret
from pillows.redaction import Redactor, find_secrets, find_stray_password, redact_address


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


@pytest.mark.parametrize("secret", ["pillow", "checkpoint", "reset", "table", "state", "is m"])
def test_i4_our_own_words_are_never_masked(secret: str) -> None:
    """Else the gap would tell the secret, and the command could not be pasted."""
    text = (
        "pillow.state: its checkpoint is missing; `pillowd checkpoint reset cases`, pg_temp.pillowd_stage_0"
    )
    assert Redactor([secret]).redact(text) == text


def test_i4_an_ordinary_word_is_masked_in_text_of_others() -> None:
    redactor = Redactor(["pillow"], is_foreign=True)
    assert redactor.redact("bad credentials etl/pillow") == "bad credentials etl/***"
    assert Redactor(["pillow"]).redact("http://etl:pillow@h/ password=pillow") == "http://***@h/ password=***"


@pytest.mark.parametrize("secret", ["x", "is", "abc"])
def test_d6_a_secret_of_under_four_characters_spoils_no_message(secret: str) -> None:
    text = "auth.password: its value is missing; abc"
    assert Redactor([secret]).redact(text) == text
    assert Redactor([secret], is_foreign=True).redact(text) == text


@pytest.mark.parametrize("password", ["pa/ss", "/ss", "p#ss", "p?ss", "p@s/s", "1#s", "a/b@c#d"])
def test_d2_a_password_with_an_unescaped_sign_is_masked_whole(password: str) -> None:
    url = f"https://etl:{password}@couch.example:6984/cases"
    assert Redactor().redact(f"GET {url} failed") == "GET https://***@couch.example:6984/cases failed"
    assert redact_address(url) == "https://etl:***@couch.example:6984/cases"
    assert find_stray_password(url)


@pytest.mark.parametrize(
    "url", ["https://couch:5984/a%40b", "https://etl:p%2Fss@couch:6984/cases", "https://couch/db", "cases"]
)
def test_d2_a_url_without_a_stray_password_is_no_error(url: str) -> None:
    assert find_stray_password(url) == ""

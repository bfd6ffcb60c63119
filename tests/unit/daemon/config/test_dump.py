"""Showing a configuration: every default, no secret, and it loads again."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from daemon.config.dump import format_config, to_effective
from daemon.config.load import load
from daemon.config.models import Config
from tests.support.configuration import ENVIRON, GOOD


def shown(tmp_path, text: str, environ: dict[str, str] | None = None) -> tuple[Config, str]:
    (tmp_path / "pillowd.yaml").write_text(text)
    config = load(tmp_path / "pillowd.yaml", environ or ENVIRON)
    return config, format_config(config)


def test_every_default_is_filled_in(tmp_path):
    _, text = shown(tmp_path, GOOD)
    plain = yaml.safe_load(text)
    assert plain["checkpoints"] == {"type": "pod", "interval": "5s", "max_uncheckpointed": 1000}
    batch = {"max_docs": 2000, "max_bytes": "5MiB", "linger": "0s", "max_in_flight": 1}
    assert plain["pillows"]["cases"]["batch"] == batch
    assert plain["pillows"]["cases"]["source"]["since"] == "beginning"
    assert plain["connections"]["couch"]["timeouts"]["connect"] == "10s"


def test_formatted_configuration_loads_again(tmp_path):
    text = GOOD.replace("database: cases", "database: cases, since: '1e5'") + "    enabled: no\n"
    config, once = shown(tmp_path, text)
    again, twice = shown(tmp_path, once)
    assert once == twice
    assert again == config.with_origin(again.root, again.warnings)


def test_a_secret_that_came_from_outside_is_shown_as_it_was_written(tmp_path):
    _, text = shown(tmp_path, GOOD)
    assert "password: ${COUCH_PASSWORD}" in text
    assert "correct horse" not in text


@pytest.mark.parametrize("written", ["hunter2hunter2", "a-${COUCH_PASSWORD}", "${NOT_SET:hunter2hunter2}"])
def test_any_other_secret_is_masked(tmp_path, written):
    _, text = shown(tmp_path, GOOD.replace("${COUCH_PASSWORD}", written))
    assert "password: '***'" in text
    assert "hunter2" not in text
    assert "correct horse" not in text


@pytest.mark.parametrize("key", ["username: etl", "database: cases"])
def test_text_from_a_file_or_credential_is_not_shown_even_where_no_secret_is_asked_for(tmp_path, key):
    (tmp_path / "x").write_text("hunter2")
    name = key.partition(":")[0]
    text = GOOD.replace(key, f'{name}: "${{file:x}}"')
    _, text = shown(tmp_path, text)
    assert "hunter2" not in text
    assert f"{name}: ${{file:x}}" in text


def test_ordinary_variables_are_shown_filled_in(tmp_path):
    text = GOOD.replace("couch.example", "${COUCH_HOST}")
    _, text = shown(tmp_path, text, ENVIRON | {"COUCH_HOST": "db1"})
    assert "url: https://db1:6984" in text


def test_literal_dollar_brace_is_escaped_again(tmp_path):
    config, text = shown(tmp_path, GOOD.replace("username: etl", "username: 'a$${b}'"))
    options: Any = config.connections["couch"].options
    assert options.auth.username == "a${b}"
    assert "username: a$${b}" in text


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("postgresql://ann@db/reports", "postgresql://ann@db/reports"),
        ("postgresql://ann:p@ss@db/reports", "postgresql://ann:***@db/reports"),
        ("host=db password='it is long' dbname=x", "host=db password=*** dbname=x"),
        ("postgresql://db/x?user=ann&password=p", "postgresql://db/x?user=ann&password=***"),
    ],
)
def test_an_address_is_shown_without_its_password(tmp_path, dsn, expected):
    text = GOOD + "\n"
    text = text.replace("pillows:", f'  pg: {{ type: postgres, dsn: "{dsn}" }}\npillows:')
    config, _ = shown(tmp_path, text)
    assert to_effective(config)["connections"]["pg"]["dsn"] == expected
    assert bool(config.warnings) == ("***" in expected)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.org:8443/hook", "https://example.org:8443/hook"),
        (
            "https://hooks.example.org/services/T0/B0/Abcdefgh12345678",
            "https://hooks.example.org/services/T0/B0/***",
        ),
        ("https://a-long-name.example.org/x?token=a%20b", "https://a-long-name.example.org/x***"),
    ],
)
def test_possible_passwords_in_a_webhooks_address_are_masked(tmp_path, url, expected):
    text = GOOD.replace("pillows:", f'  hook: {{ type: webhook, url: "{url}" }}\npillows:')
    config, _ = shown(tmp_path, text)
    assert to_effective(config)["connections"]["hook"]["url"] == expected
    assert bool(config.warnings) == ("***" in expected)

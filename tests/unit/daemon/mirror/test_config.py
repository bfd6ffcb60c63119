"""The configuration that a mirror writes for itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from daemon.cli.exit_codes import CommandError
from daemon.mirror import command
from daemon.mirror.config import parse_mirror, prepare, read_chosen_columns, write_config
from pillows.errors import ConfigError

URL = "http://etl:s3cret%40x@couch.example:5984/prefix/org%2Fcases"


def mirror(target: str, tmp_path: Path, url: str = URL):
    return parse_mirror(url, target, name=None, state_dir=tmp_path)


def test_columns_of_an_earlier_version_stay_as_they_are(tmp_path):
    wanted = mirror(f"sqlite:///{tmp_path}/a.sqlite", tmp_path)

    config = prepare(wanted, lambda _: {"n": "n bigint", "doc": "@ jsonb"}, {})

    assert config.pillows["org_cases"].steps == ()


@pytest.mark.parametrize(
    "target",
    [
        "sqlite:///{}/a${{HOME}}.sqlite",
        "jsonl:{}/lines",
        "postgresql://u:p@h/d",
        "elasticsearch+http://u:p@h",
    ],
)
def test_the_written_configuration_is_one_that_loads_and_holds_no_password(target, tmp_path):
    wanted = mirror(target.format(tmp_path), tmp_path)

    config = prepare(wanted, lambda _: {"n": "n text"}, {})

    written = wanted.config_path.read_text()
    assert "s3cret" not in written
    assert "${COUCHDB_PASSWORD}" in written
    assert wanted.config_path.stat().st_mode & 0o777 == 0o600
    assert config.connections["couch"].options.auth.password.get_secret_value() == "s3cret@x"  # type: ignore[attr-defined]
    assert list(config.pillows) == ["org_cases"]
    assert config.pillows["org_cases"].source.database == "org/cases"


def test_columns_are_chosen_once(tmp_path):
    wanted = mirror(f"sqlite:///{tmp_path}/a.sqlite", tmp_path)
    prepare(wanted, lambda _: {"first": "x text", "doc": "@ jsonb"}, {})

    prepare(wanted, lambda _: pytest.fail("asked again"), {})

    assert read_chosen_columns(wanted) == {"first": "x text", "doc": "@ jsonb"}


def test_mirror_without_its_folder_keeps_the_columns_of_the_table(tmp_path):
    wanted = mirror(f"sqlite:///{tmp_path}/a.sqlite", tmp_path)

    prepare(wanted, lambda _: pytest.fail("inferred others"), {}, find=lambda _: {"n": "n any"})

    assert read_chosen_columns(wanted) == {"n": "n any"}


def test_to_ask_for_no_columns_is_refused_only_where_a_table_has_some(tmp_path):
    wanted = mirror(f"sqlite:///{tmp_path}/a.sqlite", tmp_path)
    prepare(wanted, lambda _: {"xmin": "xmin text"}, {})

    with pytest.raises(ConfigError, match="remove `--columns none`"):
        prepare(wanted, None, {}, find=lambda _: {"n": "n any"})
    prepare(wanted, None, {}, find=lambda _: None)

    assert read_chosen_columns(wanted) == {}


def test_failed_sample_chooses_no_columns(tmp_path):
    wanted = mirror(f"sqlite:///{tmp_path}/a.sqlite", tmp_path)

    def fail(_):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        prepare(wanted, fail, {})

    assert read_chosen_columns(wanted) is None


def test_a_missing_password_is_named(tmp_path):
    wanted = mirror(f"jsonl:{tmp_path}", tmp_path, url="http://etl@couch.example/db")

    with pytest.raises(ConfigError, match="set COUCHDB_PASSWORD in the environment"):
        prepare(wanted, None, {})
    assert not wanted.folder.exists()


@pytest.mark.parametrize(
    ("target", "key", "value"),
    [
        ("elasticsearch+https://es", "ca_bundle", "{}/ca.pem"),
        ("opensearch+https://os", "ca_bundle", "{}/ca.pem"),
        ("kafka+tls://broker", "tls", {"ca_bundle": "{}/ca.pem"}),
        (
            "postgresql://etl@db/reports",
            "dsn",
            "sslmode=verify-full user=etl dbname=reports host=db sslrootcert={}/ca.pem",
        ),
        (
            "postgresql://db/reports?sslmode=verify-ca",
            "dsn",
            "sslmode=verify-ca dbname=reports host=db sslrootcert={}/ca.pem",
        ),
    ],
)
def test_f3_certificates_are_those_of_the_connections(target, key, value, tmp_path):
    plain = mirror(target, tmp_path)
    pem = tmp_path / "ca.pem"

    trusting = parse_mirror(URL, target, name=None, state_dir=tmp_path, source_ca=pem, target_ca=pem)

    connections = trusting.make_settings()["connections"]
    assert connections["couch"]["ca_bundle"] == str(pem)
    expected = json.loads(json.dumps(value).replace("{}", str(tmp_path)))
    assert connections["target"][key] == expected
    assert trusting.folder == plain.folder, "another certificate does not make another mirror"


def test_f3_certificates_for_a_file_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="remove `--target-ca`"):
        parse_mirror(URL, f"jsonl:{tmp_path}", name=None, state_dir=tmp_path, target_ca=tmp_path / "ca.pem")


def test_the_same_places_have_the_same_folder_whatever_the_password(tmp_path):
    one = mirror(f"jsonl:{tmp_path}", tmp_path, url="http://etl:a@couch.example/db")
    two = mirror(f"jsonl:{tmp_path}", tmp_path, url="http://etl:b@couch.example/db")
    other = mirror(f"jsonl:{tmp_path}", tmp_path, url="http://etl:b@couch.example/db2")

    assert one.folder == two.folder != other.folder


def test_the_same_table_has_the_same_folder_wherever_its_password_stands(tmp_path):
    folders = {
        mirror(f"postgresql://etl{password}@db/reports", tmp_path).folder for password in ("", ":a", ":b")
    }

    assert len(folders) == 1


@pytest.mark.parametrize("target", ["postgresql://me@db/reports", "elasticsearch+http://me@search"])
def test_the_advised_variable_is_the_target_s_password(target, tmp_path):
    wanted = mirror(target, tmp_path)

    config = prepare(wanted, None, {"TARGET_PASSWORD": "s3cret-t"})

    options = config.connections["target"].options
    password = options.password if target.startswith("postgres") else options.auth.password  # type: ignore[attr-defined]
    assert password.get_secret_value() == "s3cret-t"
    text = wanted.config_path.read_text()
    assert "s3cret-t" not in text
    assert "COUCHDB_PASSWORD and TARGET_PASSWORD in the environment" in text


def test_other_places_for_postgresql_s_password_serve_where_ours_is_not_set(tmp_path):
    config = prepare(mirror("postgresql://me@db/reports", tmp_path), None, {"PGPASSWORD": "x"})

    assert config.connections["target"].options.password is None  # type: ignore[attr-defined]


def test_a_folder_with_a_long_path_has_its_socket_elsewhere(tmp_path):
    wanted = mirror(f"jsonl:{tmp_path}", tmp_path / ("x" * 120))

    config = prepare(wanted, None, {})

    assert config.daemon.admin.path.parent != wanted.folder


def test_write_config_overwrites_nothing_and_is_not_public(tmp_path):
    wanted = mirror(f"jsonl:{tmp_path}", tmp_path)
    prepare(wanted, None, {})
    path = tmp_path / "mine.yaml"

    write_config(wanted, path)

    assert yaml.safe_load(path.read_text())["pillows"]["org_cases"]
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(CommandError, match=r"mine.yaml exists already. Remedy: remove it"):
        write_config(wanted, path)


@pytest.mark.parametrize(
    ("url", "target", "named"),
    [
        (URL, "jsonl:lines", ["COUCHDB_PASSWORD"]),
        (URL, "postgresql://me:pw@db/reports", ["COUCHDB_PASSWORD", "TARGET_PASSWORD"]),
        ("http://couch.example/cases", "jsonl:lines", []),
    ],
)
def test_a_password_that_others_can_see_is_warned_of_once_without_showing_it(
    url, target, named, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    arguments = [url, target, "--columns", "none", "--write-config", "-"]
    done = CliRunner().invoke(command.mirror, arguments, standalone_mode=False)

    assert (done.exception, len(done.stderr.splitlines())) == (None, 1 if named else 0)
    assert [name for name in ("COUCHDB_PASSWORD", "TARGET_PASSWORD") if f"${name}" in done.stderr] == named
    assert "s3cret" not in done.stderr


@pytest.mark.parametrize(("workers", "found"), [("0", 0), ("2", 2), ("auto", "auto")])
def test_workers_are_those_of_the_pillow(workers, found, tmp_path):
    wanted = parse_mirror(URL, f"jsonl:{tmp_path}", name=None, state_dir=tmp_path, workers=workers)
    assert prepare(wanted, None, {}).pillows["org_cases"].load.workers == found


@pytest.mark.parametrize("workers", ["65", "-1", "many", "1.5", ""])
def test_what_is_no_number_of_workers_is_refused(workers, tmp_path):
    with pytest.raises(ConfigError, match="use a number up to 64, or auto"):
        parse_mirror(URL, f"jsonl:{tmp_path}", name=None, state_dir=tmp_path, workers=workers)

"""The description of the API: every operation has its handler, and nothing else is one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon.http import contract
from daemon.http.contract import load_contract, parse_contract, resolve
from daemon.http.handlers import ContractError, find_all_handlers, find_handler

FILE = Path(contract.__file__).with_name("openapi.yaml")


def document(**operation: Any) -> dict[str, Any]:
    given = {"operationId": "get_livez", "tags": ["health"], "x-listener": "read", "responses": {"200": {}}}
    return {"paths": {"/x": {"get": {**given, **operation}}}}


def test_each_operation_has_a_handler() -> None:
    assert set(find_all_handlers(load_contract())) == set(load_contract().operations)


def test_every_reference_in_the_document_leads_somewhere() -> None:
    document = load_contract().document
    assert resolve(document, document)["openapi"] == "3.1.0"


def test_an_operation_without_a_handler_is_refused() -> None:
    broken = yaml.safe_load(FILE.read_text())
    broken["paths"]["/livez"]["get"]["operationId"] = "get_livezz"
    with pytest.raises(
        ContractError, match=r"health.get_livez is in `routes/` only; health.get_livezz is in"
    ):
        find_all_handlers(parse_contract(broken))
    with pytest.raises(ContractError, match="no function of that name"):
        find_handler("get_livezz", "health")
    with pytest.raises(ContractError, match="needs a module"):
        find_handler("get_livez", "nothing")


@pytest.mark.parametrize("name", ["operationId", "tags", "x-listener", "responses"])
def test_an_operation_says_what_is_needed_of_it(name: str) -> None:
    incomplete = document()
    del incomplete["paths"]["/x"]["get"][name]
    with pytest.raises(ValueError, match="needs operationId, one tag, x-listener read or admin"):
        parse_contract(incomplete)


def test_two_operations_of_one_name_are_refused() -> None:
    twice = document()
    twice["paths"]["/y"] = twice["paths"]["/x"]
    with pytest.raises(ValueError, match="two operations are called get_livez"):
        parse_contract(twice)


def test_answers_of_the_server_itself_are_in_the_document() -> None:
    read = parse_contract(document()).document["paths"]["/x"]["get"]["responses"]
    admin = parse_contract(document(**{"x-listener": "admin"})).document["paths"]["/x"]["get"]["responses"]
    assert set(read) == {"200", "400"}
    assert set(admin) == {"200", "400", "401", "403", "429"}


def test_flask_is_not_imported_before_a_request_needs_it() -> None:
    code = (
        "import daemon.app, daemon.cli.main, daemon.http.short_way, daemon.http.server.server, sys\n"
        "from daemon.http.contract import load_contract\n"
        "from daemon.http.handlers import find_all_handlers\n"
        "find_all_handlers(load_contract())\n"
        "print('flask' in sys.modules, 'werkzeug' in sys.modules)"
    )
    import subprocess

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"

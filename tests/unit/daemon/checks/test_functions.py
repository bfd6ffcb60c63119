"""Python functions are imported by `check` only."""

from __future__ import annotations

from daemon.checks.functions import check_functions
from tests.support.configuration import GOOD


def test_python_functions_are_imported_by_check_only(config, tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "acme_rows.py").write_text("def rows(document):\n    return document\n")
    (tmp_path / "plugins" / "acme_broken.py").write_text("raise RuntimeError('boom')\n")
    text = GOOD.replace("  shutdown_timeout: 30s", "  plugins_path: [plugins]")
    text = text.replace("{ jmespath: \"doc.doc_type == 'Case'\" }", "{ python: acme_broken:keep }")
    text += "    transform: { python: acme_rows:row }\n"
    wrong, similar = check_functions(config(text))
    assert (wrong.place.line, wrong.key) == (17, "pillows.cases.filter.python")
    assert "RuntimeError: boom" in wrong.message
    assert (similar.place.line, similar.key) == (20, "pillows.cases.transform.python")
    assert similar.remedy == "did you mean `acme_rows:rows`?"
    assert check_functions(config(text + "    enabled: false\n")) == []
    right = text.replace("acme_broken:keep", "acme_rows:rows").replace("rows:row }", "rows:rows }")
    assert check_functions(config(right)) == []

"""Transports on real servers. The conformance suite's own asserts tell what they compared."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.conformance")

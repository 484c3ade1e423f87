"""Fixtures of all tests."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="session")
def qemu() -> Any:
    """A real QEMU by version and target: ``qemu("7.2", "x86_64")`` gives a path."""
    import qemus

    return qemus.qemu_path

"""No store is attached before or after a widget test."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def attached_stores(monkeypatch):
    """The stores of this test alone."""
    from kern_nb import store_registry

    monkeypatch.setattr(store_registry, "_stores", {})
    monkeypatch.setattr(store_registry, "_in_use", None)
    yield store_registry
    for name in store_registry.names():
        store_registry.detach(name)

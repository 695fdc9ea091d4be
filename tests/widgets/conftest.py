"""No store is attached before or after a widget test."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def attached_stores(monkeypatch):
    """The stores of this test alone."""
    from kern_nb import store_registry

    here = store_registry.StoreRegistry()
    monkeypatch.setattr(store_registry, "_registry", here)
    yield here
    for name in here.names():
        here.detach(name)

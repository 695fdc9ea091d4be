"""Which modules are importers: those of kern_nb are discovered by where they lie."""

from __future__ import annotations

import pkgutil
import sys
from types import ModuleType

import pytest

from kern_nb.ingest import importers, registry
from kern_nb.ingest.importer import Importer


@pytest.fixture
def load():
    """`load_importers` without its cache, before and after."""
    registry.load_importers.cache_clear()
    yield registry.load_importers
    registry.load_importers.cache_clear()


def test_each_module_and_package_of_importers_is_the_format_of_its_name(load):
    """What importers share lies elsewhere, so that a format is found by its name."""
    modules = {module.name for module in pkgutil.iter_modules(importers.__path__)}
    own = {
        name: type(importer).__module__
        for name, importer in load().items()
        if type(importer).__module__.startswith(f"{importers.__name__}.")
    }

    assert own.keys() == modules
    assert all(module.removeprefix(f"{importers.__name__}.").partition(".")[0] == name for name, module in own.items())


def test_the_importer_of_a_package_may_be_in_a_module_of_it(load, monkeypatch):
    """A class that a module merely imports is none of its own."""
    kind = type("Diary", (Importer,), {"name": "diary", "recognizes": lambda *_: False, "read": lambda *_: iter(())})
    kind.__module__ = f"{importers.__name__}.diary.reader"
    for name, members in (("diary", {"Diary": kind}), ("diaryland", {"Diary": kind, "Importer": Importer})):
        module = ModuleType(f"{importers.__name__}.{name}")
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    infos = [pkgutil.ModuleInfo(None, name, ispkg=True) for name in ("diary", "diaryland")]
    monkeypatch.setattr(registry.pkgutil, "iter_modules", lambda _: infos)

    assert [type(importer) for name, importer in load().items() if name == "diary"] == [kind]
    kinds = [registry._is_importer(kind, f"{importers.__name__}.{name}") for name in ("diary", "diaryland")]
    assert kinds == [True, False]

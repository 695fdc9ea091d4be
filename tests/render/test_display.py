"""The view names of classes resolve to functions."""

from __future__ import annotations

from importlib import import_module

import pytest

from kern_nb import ingest_report, records
from kern_nb.analysis import compare, digest, groups
from kern_nb.analysis.compare import pairs
from kern_nb.analysis.costs import report as costs
from kern_nb.db import integrity
from kern_nb.display import DisplayMixin
from kern_nb.ingest import format_table, local_sessions
from kern_nb.operations import summarize
from kern_nb.operations.rerun import result

MODULES = (
    *(records, compare, pairs, digest, groups, costs, integrity),
    *(ingest_report, format_table, local_sessions, summarize, result),
)


def test_the_modules_above_define_every_class_with_a_view() -> None:
    assert {kind.__module__ for kind in DisplayMixin.__subclasses__()} == {module.__name__ for module in MODULES}


@pytest.mark.parametrize("kind", DisplayMixin.__subclasses__(), ids=lambda kind: kind.__name__)
def test_a_class_names_functions_of_its_view(kind: type[DisplayMixin]) -> None:
    module, _, prefix = kind._view.partition(":")
    view = import_module(module)

    assert callable(getattr(view, f"{prefix}_html"))
    assert kind.__repr__ is not DisplayMixin.__repr__ or callable(getattr(view, f"{prefix}_text"))

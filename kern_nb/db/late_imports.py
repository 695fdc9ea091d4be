"""The only imports of `kern_nb.db` from a layer above it: `kern_nb.ingest`, when a store's method needs it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kern_nb.ingest.progress import Progress
    from kern_nb.ingest.report import IngestReport as IngestReport  # noqa: PLC0414 - exported to `store`


def ingest(*args: Any, **options: Any) -> IngestReport:
    """Call `kern_nb.ingest.ingest`."""
    report: IngestReport = importlib.import_module("kern_nb.ingest").ingest(*args, **options)
    return report


def progress_bar(total: int, *, shown: bool, what: str) -> Progress:
    """A `kern_nb.ingest.progress.Progress`."""
    bar: Progress = importlib.import_module("kern_nb.ingest.progress").Progress(total, shown=shown, what=what)
    return bar

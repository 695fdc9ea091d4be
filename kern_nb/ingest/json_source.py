"""The former name of `source`: remove when no importer imports it."""

from kern_nb.ingest.source import Source, Value

__all__ = ["Source", "Value"]

"""The formats that an import reads, as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kern_nb.display import DisplayMixin
from kern_nb.ingest.registry import load_importers

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class FormatInfo:
    """A format.

    Attributes:
        name: Its name, for ``format=`` and ``--format``.
        reads: What its importer reads.
        locations: Where such files lie by default, as a user would write it.
    """

    name: str
    reads: str
    locations: tuple[str, ...]


class FormatTable(DisplayMixin, tuple[FormatInfo, ...]):
    """The formats as a table."""

    __slots__ = ()
    _view: ClassVar[str] = "kern_nb.views.formats:formats"

    @property
    def df(self) -> pd.DataFrame:
        """One row a format: name, reads, locations."""
        import pandas as pd

        rows = [(info.name, info.reads, "; ".join(info.locations)) for info in self]
        return pd.DataFrame(rows, columns=["name", "reads", "locations"], dtype="string")


def formats() -> FormatTable:
    """Return the formats that can be imported, in the order in which they are tried, with the places of such files.

    Example:
        >>> from kern_nb import formats
        >>> [info.reads for info in formats() if info.name == "codex"]
        ['sessions of the Codex CLI']
    """
    infos = []
    for name, importer in load_importers().items():
        places = []
        for location in importer.locations:
            override = f" (${location.variable} replaces {location.folder})" if location.variable else ""
            places.append(f"{location.folder.removesuffix('/')}/{location.pattern}{override}")
        infos.append(FormatInfo(name, importer.reads, tuple(places)))
    return FormatTable(infos)

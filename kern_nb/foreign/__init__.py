"""Other programs' databases, read in place: `open_in_place` recognizes one by its columns and opens it read-only.

A `ForeignStore` reads all sessions with the importer of the program into memory, where frames, SQL, transcripts,
comparisons and the browser work on them as on any store. Nothing is ever written to the database itself.
"""

from kern_nb.foreign.open import open_in_place
from kern_nb.foreign.store import ForeignStore

__all__ = ["ForeignStore", "open_in_place"]

"""What is done with sessions from the session browser, each with the line that would have done it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Literal

from kern_nb import store_registry
from kern_nb.db.references import Reference
from kern_nb.errors import BadUsage
from kern_nb.text import formatting
from kern_nb.views import session_list
from kern_nb.widgets.base import Widget, id_of, key_of
from kern_nb.widgets.browser import session_metrics
from kern_nb.widgets.rpc import call

_LONGEST_NAME = 80
FRAMES = ("sessions", "runs", "messages", "tool_calls", "scores")


class Acting(Widget):
    """A widget from which sessions are branched, renamed, tagged, compared, summarized, exported and loaded.

    Attributes:
        result: What the last action gave: a `Session`, a `Comparison`, a `Digest`, an `Export`.
    """

    result: Any

    @call
    def branch(self, key: str, run_index: int | None, message_index: int | None, name: str) -> dict[str, Any]:
        """A branch at the end of a session, after a run of it, or after a message."""
        session_id, name = id_of(key), name.strip()
        after: Any = run_index if message_index is None or run_index is None else (run_index, message_index)
        made = self.store.branch(session_id, after=after, name=name or None, new_session_id=name or None)
        self.result = made
        named = ["--as", name] if name else []
        line = self.line("branch", str(Reference(session_id, run_index, message_index)), *named)
        return {"key": key_of(made.session_id), "name": formatting.truncate(made.session_id, 60), "line": line}

    @call
    def rename(self, key: str, name: str) -> dict[str, Any]:
        """Another title."""
        session_id, name = id_of(key), name.strip()
        if not name:
            raise BadUsage("The title is empty.", "Write one, or cancel.")
        self.result = self.store.rename_session(session_id, name)
        return {"line": self.line("rename", session_id, name)}

    @call
    def tag(self, key: str, tags: str) -> dict[str, Any]:
        """Other tags, with commas between them."""
        session_id = id_of(key)
        given = [tag for tag in (one.strip().removeprefix("#").strip() for one in tags.split(",")) if tag]
        self.result = self.store.tag_session(session_id, given)
        return {"line": self.line("tag", session_id, *given)}

    @call(slow=True)
    def compare(self, keys: list[str]) -> dict[str, Any]:
        """Two or more sessions beside each other, the first as the baseline."""
        from kern_nb.analysis.compare import compare

        ids = _some(keys)
        self.result = compare(*((one, self.store) for one in ids))
        return {"rendered": self.result._repr_html_(), "line": self.line("compare", *ids)}

    @call(slow=True)
    def summarize(self, keys: list[str]) -> dict[str, Any]:
        """A digest of one session or several, computed without a model."""
        from kern_nb.operations.summarize import summarize

        ids = _some(keys)
        self.result = summarize(*ids, store=self.store)
        return {"rendered": self.result._repr_html_(), "line": self.line("summarize", *ids)}

    @call(slow=True)
    def export(self, keys: list[str], kind: Literal["bundle", "page"]) -> dict[str, str]:
        """The sessions in a new file beside the notebook: to be imported elsewhere, or to be read."""
        from kern_nb.operations.export import export

        ids = _some(keys)
        self.result = export(*ids, path=_new_file(ids, {"bundle": ".json", "page": ".html"}[kind]), store=self.store)
        return {"said": formatting.escape_controls(repr(self.result)), "line": self.line(*self.result.words)}

    @call(slow=True)
    def metrics(self, keys: list[str]) -> dict[str, str]:
        """What each of the sessions took, as a table."""
        return {"rendered": session_list.metrics_html(self.store.sessions_df(_some(keys)))}

    @call(slow=True)
    def plot(self, keys: list[str], kind: session_metrics.Kind) -> dict[str, Any]:
        """A plot of the sessions, as a picture; as a table where nothing draws."""
        ids = _some(keys)
        drawn = session_metrics.plot(self.store, ids, kind)
        line = self.line("plot", ids[0], "--kind", kind) if len(ids) == 1 else None
        return {**drawn, "line": line}

    @call
    def cell(self, keys: list[str], frame: str) -> dict[str, str]:
        """The text of a cell that loads a frame of the sessions."""
        if frame not in FRAMES:
            raise BadUsage(f"There is no frame {frame!r}.", f"There are {', '.join(FRAMES)}.")
        ids = _some(keys)
        if len(ids) == 1:
            return {"line": f"df = {self.line('load', frame, '--session', ids[0])}"}
        module, store = "kern_nb", "kern_nb.current_store()"
        if not self.is_in_use:
            module, store = (
                "kern_nb.store_registry",
                f"kern_nb.store_registry.find({store_registry.name_of(self.store)!r})",
            )
        return {"line": formatting.escape_controls(f"import {module}\ndf = {store}.{frame}_df({ids!r})")}


def _new_file(ids: Sequence[str], suffix: str) -> str:
    """A file's name that is not taken yet, after the session."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", ids[0])[:_LONGEST_NAME].strip(".-") if len(ids) == 1 else ""
    stem = stem or "sessions"
    names = (f"{stem}{'' if n == 1 else f'-{n}'}{suffix}" for n in count(1))
    return next(name for name in names if not Path(name).exists())


def _some(keys: Iterable[str]) -> list[str]:
    ids = list(dict.fromkeys(id_of(key) for key in keys))
    if not ids:
        raise BadUsage("No session is selected.", "Tick some in the list, or open one.")
    return ids

"""Actions on sessions in the session browser, each with the equivalent command."""

from __future__ import annotations

import base64
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
from kern_nb.widgets.base import Widget, decode_key, encode_key
from kern_nb.widgets.rpc import call

FRAMES = ("sessions", "runs", "messages", "tool_calls", "scores")


class SessionActions(Widget):
    """A widget that branches, renames, tags, compares, summarizes, exports and loads sessions."""

    result: Any

    @call
    def branch(self, key: str, run_index: int | None, message_index: int | None, name: str) -> dict[str, Any]:
        """Branch at the end of a session, after one of its runs, or after a message."""
        reference, name = Reference(decode_key(key), run_index, message_index), name.strip()
        self.result = session = self.store.branch(
            reference.session_id, after=reference.branch_point, name=name or None, new_session_id=name or None
        )
        line = self.line("branch", str(reference), *(["--as", name] if name else []))
        branch_name = formatting.truncate(session.session_id, 60)
        return {"key": encode_key(session.session_id), "name": branch_name, "line": line}

    @call
    def rename(self, key: str, name: str) -> dict[str, Any]:
        """Set the title of a session."""
        session_id, name = decode_key(key), name.strip()
        if not name:
            raise BadUsage("The title must not be empty.", "Enter a title, or cancel.")
        self.result = self.store.rename_session(session_id, name)
        return {"line": self.line("rename", session_id, name)}

    @call
    def tag(self, key: str, tags: str) -> dict[str, Any]:
        """Set the tags of a session, separated by commas."""
        session_id = decode_key(key)
        names = [name for name in (tag.strip().removeprefix("#").strip() for tag in tags.split(",")) if name]
        self.result = self.store.tag_session(session_id, names)
        return {"line": self.line("tag", session_id, *names)}

    @call(slow=True)
    def compare(self, keys: list[str]) -> dict[str, Any]:
        """Compare two or more sessions; the first is the baseline."""
        from kern_nb.analysis.compare import compare

        ids = _decode_keys(keys)
        self.result = compare(*((session_id, self.store) for session_id in ids))
        return {"rendered": self.result._repr_html_(), "line": self.line("compare", *ids)}

    @call(slow=True)
    def summarize(self, keys: list[str]) -> dict[str, Any]:
        """Compute a digest of the sessions, without a model."""
        from kern_nb.operations.summarize import summarize

        ids = _decode_keys(keys)
        self.result = summarize(*ids, store=self.store)
        return {"rendered": self.result._repr_html_(), "line": self.line("summarize", *ids)}

    @call(slow=True)
    def export(self, keys: list[str], kind: Literal["bundle", "page"]) -> dict[str, str]:
        """Export the sessions to a new file next to the notebook, as a bundle or a page."""
        from kern_nb.operations.export import export

        ids = _decode_keys(keys)
        self.result = export(*ids, path=_new_path(ids, {"bundle": ".json", "page": ".html"}[kind]), store=self.store)
        return {"said": formatting.escape_controls(repr(self.result)), "line": self.line(*self.result.words)}

    @call(slow=True)
    def metrics(self, keys: list[str]) -> dict[str, str]:
        """Render the metrics of the sessions as a table."""
        return {"rendered": session_list.metrics_html(self.store.sessions_df(_decode_keys(keys)))}

    @call(slow=True)
    def plot(self, keys: list[str], kind: Literal["runs", "tools"]) -> dict[str, Any]:
        """Draw a plot: ``source`` and ``alt`` of an image, or ``rendered``, a table, if plots cannot be drawn."""
        from kern_nb.analysis import plots

        ids = _decode_keys(keys)
        is_single = len(ids) == 1
        sessions = ids[0] if is_single else ids
        if kind == "runs":
            figure = plots.over_runs(self.store.runs_df(sessions, lineage=is_single))
        else:
            figure = plots.tool_use(self.store.tool_calls_df(sessions, lineage=is_single))
        line = self.line("plot", ids[0], "--kind", kind) if is_single else None
        data, metadata = figure._repr_mimebundle_()
        image = data.get("image/png")
        if image is None:
            return {"rendered": data["text/html"], "line": line}
        encoded = image if isinstance(image, str) else base64.b64encode(image).decode()
        alt = metadata.get("image/png", {}).get("alt") or formatting.truncate(figure.title, 200)
        return {"source": f"data:image/png;base64,{encoded}", "alt": alt, "line": line}

    @call
    def cell(self, keys: list[str], frame: str) -> dict[str, str]:
        """Return the text of a cell that loads a frame of the sessions."""
        if frame not in FRAMES:
            raise BadUsage(f"Unknown frame {frame!r}.", f"Frames: {', '.join(FRAMES)}.")
        ids = _decode_keys(keys)
        if len(ids) == 1:
            return {"line": f"df = {self.line('load', frame, '--session', ids[0])}"}
        module, store = "kern_nb", "kern_nb.current_store()"
        if not self.is_in_use:
            module = "kern_nb.store_registry"
            store = f"kern_nb.store_registry.find({store_registry.name_of(self.store)!r})"
        return {"line": formatting.escape_controls(f"import {module}\ndf = {store}.{frame}_df({ids!r})")}


def _new_path(ids: Sequence[str], suffix: str) -> str:
    """Return a path that does not exist yet, named after the session."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", ids[0])[:80].strip(".-") if len(ids) == 1 else ""
    stem = stem or "sessions"
    names = (f"{stem}{'' if n == 1 else f'-{n}'}{suffix}" for n in count(1))
    return next(name for name in names if not Path(name).exists())


def _decode_keys(keys: Iterable[str]) -> list[str]:
    ids = list(dict.fromkeys(decode_key(key) for key in keys))
    if not ids:
        raise BadUsage("No session is selected.", "Select sessions in the list, or open one.")
    return ids

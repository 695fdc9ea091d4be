"""`browse`: the sessions of a store, found, read, branched and compared by mouse or keyboard.

The list is asked for in parts as it is scrolled; what its rows say without reading messages comes first, totals after.
What is shown of a session is in `transcripts`, `family` and `insights`. Nothing here knows SQL or markup.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, get_args

from kern_nb import attached
from kern_nb.db.listing import ORDERS, Narrowing, Order
from kern_nb.errors import BadUsage, SessionNotFound
from kern_nb.records import RunStatus
from kern_nb.render import browsing, plain
from kern_nb.widgets import family, insights, listed, media, transcripts
from kern_nb.widgets.base import Widget, id_of, key_of
from kern_nb.widgets.calls import call

if TYPE_CHECKING:
    import pandas as pd

    from kern_nb.db import SessionStore
    from kern_nb.records import Session

STATUSES = get_args(RunStatus)
FRAMES = ("sessions", "runs", "messages", "tool_calls", "scores")

MOST_ROWS = 200
"""So many rows of the list are given at once."""

MOST_CHOSEN = 1_000
"""So many sessions may be selected."""


def browse(
    store: str | SessionStore | None = None,
    *,
    text: str | None = None,
    agent: str | None = None,
    user: str | None = None,
    status: RunStatus | None = None,
    order: Order = "created",
    descending: bool = True,
) -> SessionBrowser:
    """Look through the sessions of a store: filter, sort, read, branch, compare, summarize, rename and tag them.

    Args:
        store: A store or the name of one; the one in use where None.
        text: Only sessions with this in their title or id, in any case; ``#refund``: with the tag "refund".
        agent: Only those with this in the id of their agent, team or workflow.
        user: Only those with this in the id of their user.
        status: Only those whose latest run has this status.
        order: created, updated, title, session (the id), owner or user.
        descending: Whether the last comes first.

    Returns:
        A widget. What is selected in it is at hand as ``.selected``, ``.df()`` and ``.sql``.
    """
    return SessionBrowser(store, narrowing_of(text, agent, user, status), order=order, descending=descending)


def narrowing_of(text: str | None, agent: str | None, user: str | None, status: str | None) -> Narrowing:
    """What the fields of the filter say; empty ones say nothing, and ``#`` begins a tag.

    Raises:
        BadUsage: there is no such status.
    """
    if status and status not in STATUSES:
        raise BadUsage(f"There is no status {status!r}.", f"There are {', '.join(STATUSES)}.")
    text = (text or "").strip()
    tag = text[1:].strip() if text.startswith("#") else ""
    return Narrowing(
        text=None if tag or text == "#" else text or None,
        tag=tag or None,
        owner=(agent or "").strip() or None,
        user=(user or "").strip() or None,
        status=status or None,
    )


class SessionBrowser(Widget, script="browser"):
    """The sessions of a store, to look through.

    Args:
        store: A store or the name of one; the one in use where None.
        narrowing: Which sessions are listed at first.
        order: What they are ordered by.
        descending: Whether the last comes first.

    Attributes:
        narrowing: Which sessions are listed now.
        order: What they are ordered by now.
        descending: Whether the last comes first.
        place: What was clicked last, as ``chat`` or ``chat/2.5``; None before that.
        result: What the last action gave: a `Session`, a `Comparison`, a `Digest`.
    """

    def __init__(
        self,
        store: str | SessionStore | None = None,
        narrowing: Narrowing | None = None,
        *,
        order: Order = "created",
        descending: bool = True,
    ) -> None:
        if order not in ORDERS:
            raise BadUsage(f"Sessions have no order {order!r}.", f"There are {', '.join(ORDERS)}.")
        self.narrowing = narrowing or Narrowing()
        self.order: Order = order
        self.descending = descending
        self.place: str | None = None
        self.result: Any = None
        self._chosen: list[str] = []
        self._shown: str | None = None
        self._total: int | None = None
        self._first = 0
        super().__init__(store)

    # At hand in Python ------------------------------------------------------------------------------------------------

    @property
    def selected(self) -> list[str]:
        """The ids of the sessions that are ticked; where none is, of the one that is shown."""
        return list(self._chosen) or ([] if self._shown is None else [self._shown])

    def df(self) -> pd.DataFrame:
        """The sessions that are selected, or else all that are listed, as ``store.sessions_df`` has them."""
        if not self.selected and not self.narrowing:
            return self.store.sessions_df()
        return self.store.sessions_df(self.selected or self._listed())

    @property
    def sql(self) -> str:
        """The same as a query: ``store.sql(browser.sql, browser.params)``."""
        return self._query()[0]

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of `sql`."""
        return self._query()[1]

    def _query(self) -> tuple[str, dict[str, Any]]:
        ids = self.selected or (self._listed() if self.narrowing.tag is not None else None)
        return listed.query(self.narrowing, ids, self.order, descending=self.descending)

    def _listed(self) -> list[str]:
        return self.store.find_sessions(self.narrowing, limit=None)

    def __repr__(self) -> str:
        """How many sessions are listed and selected."""
        shown = "" if self._total is None else f", {plain.plural(self._total, 'session')}"
        chosen = f", {len(self._chosen):,} selected" if self._chosen else ""
        return f"<SessionBrowser of {self.store.url}{shown}{chosen}>"

    def still(self) -> str:
        """The part of the list that was last on screen, what was shown of a session, and the last result."""
        ids = self._find(self._first, browsing.STILL_ROWS)
        session = None if self._shown is None else self.store.get_session(self._shown, runs=False)
        runs = [] if session is None else self.store.session_runs(session.session_id, limit=transcripts.RUNS)
        rows = [listed.cells(card) for card in self.store.session_cards(ids)]
        first = (self._first, self._total or 0)
        return browsing.still(rows, first, session, runs, self.result, self._chosen)

    # The list ---------------------------------------------------------------------------------------------------------

    @call
    def start(self) -> dict[str, Any]:
        """What the script starts with."""
        self._total = None
        return {
            "store": plain.cut(self.store.url, 200),
            "read_only": self.store.read_only,
            "statuses": list(STATUSES),
            "orders": list(ORDERS),
            "filter": listed.fields(self.narrowing),
            "order": self.order,
            "descending": self.descending,
            "chosen": [key_of(one) for one in self._chosen],
            "shown": None if self._shown is None else key_of(self._shown),
            **self.rows(self._first, MOST_ROWS // 2),
        }

    @call
    def find(self, text: str, agent: str, user: str, status: str, order: str, descending: bool) -> dict[str, Any]:  # noqa: FBT001 - a call's arguments come by name
        """Another filter or order; the first rows of what fits."""
        narrowing = narrowing_of(text, agent, user, status)
        if order not in ORDERS:
            raise BadUsage(f"Sessions have no order {order!r}.", f"There are {', '.join(ORDERS)}.")
        self._total = self._total if narrowing == self.narrowing else None
        self.narrowing, self.order, self.descending = narrowing, order, descending  # type: ignore[assignment]
        self._first = 0
        return self.rows(0, MOST_ROWS // 2)

    @call
    def refresh(self) -> dict[str, Any]:
        """The list as it is now."""
        self._total = None
        return self.rows(self._first, MOST_ROWS // 2)

    @call
    def rows(self, offset: int, limit: int) -> dict[str, Any]:
        """Some rows of the list, wherever in it."""
        ids = self._find(max(0, offset), max(1, min(limit, MOST_ROWS)))
        cards = self.store.session_cards(ids)
        return {"offset": max(0, offset), "total": self._total, "rows": [listed.row(card) for card in cards]}

    def _find(self, offset: int, limit: int) -> list[str]:
        found = self.store.find_sessions(
            self.narrowing,
            order=self.order,
            descending=self.descending,
            offset=offset,
            limit=limit,
            total=self._total,
        )
        self._total = found.total
        return found

    @call
    def looked_at(self, offset: int) -> None:
        """Where the list was scrolled to: the still begins there."""
        self._first = max(0, offset)

    @call(slow=True)
    def totals(self, keys: list[str]) -> dict[str, str]:
        """What the sessions took, by key, in words."""
        ids = [id_of(key) for key in keys[:MOST_ROWS]]
        return {key_of(one): words for one, words in insights.totals(self.store, ids).items()}

    @call
    def choose(self, keys: list[str]) -> int:
        """Tick these sessions and no other."""
        if len(keys) > MOST_CHOSEN:
            raise BadUsage(f"{len(keys):,} sessions are too many to select.", "Filter them, and take browser.df().")
        self._chosen = list(dict.fromkeys(id_of(key) for key in keys))
        return len(self._chosen)

    # One session ------------------------------------------------------------------------------------------------------

    @call
    def show(self, key: str) -> dict[str, Any]:
        """A session: what is said of it, its family, and the beginning of its transcript."""
        session = self._session(id_of(key))
        self._shown = self.place = session.session_id
        relatives = self.store.session_family(session.session_id)
        return {
            "key": key_of(session.session_id),
            **listed.head(session),
            "line": self.line("show", session.session_id),
            "family": family.tree(relatives, session.session_id),
            "transcript": self._part(session, transcripts.Start()),
        }

    @call
    def hide(self) -> None:
        """No session is shown any more."""
        self._shown = self.place = None

    @call
    def more(self, key: str, run_index: int, place: int) -> dict[str, Any]:
        """The next part of a transcript."""
        return self._part(self._session(id_of(key)), transcripts.Start(run_index, place))

    def _part(self, session: Session, start: transcripts.Start) -> dict[str, Any]:
        runs = self.store.session_runs(session.session_id, start=start.run_index, limit=transcripts.RUNS)
        return transcripts.part(session, runs, start)

    @call
    def text(self, key: str, run_index: int, place: int, part: transcripts.Part, number: int) -> dict[str, Any]:
        """A text of the transcript in full."""
        session = self._session(id_of(key))
        return transcripts.whole(session, self._run(session, run_index), place, part, number)

    @call
    def picture(self, key: str, run_index: int, place: int, number: int, tool_call: int | None) -> dict[str, str]:
        """A picture of a message, or of the result of one of its calls."""
        session = self._session(id_of(key))
        content = transcripts.held(session, self._run(session, run_index), place, tool_call)
        return media.picture(content, number, self.store)

    @call
    def point(self, key: str, run_index: int | None, message_index: int | None) -> str:
        """Remember what was clicked; the reference to it."""
        self.place = reference(id_of(key), run_index, message_index)
        return plain.visible(self.place)

    def _session(self, session_id: str) -> Session:
        session = self.store.get_session(session_id, runs=False)
        if session is None:
            raise SessionNotFound(f"There is no session {session_id!r} any more.", "Refresh the list.")
        return session

    def _run(self, session: Session, run_index: int) -> Any:
        runs = self.store.session_runs(session.session_id, start=run_index, limit=1)
        if not runs:
            raise SessionNotFound(f"{session.session_id!r} has no run {run_index} any more.", "Refresh the list.")
        return runs[0]

    # What is done with them -------------------------------------------------------------------------------------------

    @call
    def branch(self, key: str, run_index: int | None, message_index: int | None, name: str) -> dict[str, Any]:
        """A branch at the end of a session, after a run of it, or after a message."""
        session_id, name = id_of(key), name.strip()
        after: Any = run_index if message_index is None or run_index is None else (run_index, message_index)
        made = self.store.branch(session_id, after=after, name=name or None, new_session_id=name or None)
        self.result = made
        named = ["--as", name] if name else []
        line = self.line("branch", reference(session_id, run_index, message_index), *named)
        return {"key": key_of(made.session_id), "name": plain.cut(made.session_id, 60), "line": line}

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
        from kern_nb.summarizing import summarize

        ids = _some(keys)
        self.result = summarize(*ids, store=self.store)
        return {"rendered": self.result._repr_html_(), "line": self.line("summarize", *ids)}

    @call(slow=True)
    def metrics(self, keys: list[str]) -> dict[str, str]:
        """What each of the sessions took, as a table."""
        return {"rendered": browsing.metrics_html(self.store.sessions_df(_some(keys)))}

    @call(slow=True)
    def plot(self, keys: list[str], kind: insights.Kind) -> dict[str, Any]:
        """A plot of the sessions, as a picture; as a table where nothing draws."""
        ids = _some(keys)
        drawn = insights.plot(self.store, ids, kind)
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
            module, store = "kern_nb.attached", f"kern_nb.attached.find({attached.name_of(self.store)!r})"
        return {"line": plain.visible(f"import {module}\ndf = {store}.{frame}_df({ids!r})")}


def reference(session_id: str, run_index: int | None = None, message_index: int | None = None) -> str:
    """A place as people write it: ``chat/2.5``."""
    if run_index is None:
        return session_id
    return f"{session_id}/{run_index}" + ("" if message_index is None else f".{message_index}")


def _some(keys: Iterable[str]) -> list[str]:
    ids = list(dict.fromkeys(id_of(key) for key in keys))
    if not ids:
        raise BadUsage("No session is selected.", "Tick some in the list, or open one.")
    return ids

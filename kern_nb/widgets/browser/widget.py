"""`browse`: the sessions of a store, found, read, branched and compared by mouse or keyboard.

The list is asked for in parts as it is scrolled; what its rows say without reading messages comes first, totals after.
What is shown of one session is in `shown`, what is done with some in `acting`. Nothing here knows SQL or markup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from kern_nb.db.session_search import ORDERS, Narrowing, Order
from kern_nb.errors import BadUsage, KernError
from kern_nb.records import RunStatus
from kern_nb.text import formatting
from kern_nb.views import session_list
from kern_nb.widgets import transcript_data
from kern_nb.widgets.base import id_of, key_of
from kern_nb.widgets.browser import session_metrics, session_rows
from kern_nb.widgets.browser.session_actions import Acting
from kern_nb.widgets.browser.session_detail import Shown
from kern_nb.widgets.rpc import call

if TYPE_CHECKING:
    import pandas as pd

    from kern_nb.db import SessionStore

STATUSES = get_args(RunStatus)

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
        order: created, updated, title, session (the id), owner, user, messages, tokens or cost.
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


class SessionBrowser(Shown, Acting, script="browser", parts=("texts", "sessions", "transcript", "branches")):
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
        return session_rows.query(self.narrowing, ids, self.order, descending=self.descending)

    def _listed(self) -> list[str]:
        return self.store.find_sessions(self.narrowing, limit=None)

    def __repr__(self) -> str:
        """How many sessions are listed and selected."""
        shown = "" if self._total is None else f", {formatting.pluralize(self._total, 'session')}"
        chosen = f", {len(self._chosen):,} selected" if self._chosen else ""
        return formatting.escape_controls(f"<SessionBrowser of {self.store.url}{shown}{chosen}>")

    def still(self) -> str:
        """The part of the list that was last on screen, what was shown of a session, and the last result."""
        ids = self._find(self._first, session_list.FALLBACK_ROWS)
        session = None if self._shown is None else self.store.get_session(self._shown, runs=False)
        runs = [] if session is None else self.store.session_runs(session.session_id, limit=transcript_data.RUNS)
        rows = [session_rows.cells(card) for card in self.store.session_cards(ids)]
        first = (self._first, self._total or 0)
        return session_list.fallback_html(rows, first, session, runs, self.result, self._chosen)

    # The list ---------------------------------------------------------------------------------------------------------

    @call
    def start(self) -> dict[str, Any]:
        """What the script starts with."""
        self._total = None
        return {
            "store": formatting.truncate(self.store.url, 200),
            "read_only": self.store.read_only,
            "statuses": list(STATUSES),
            "orders": list(ORDERS),
            "filter": session_rows.fields(self.narrowing),
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
        before = self.narrowing, self.order, self.descending, self._total, self._first
        self._total = self._total if narrowing == self.narrowing else None
        self.narrowing, self.order, self.descending = narrowing, order, descending  # type: ignore[assignment]
        self._first = 0
        try:
            return self.rows(0, MOST_ROWS // 2)
        except KernError:  # what is on the screen stays what is listed
            self.narrowing, self.order, self.descending, self._total, self._first = before
            raise

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
        rows = [session_rows.row(card) for card in cards]
        return {"offset": max(0, offset), "total": self._total, "order": self.order, "rows": rows}

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
    def totals(self, keys: list[str]) -> dict[str, dict[str, str]]:
        """What the sessions took, by key, in words; see `insights.totals`."""
        ids = [id_of(key) for key in keys[:MOST_ROWS]]
        return {key_of(one): words for one, words in session_metrics.totals(self.store, ids).items()}

    @call
    def choose(self, keys: list[str]) -> int:
        """Tick these sessions and no other."""
        if len(keys) > MOST_CHOSEN:
            raise BadUsage(f"{len(keys):,} sessions are too many to select.", "Filter them, and take browser.df().")
        self._chosen = list(dict.fromkeys(id_of(key) for key in keys))
        return len(self._chosen)

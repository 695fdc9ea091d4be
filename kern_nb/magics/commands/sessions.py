"""Verbs about sessions and their rows: sessions, load, show, branch, rename, tag; and `%%kern_sql`."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

import kern_nb
from kern_nb import store_registry
from kern_nb.errors import BadUsage
from kern_nb.magics.verb import FRAMES, STATUS, STORE, arg, choice, switch, verb

if TYPE_CHECKING:
    from kern_nb.db import SessionStore

_USER = arg("--user", "USER", "Only sessions of this user.")
_AGENT = arg("--agent", "AGENT", "Only sessions of this agent.", "agent_ids")
_SESSION = arg("ref", "REF", "The session: its id or a unique prefix of it.", "sessions")


def _load(args: Namespace) -> object:
    from kern_nb.operations import show

    filters = {name: getattr(args, name) for name in ("since", "until", "limit")}
    filters |= {"user_id": args.user, "agent_id": args.agent}
    filters |= {"columns": _split(args.columns), "expand": _split(args.expand)}
    return show.load(args.frame, args.session, store_registry.find(args.store), lineage=args.lineage, **filters)


def _split(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",")]


def _branch(args: Namespace) -> object:
    store = store_registry.find(args.store)
    reference = store.locate(args.ref)
    if args.before and reference.branch_point is None:
        raise BadUsage(
            f"--before needs a run or message, got session {reference}.",
            f"For example: %kern branch {reference}/0 --before",
        )
    point: dict[str, Any] = {"before" if args.before else "after": reference.branch_point}
    return store.branch(reference.session_id, **point, name=args.name, new_session_id=args.name)


def _rewind(args: Namespace) -> object:
    store = store_registry.find(args.store)
    reference = store.locate(args.ref)
    if reference.branch_point is None:
        raise BadUsage(
            f"REF must be a run or a message, got session {args.ref!r}.",
            f"For example: %kern rewind {reference}/0",
        )
    point: dict[str, Any] = {"before" if args.before else "after": reference.branch_point}
    return store.rewind_session(reference.session_id, **point, keep_as=args.keep_as)


def _rename(args: Namespace) -> object:
    store, session_id = _find_session(args)
    return store.rename_session(session_id, args.title)


def _tag(args: Namespace) -> object:
    store, session_id = _find_session(args)
    return store.tag_session(session_id, args.tag)


def _find_session(args: Namespace) -> tuple[SessionStore, str]:
    """Return the store and the id of the session that a line names; a run is refused."""
    store = store_registry.find(args.store)
    reference = store.locate(args.ref)
    if reference.run_index is not None:
        raise BadUsage(f"REF must be a session, got run {args.ref!r}.", f"Name its session: {reference.session_id}")
    return store, reference.session_id


VERBS = (
    verb(
        "sessions",
        "List the newest sessions.",
        lambda args: kern_nb.sessions(
            user_id=args.user, agent_id=args.agent, name=args.name, status=args.status, last=args.last, store=args.store
        ),
        _USER,
        _AGENT,
        arg("--last", "N", "The number of sessions; by default 50.", type=int, default=50),
        arg("--name", "PART", "Only sessions whose title contains this."),
        STATUS,
        STORE,
        example="%kern sessions --user alice --last 20",
        python='kern_nb.sessions(user_id="alice", last=20)',
        details="`.df` of the result is the DataFrame.",
    ),
    verb(
        "load",
        "Load sessions, runs, messages, tool calls or scores as a DataFrame.",
        _load,
        arg("frame", "|".join(FRAMES), "The rows to load.", "frames", type=choice("frame", FRAMES)),
        arg("--session", "REF", "Only this session: its id or a unique prefix of it.", "sessions"),
        _USER,
        _AGENT,
        arg("--since", "TIME", "Only rows created then or later; 2026-11-20 or 2026-11-20T14:30, in UTC."),
        arg("--until", "TIME", "Only rows created before then."),
        arg("--limit", "N", "At most this many rows.", type=int),
        arg("--columns", "A,B", "Only these columns, in this order; other totals are not computed.", "columns"),
        arg(
            "--expand",
            "PATH,PATH",
            "Values inside JSON as columns: metadata.task_id, state.step, args.city.",
            "json_paths",
        ),
        switch("--lineage", "With --session: include the rows that a branch inherits."),
        STORE,
        example="df = %kern load messages --session conversation_123 --since 2026-11-01",
        python='store.messages_df("conversation_123", since="2026-11-01")',
        details="docs/columns.md lists the columns and what can be expanded.",
    ),
    verb(
        "show",
        "Show the transcript of a session or a run.",
        lambda args: kern_nb.show(args.ref, store=args.store),
        arg(
            "ref",
            "REF",
            "`chat` is the session, `chat/2` its run 2 with its members' runs, `chat/2.5` run 2 from message 5 on.",
            "references",
        ),
        STORE,
        example="%kern show conversation_123/2",
        python='kern_nb.show("conversation_123/2")',
        details="`.messages` and `.tool_calls` of the result are DataFrames.",
    ),
    verb(
        "branch",
        "Branch a session at its end, or at a run or message of it. No row is copied.",
        _branch,
        arg(
            "ref",
            "REF",
            "`chat` is the end of the session, `chat/2` after run 2, `chat/2.5` after message 5 of it.",
            "references",
        ),
        arg("--as", "NAME", "The new session's id and title; by default a generated id.", dest="name"),
        switch("--before", "Branch before that run or message, not after it."),
        STORE,
        example="%kern branch conversation_123/0 --as what-if",
        python='store.branch("conversation_123", after=0, name="what-if", new_session_id="what-if")',
        details="The value is the new session. Nothing else changes; use its id to continue in it.",
    ),
    verb(
        "rewind",
        "Move the head of a session back to a run or message of it. What follows is kept as a session.",
        _rewind,
        arg("ref", "REF", "`chat/2` is after run 2, `chat/2.5` after message 5 of it.", "references"),
        arg("--keep-as", "NAME", "The id of the session with what follows; by default `chat~1`.", dest="keep_as"),
        switch("--before", "Rewind to before that run or message, not after it."),
        STORE,
        example="%kern rewind conversation_123/0",
        python='store.rewind_session("conversation_123", after=0)',
        details="The value is the session, which goes on from there. `%kern branch` leaves it as it is.",
    ),
    verb(
        "rename",
        "Change the title of a session.",
        _rename,
        _SESSION,
        arg("title", "TITLE", "The title; in quotes if it has spaces."),
        STORE,
        example='%kern rename conversation_123 "Broken mugs"',
        python='store.rename_session("conversation_123", "Broken mugs")',
    ),
    verb(
        "tag",
        "Replace the tags of a session.",
        _tag,
        _SESSION,
        arg("tag", "TAG", "The new tags; without any, all tags are removed.", nargs="*"),
        STORE,
        example='%kern tag conversation_123 refund "to do"',
        python='store.tag_session("conversation_123", ["refund", "to do"])',
        details="Tags are stored in the metadata, under `tags`. `%kern browse --text #refund` finds sessions by tag.",
    ),
)

SQL = verb(
    "kern_sql",
    f"Run a read-only SELECT over the views {', '.join((*FRAMES, 'requirements'))}.",
    lambda args: store_registry.find(args.store).sql(args.query, args.params),
    arg("--into", "NAME", "The variable to assign the DataFrame to; nothing is displayed then."),
    STORE,
    example="%%kern_sql --into tools\nSELECT tool_name, count(*) FROM tool_calls WHERE session_id = $chat GROUP BY 1",
    python='tools = store.sql("SELECT ... WHERE session_id = $chat ...", {"chat": chat})',
    details="The SQL is the rest of the cell, in the dialect of the store's engine. `$name` takes the value of the"
    " Python variable of that name as a parameter, never as text; a list or a column of a DataFrame goes after IN:"
    " `WHERE session_id IN $ids`. On one line: `df = %kern_sql SELECT ...`.",
    prefix="%%",
)

"""What each verb calls: the parsed line in, one public call, its value out."""

from __future__ import annotations

import getpass
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kern_nb import store_registry
from kern_nb.errors import BadUsage, RecordsNotFound

if TYPE_CHECKING:
    import pandas as pd

    from kern_nb.db import SessionStore
    from kern_nb.db.integrity import CheckReport
    from kern_nb.ingest.report import IngestReport
    from kern_nb.operations.export import Export
    from kern_nb.operations.inbox import Inbox
    from kern_nb.operations.resolve import Resolution
    from kern_nb.operations.show import SessionTable, Transcript
    from kern_nb.records import Run, Session
    from kern_nb.widgets.requirements.widget import InboxWidget


def attach(args: Namespace) -> None:
    """Open a store, name it, use it."""
    store_registry.attach(args.target, name=args.name, read_only=args.read_only, session_table=args.table)


def stores(_: Namespace) -> store_registry.StoreTable:
    """The attached stores."""
    return store_registry.stores()


def use(args: Namespace) -> None:
    """Make a store the one in use."""
    store_registry.use(args.name)


def detach(args: Namespace) -> None:
    """Close a store and forget it."""
    store_registry.detach(args.name)


def import_(args: Namespace) -> IngestReport:
    """Take in recorded sessions; all paths are looked for before any is read."""
    paths = [path for text in args.path for path in _found(text)]
    store = store_registry.find(args.store)
    first, *others = [store.ingest(path, format=args.format) for path in paths]
    return sum(others, first)


def export(args: Namespace) -> Export:
    """Sessions and runs, to a file."""
    from kern_nb.operations.export import export

    return export(*args.ref, path=args.path, everything=args.all, overwrite=args.force, store=args.store)


def _found(text: str) -> list[Path]:
    """The paths that a word of the line names."""
    path = Path(text).expanduser()
    if path.exists():
        return [path]
    found = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor)))) if set("*?[") & set(text) else []
    if not found:
        raise RecordsNotFound(f"There is no file or folder {text!r}.", f"Paths start at {Path.cwd()}.")
    return found


def sessions(args: Namespace) -> SessionTable:
    """The newest sessions."""
    from kern_nb.operations import show

    filters = {"user_id": args.user, "agent_id": args.agent, "name": args.name, "status": args.status}
    return show.sessions(**filters, last=args.last, store=args.store)


def load(args: Namespace) -> pd.DataFrame:
    """A frame of the store."""
    from kern_nb.operations import show

    filters = {name: getattr(args, name) for name in ("since", "until", "limit")}
    filters |= {"user_id": args.user, "agent_id": args.agent}
    filters |= {"columns": _listed(args.columns), "expand": _listed(args.expand)}
    return show.load(args.frame, args.session, store_registry.find(args.store), lineage=args.lineage, **filters)


def _listed(text: str | None) -> list[str] | None:
    """The words between commas."""
    return None if text is None else [word.strip() for word in text.split(",")]


def show(args: Namespace) -> Transcript:
    """A transcript."""
    from kern_nb.operations import show

    return show.show(args.ref, store=args.store)


def branch(args: Namespace) -> Session:
    """A new session that inherits another up to a place."""
    store = store_registry.find(args.store)
    start = store.locate(args.ref)
    if args.before and start.place is None:
        raise BadUsage(f"--before needs a run of {start}.", f"For example: %kern branch {start}/0 --before")
    place: dict[str, Any] = {"before" if args.before else "after": start.place}
    return store.branch(start.session_id, **place, name=args.name, new_session_id=args.name)


def rename(args: Namespace) -> Session:
    """Another title."""
    store, session_id = _session(args)
    return store.rename_session(session_id, args.title)


def tag(args: Namespace) -> Session:
    """Other tags."""
    store, session_id = _session(args)
    return store.tag_session(session_id, args.tag)


def _session(args: Namespace) -> tuple[SessionStore, str]:
    """The session that a line names, and its store.

    Raises:
        BadUsage: it names a run.
    """
    store = store_registry.find(args.store)
    place = store.locate(args.ref)
    if place.run_index is not None:
        raise BadUsage(f"{args.ref!r} is a run, not a session.", f"Name its session: {place.session_id}")
    return store, place.session_id


def run(args: Namespace) -> None:
    """The cell's text as an agent's input; the answer streams into the cell."""
    from kern_nb.operations import agent_registry

    agent_registry.find(args.agent).print_response(args.cell, session_id=args.session, user_id=args.user)


def inbox(args: Namespace) -> Inbox | InboxWidget:
    """What paused runs wait for."""
    from kern_nb.operations import inbox as found

    if args.widget:
        return _inbox_widget(args)
    filters = {"user_id": args.user, "assignee": args.assignee, "reference": args.session}
    return found.inbox(**filters, everything=args.all, store=args.store)


def _inbox_widget(args: Namespace) -> InboxWidget:
    from kern_nb.widgets.requirements.widget import inbox_widget

    if args.session or args.all:
        other = "--session" if args.session else "--all"
        raise BadUsage(f"The widget takes no {other}.", "It takes --user, --for and --store.")
    return inbox_widget(args.store, assignee=args.assignee, user_id=args.user)


def approve(args: Namespace) -> Resolution:
    """An approval."""
    from kern_nb.operations import resolve, value_parser

    edited = None if args.args is None else value_parser.parse_json_object(args.args, "--args")
    return resolve.approve(args.ref, args=edited, **_answerer(args))


def reject(args: Namespace) -> Resolution:
    """A refusal."""
    from kern_nb.operations import resolve

    return resolve.reject(args.ref, **_answerer(args))


def answer(args: Namespace) -> Resolution:
    """A value."""
    from kern_nb.operations import resolve

    return resolve.answer(args.ref, *args.value, **_answerer(args))


def handoff(args: Namespace) -> Resolution:
    """What waits, or a session, for a person."""
    from kern_nb.operations import resolve

    return resolve.handoff(args.ref, to=args.to, **_answerer(args))


def _answerer(args: Namespace) -> dict[str, Any]:
    return {"note": args.note, "by": _login() if args.by is None else args.by, "store": args.store}


def _login() -> str | None:
    """Who is logged in; None where the system does not say."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user without a name
        return None


def continue_(args: Namespace) -> Run:
    """A run, gone on with."""
    from kern_nb.operations import resume

    return resume.continue_run(args.ref, agent=args.agent, store=args.store)


def check(args: Namespace) -> CheckReport:
    """The store's health."""
    return store_registry.find(args.store).check(repair=args.repair)


def sql(args: Namespace) -> pd.DataFrame:
    """The result of a query."""
    return store_registry.find(args.store).sql(args.query, args.params)

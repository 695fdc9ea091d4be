"""Changes of what is stored of a run: it goes on, or a later state has a message in another form.

Each function works in one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db import mapping
from kern_nb.db.open_runs import update_run
from kern_nb.db.process_identity import current_process
from kern_nb.extra_keys import ORIGINAL_ARGS
from kern_nb.records import Message

if TYPE_CHECKING:
    from kern_nb.db.store import SessionStore


def reopen(connection: Connection, store: SessionStore, run_id: str) -> None:
    """Let a run that ended go on; an error is kept in ``extra``."""
    r = store.tables.runs
    row = connection.execute(sa.select(r.c.extra, r.c.error).where(r.c.run_id == run_id)).mappings().one()
    values: dict[str, Any] = {"status": "RUNNING", "process": current_process(), "finished_at": None, "error": None}
    if row["error"] is not None:
        extra = row["extra"] or {}
        values["extra"] = extra | {"errors": [*(extra.get("errors") or ()), row["error"]]}
    update_run(connection, store, run_id, **values)


def replace_message(connection: Connection, store: SessionStore, run_id: str, message: Message) -> None:
    """Replace a message of a run by its new form; what it said before is kept in ``extra``.

    A message of an earlier run stays as it was said: the run notes the new form.
    """
    m, t = store.tables.messages, store.tables.tool_calls
    is_message = (m.c.run_id == run_id) & (m.c.message_id == message.message_id)
    row = connection.execute(sa.select(m).where(is_message)).mappings().first()
    if row is None:
        r = store.tables.runs
        extra = dict(connection.execute(sa.select(r.c.extra).where(r.c.run_id == run_id)).scalar() or {})
        edited = {"message_id": message.message_id, "role": message.role, "content": message.content}
        extra["edited_messages"] = [*extra.get("edited_messages", ()), edited]
        update_run(connection, store, run_id, extra=extra)
        return
    old = mapping.message_from_row(row)
    extra = dict(message.extra)
    if old.content != message.content:
        extra["replaced_content"] = [*(old.extra.get("replaced_content") or ()), old.content]
    new = message.model_copy(update={"extra": extra, "created_at": old.created_at})
    values = mapping.message_row(new, run_id, row["session_id"], row["message_index"])
    connection.execute(m.update().where(is_message).values(**values))
    query = sa.select(t).where(t.c.run_id == run_id, t.c.message_index == row["message_index"])
    calls = {call["tool_call_id"]: call for call in connection.execute(query).mappings()}
    for call in message.tool_calls:
        stored = calls.get(call.tool_call_id or "")
        if stored is not None and stored["args"] != call.args:
            internal: dict[str, Any] = {ORIGINAL_ARGS: stored["args"]} | dict(stored["internal"] or {})
            is_call = (t.c.run_id == run_id) & (t.c.tool_call_id == call.tool_call_id)
            connection.execute(t.update().where(is_call).values(args=call.args, internal=internal))


def take_over(connection: Connection, store: SessionStore, run_id: str, messages: Sequence[Message]) -> None:
    """Delete the messages from the nested runs of a run that said them first: the run itself has them from now on."""
    r, m, t = store.tables.runs, store.tables.messages, store.tables.tool_calls
    ids = [message.message_id for message in messages if message.message_id is not None]
    session = sa.select(r.c.session_id).where(r.c.run_id == run_id).scalar_subquery()
    nested = sa.select(r.c.run_id).where(r.c.session_id == session, r.c.parent_run_id == run_id)
    run_ids = connection.execute(nested).scalars().all()
    if not run_ids or not ids:
        return
    said = m.c.run_id.in_(run_ids) & m.c.message_id.in_(ids)
    rows = connection.execute(sa.select(m.c.run_id, m.c.message_index).where(said)).all()
    for nested_id, index in rows:
        connection.execute(t.delete().where(t.c.run_id == nested_id, t.c.message_index == index))
    connection.execute(m.delete().where(said))

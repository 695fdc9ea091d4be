"""The keys of ``internal``: what kern_nb notes of a row for its own use.

``extra`` belongs to the source of a record: any key may stand there, and none has a meaning to kern_nb. What kern_nb
has to find again is a column (``from_history``, ``partial``) or a key of the ``internal`` column. Before schema
version 4 these marks stood in ``extra``; `upgrade_messages` and `upgrade_runs` move those of a store,
`upgrade_row` those of a record in an older bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from kern_nb.records import RESULT_ROLES

if TYPE_CHECKING:
    from kern_nb.db.schema import Tables

BY_TOOL = "by_tool"
"""Of a user message: a tool said it, beside its result."""

RETRY = "retry"
"""Of a user message: the framework asks the model to try again."""

FILES = "files"
"""Of a tool message: its content has files, stored by their hash."""

PARTS = "parts"
"""Of an answer: its parts as pydantic-ai dumps them, because the provider wants them back."""

RESPONSE_ID = "response_id"
"""Of an answer: the provider's id of it."""

UNKNOWN = "unknown"
"""Of a tool message: it does not end its call, whose effect is unknown."""

DURATION_S = "duration_s"
"""Of a tool message: the seconds that its call took."""

ARGS = "args"
"""Of a tool message: the arguments that its call ran with, where a person changed them."""

ASKED_ARGS = "asked_args"
"""Of a tool call that ran with other arguments: those that the model asked for."""

STATE_ARGUMENT = "given_state"
"""Of a run: the session state that its caller passed, which a rerun passes again."""

RERUN_OF = "rerun_of"
"""Of a run: the run that it repeats. The same key of a session's metadata names what was run again."""

STEP_PATH = "step_path"
"""Of the run of a workflow's step: the path of the step."""

TOOL_CALL_ID = "tool_call_id"
"""Of the run of a team's member: the leader's call that it answers."""

STATE_BEFORE = "state_before"
"""Of a session's first run: the session state it started from, which no earlier run holds."""

_OF_RUN = (STATE_ARGUMENT, RERUN_OF, STEP_PATH, TOOL_CALL_ID)
_ALONE = (BY_TOOL, RETRY)
_COPY, _FILES = '{"from_history": true', '{"files": true'
_PARTS = '{"parts": [{'


def run_internal(extra: Mapping[str, Any], given_state: dict[str, Any] | None = None) -> dict[str, Any]:
    """What kern_nb notes of a run that one of its agents makes, from what is shown of it in ``extra``."""
    noted = {key: extra[key] for key in _OF_RUN if key in extra}
    return noted | ({STATE_ARGUMENT: given_state} if given_state else {})


def upgrade_messages(connection: sa.Connection, messages: sa.Table) -> None:
    """Move the marks of a store of version 3 out of ``extra``.

    Only what kern_nb wrote is moved, known by its exact form: a message with other keys came from elsewhere.
    """
    extra = sa.type_coerce(messages.c.extra, sa.Text())

    def move(where: sa.ColumnElement[bool], rest: sa.ColumnElement[Any] | None = None, **values: Any) -> None:
        values["extra"] = sa.null() if rest is None else rest
        connection.execute(messages.update().where(where).values(**values))

    def rest_after(prefix: str) -> sa.ColumnElement[Any]:
        return sa.type_coerce(
            sa.literal("{", sa.Text()) + sa.func.substr(extra, len(prefix) + 3), messages.c.extra.type
        )

    move(extra == f"{_COPY}}}", from_history=True)
    calls = f'{_COPY}, "tool_calls": [{{"tool_name": '
    move(sa.func.substr(extra, 1, len(calls)) == calls, rest_after(_COPY), from_history=True)
    move((extra == '{"partial": true}') & (messages.c.role == "assistant"), partial=True)
    for key in _ALONE:
        move((extra == f'{{"{key}": true}}') & (messages.c.role == "user"), internal={key: True})
    of_tool = messages.c.role == "tool"
    move(of_tool & (extra == f"{_FILES}}}"), internal={FILES: True})
    move(
        of_tool & (sa.func.substr(extra, 1, len(_FILES) + 2) == f"{_FILES}, "),
        rest_after(_FILES),
        internal={FILES: True},
    )
    answers = (messages.c.role == "assistant") & (sa.func.substr(extra, 1, len(_PARTS)) == _PARTS)
    move(answers & extra.contains('"part_kind": "'), internal=messages.c.extra)


def upgrade_texts(connection: sa.Connection, tables: Tables) -> None:
    """Show lists of version 3 as the values they are: their text columns held what was taken for texts among them.

    What a tool returned is a value, whatever its shape; any other list, unless it begins like the parts of a content.
    """
    m = tables.messages

    def show(table: sa.Table, name: str, of_tool: sa.ColumnElement[bool]) -> None:
        value = sa.type_coerce(table.c[f"{name}_json"], sa.Text())
        is_list, is_record = sa.func.substr(value, 1, 1) == "[", sa.func.substr(value, 1, 2) == "[{"
        is_value = of_tool | ~is_record | ~value.contains('"type": "')
        connection.execute(table.update().where(is_list, is_value).values({name: value}))

    show(tables.tool_calls, "result", sa.true())
    show(m, "content", m.c.role.in_(RESULT_ROLES))
    show(tables.runs, "input", sa.false())
    show(tables.runs, "output", sa.false())


def upgrade_runs(connection: sa.Connection, runs: sa.Table) -> None:
    """Note the marks of runs of version 3 in ``internal``; imported runs had none."""
    extra = sa.type_coerce(runs.c.extra, sa.Text())
    marked = sa.or_(*(extra.contains(f'"{key}": ') for key in _OF_RUN))
    connection.execute(runs.update().where(marked, runs.c.source_hash.is_(None)).values(internal=runs.c.extra))


def upgrade_row(table: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of an older bundle, as this version stores it; see `upgrade_messages`."""
    new, extra = dict(row), row.get("extra")
    if not isinstance(extra, dict):
        return new
    role = row.get("role")
    rest: dict[str, Any] | None = None
    if table == "runs" and row.get("source_hash") is None and any(key in extra for key in _OF_RUN):
        new["internal"], rest = extra, extra
    elif table != "messages":
        return new
    elif extra.get("from_history") is True and extra.keys() <= {"from_history", "tool_calls"}:
        new["from_history"], rest = True, {key: value for key, value in extra.items() if key != "from_history"}
    elif extra == {"partial": True} and role == "assistant":
        new["partial"] = True
    elif role == "user" and any(extra == {key: True} for key in _ALONE):
        new["internal"] = extra
    elif role == "tool" and extra.get(FILES) is True:
        new["internal"], rest = {FILES: True}, {key: value for key, value in extra.items() if key != FILES}
    elif role == "assistant" and _are_parts(extra.get(PARTS)):
        new["internal"] = extra
    else:
        return new
    new["extra"] = rest or None
    return new


def _are_parts(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(isinstance(one, dict) and "part_kind" in one for one in value)
    )

"""Upgrades to schema version 4: move reserved keys from ``extra`` to ``internal`` or to columns.

`upgrade_messages`, `upgrade_texts` and `upgrade_runs` upgrade a store, `upgrade_row` a record of an older bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from kern_nb.extra_keys import BY_TOOL, FILES, PARTS, RETRY, RUN_KEYS
from kern_nb.records import RESULT_ROLES

if TYPE_CHECKING:
    from kern_nb.db.schema import Tables

_USER_MESSAGE_KEYS = (BY_TOOL, RETRY)
_COPY, _FILES = '{"from_history": true', '{"files": true'


def upgrade_messages(connection: sa.Connection, messages: sa.Table) -> None:
    """Move reserved keys of a store of version 3 out of ``extra``.

    Only values of the exact form that kern_nb wrote are moved: a message with other keys is from another source.
    """
    role, extra = messages.c.role, sa.type_coerce(messages.c.extra, sa.Text())

    def begins_with(text: str) -> sa.ColumnElement[bool]:
        return sa.func.substr(extra, 1, len(text)) == text

    def move(where: sa.ColumnElement[bool], *, prefix: str = "", **values: Any) -> None:
        """Set the values, and ``extra`` to what comes after the prefix."""
        rest = sa.literal("{", sa.Text()) + sa.func.substr(extra, len(prefix) + 3)
        values["extra"] = sa.type_coerce(rest, messages.c.extra.type) if prefix else sa.null()
        connection.execute(messages.update().where(where).values(**values))

    move(extra == f"{_COPY}}}", from_history=True)
    move(begins_with(f'{_COPY}, "tool_calls": [{{"tool_name": '), prefix=_COPY, from_history=True)
    move((extra == '{"partial": true}') & (role == "assistant"), partial=True)
    for key in _USER_MESSAGE_KEYS:
        move((extra == f'{{"{key}": true}}') & (role == "user"), internal={key: True})
    move((role == "tool") & (extra == f"{_FILES}}}"), internal={FILES: True})
    move((role == "tool") & begins_with(f"{_FILES}, "), prefix=_FILES, internal={FILES: True})
    answers = (role == "assistant") & begins_with('{"parts": [{') & extra.contains('"part_kind": "')
    move(answers, internal=messages.c.extra)


def upgrade_texts(connection: sa.Connection, tables: Tables) -> None:
    """Set the text column of lists of version 3 to their JSON: it had the texts in them.

    A tool's result is a value, whatever its shape, and so is any other list that does not begin like message parts.
    """
    m, t, r = tables.messages, tables.tool_calls, tables.runs
    texts: list[tuple[sa.Table, str, sa.ColumnElement[bool]]] = [(t, "result", sa.true())]
    texts += [(m, "content", m.c.role.in_(RESULT_ROLES)), (r, "input", sa.false()), (r, "output", sa.false())]
    for table, name, of_tool in texts:
        value = sa.type_coerce(table.c[f"{name}_json"], sa.Text())
        is_list, is_record = sa.func.substr(value, 1, 1) == "[", sa.func.substr(value, 1, 2) == "[{"
        is_value = of_tool | ~is_record | ~value.contains('"type": "')
        connection.execute(table.update().where(is_list, is_value).values({name: value}))


def upgrade_runs(connection: sa.Connection, runs: sa.Table) -> None:
    """Copy reserved keys of runs of version 3 to ``internal``; imported runs had none."""
    extra = sa.type_coerce(runs.c.extra, sa.Text())
    has_key = sa.or_(*(extra.contains(f'"{key}": ') for key in RUN_KEYS))
    connection.execute(runs.update().where(has_key, runs.c.source_hash.is_(None)).values(internal=runs.c.extra))


def upgrade_row(table: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of an older bundle, as this version stores it; see `upgrade_messages`."""
    new, extra = dict(row), row.get("extra")
    if not isinstance(extra, dict):
        return new
    role, parts = row.get("role"), extra.get(PARTS)
    rest: dict[str, Any] | None = None
    if table == "runs" and row.get("source_hash") is None and any(key in extra for key in RUN_KEYS):
        new["internal"], rest = extra, extra
    elif table != "messages":
        return new
    elif extra.get("from_history") is True and extra.keys() <= {"from_history", "tool_calls"}:
        new["from_history"], rest = True, {key: value for key, value in extra.items() if key != "from_history"}
    elif extra == {"partial": True} and role == "assistant":
        new["partial"] = True
    elif role == "user" and any(extra == {key: True} for key in _USER_MESSAGE_KEYS):
        new["internal"] = extra
    elif role == "tool" and extra.get(FILES) is True:
        new["internal"], rest = {FILES: True}, {key: value for key, value in extra.items() if key != FILES}
    elif role == "assistant" and isinstance(parts, list) and parts and all(map(_is_part, parts)):
        new["internal"] = extra
    else:
        return new
    new["extra"] = rest or None
    return new


def _is_part(value: Any) -> bool:
    return isinstance(value, dict) and "part_kind" in value

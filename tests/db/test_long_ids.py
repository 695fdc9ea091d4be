"""Ids longer than the index limit of any engine are refused on all engines."""

from __future__ import annotations

import pytest

from kern_nb.errors import UnstorableValue
from kern_nb.records import Message, Run, Session, ToolCall

LONG = "é" * 1001


@pytest.mark.parametrize(
    "write",
    [
        lambda store: store.append_run(LONG, Run()),
        lambda store: store.append_run("chat", Run(run_id=LONG)),
        lambda store: store.append_run("chat", Run(tool_calls=[ToolCall(tool_call_id=LONG, tool_name="f")])),
        lambda store: store.save_session(Session(session_id=LONG)),
        lambda store: store.start_run(LONG, input="hi"),
    ],
)
def test_too_long_id_is_refused_and_writes_nothing(store, write):
    """The error names its length, and no row is written."""
    with pytest.raises(UnstorableValue, match="1,001 characters"):
        write(store)

    assert len(store.sessions_df()) == 0


def test_longest_id_is_stored(store):
    """Every engine accepts an id of a thousand characters of any script."""
    call = ToolCall(tool_call_id=LONG[1:], tool_name="f")

    run = store.append_run(LONG[1:], Run(run_id=LONG[1:], messages=[Message(role="assistant", tool_calls=[call])]))

    assert store.get_session(run.session_id).runs[0].tool_calls[0].tool_call_id == LONG[1:]

"""What people pass in a notebook: numbers out of a frame serve as indexes, and what is no id is refused in words."""

from __future__ import annotations

import pytest
from samples import a_session, load_session

from kern_nb.errors import BadUsage


def test_an_index_out_of_a_frame_names_the_run(store):
    """numpy's integers, as frames hold them, in each place that takes an index."""
    a_session(store)
    index = store.runs_df("chat").run_index[1]
    message = store.messages_df("chat").message_index[0]

    assert store.branch("chat", after=index).fork_run_index == 1
    assert store.branch("chat", before=index).fork_run_index == 0
    cut = store.branch("chat", after=(index, message))
    assert (cut.fork_run_index, cut.fork_message_index) == (1, 0)
    assert len(load_session(store, cut.session_id).runs[1].messages) == 1
    assert [run.run_index for run in store.session_runs("chat", start=index, limit=index)] == [1]


@pytest.mark.parametrize("place", [1.0, 1.5, b"1", (0, 1.5), (1.0, 0)])
def test_a_place_that_is_no_index_and_no_id_is_refused(store, place):
    """It is named, and nothing is written."""
    a_session(store)

    with pytest.raises(BadUsage, match=r"A (run|message) index must be an int"):
        store.branch("chat", after=place)
    assert len(store.list_sessions()) == 1


def test_an_id_that_is_no_text_is_refused(store):
    """Reading, writing, branching: the value is named, instead of a complaint from within."""
    a_session(store)

    with pytest.raises(BadUsage, match="5 is no text"):
        store.get_session(5)
    with pytest.raises(BadUsage, match="5 is no text"):
        store.append_run(5, load_session(store, "chat").runs[0])
    with pytest.raises(BadUsage, match="None is no text"):
        store.start_run(None, input="x")
    with pytest.raises(BadUsage, match="5 is no text"):
        store.delete_session(5)
    assert [session.session_id for session in store.list_sessions()] == ["chat"]


def test_an_empty_id_is_an_id(store):
    """A branch that is to have the empty id has it, as a session may."""
    a_session(store)

    assert store.branch("chat", new_session_id="").session_id == ""
    assert len(load_session(store, "").runs) == 3

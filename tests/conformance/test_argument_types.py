"""Arguments from notebooks: integers of frames are accepted as indexes, and invalid ids are refused by value."""

from __future__ import annotations

import pytest
from samples import a_session, load_session

from kern_nb.errors import BadUsage


def test_index_from_frame_selects_run(store):
    """numpy integers are accepted wherever an index is."""
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
def test_invalid_reference_is_refused(store, place):
    """The error names it, and nothing is written."""
    a_session(store)

    with pytest.raises(BadUsage, match=r"A (run|message) index must be an int"):
        store.branch("chat", after=place)
    assert len(store.list_sessions()) == 1


def test_non_str_id_is_refused(store):
    """Reading, writing and branching: the error names the value."""
    a_session(store)

    with pytest.raises(BadUsage, match="must be str, got 5"):
        store.get_session(5)
    with pytest.raises(BadUsage, match="must be str, got 5"):
        store.append_run(5, load_session(store, "chat").runs[0])
    with pytest.raises(BadUsage, match="must be str, got None"):
        store.start_run(None, input="x")
    with pytest.raises(BadUsage, match="must be str, got 5"):
        store.delete_session(5)
    assert [session.session_id for session in store.list_sessions()] == ["chat"]


def test_empty_id_is_valid(store):
    """For sessions and for branches."""
    a_session(store)

    assert store.branch("chat", new_session_id="").session_id == ""
    assert len(load_session(store, "").runs) == 3

"""Tables that another program drops or changes while a store is open raise StoreUnavailable on every engine."""

from __future__ import annotations

import pytest
from samples import a_run, a_session

from kern_nb.errors import StoreUnavailable


@pytest.mark.parametrize(
    "change", ["DROP TABLE agno_sessions_messages", "ALTER TABLE agno_sessions_messages DROP COLUMN content"]
)
def test_changed_table_raises_store_unavailable(store, change):
    """Reading, writing and frames; calls that do not need the table succeed."""
    a_session(store, "chat", runs=1)
    with store.connect(write=True) as connection:
        connection.exec_driver_sql(change)
    for use in (
        lambda: store.get_session("chat"),
        lambda: store.append_run("chat", a_run()),
        store.messages_df,
        lambda: store.history("chat"),
    ):
        with pytest.raises(StoreUnavailable) as caught:
            use()
        assert store.url in str(caught.value)
        assert len(caught.value._render_traceback_()) == 2
    assert len(store.list_sessions()) == 1

"""Ctrl-C inside a transaction raises KeyboardInterrupt and leaves no lock of the process acquired, on each engine."""

from __future__ import annotations

import logging

import pytest
from sqlalchemy.engine import RootTransaction

from kern_nb.records import Run


@pytest.fixture
def filled(store):
    """A store whose tables and connections exist."""
    store.append_run("chat", Run())
    store.runs_df()
    return store


def test_transactions_request_no_logger(filled, monkeypatch):
    """`logging.getLogger` takes a lock that Ctrl-C may leave acquired: then each other thread waits for it forever."""
    requested, get_logger = [], logging.getLogger
    monkeypatch.setattr(logging, "getLogger", lambda *name: requested.append(name) or get_logger(*name))

    filled.append_run("chat", Run())
    filled.runs_df()
    filled.sql("SELECT count(*) FROM runs")
    monkeypatch.undo()

    assert requested == []


@pytest.mark.parametrize("use", ["read", "write"])
def test_ctrl_c_during_the_end_of_a_transaction_is_raised(filled, monkeypatch, use):
    """SQLAlchemy asserts that the transaction has ended; the user sees the interrupt, not the assertion."""
    end = RootTransaction._deactivate_from_connection
    pressed = []

    def press(transaction):
        if not pressed:
            pressed.append(transaction)
            raise KeyboardInterrupt
        end(transaction)

    monkeypatch.setattr(RootTransaction, "_deactivate_from_connection", press)
    with pytest.raises(KeyboardInterrupt):
        filled.runs_df() if use == "read" else filled.append_run("chat", Run())

    assert pressed
    del pressed[:]
    monkeypatch.undo()
    filled.append_run("chat", Run())
    assert len(filled.runs_df()) >= 2

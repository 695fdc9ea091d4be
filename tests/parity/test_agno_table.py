"""The tables of docs/agno.md: every public name of Agno's is the same here, has another name, or a reason why not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("agno.agent", reason="needs agno")

sys.path.append(str(Path(__file__).parents[2] / "docs"))

import agno_names
import agno_table

from kern_nb.runtime.unsupported import WORKFLOW_REFUSALS

SESSION_WORDS = ("session", "state", "history", "summar", "run", "store", "user", "metadata")

# The names with one of these words that are not ours. Another one needs a decision, not only a reason.
SESSION_NAMES_THAT_ARE_NOT_OURS = {
    "add_session_state_to_context",
    "aget_user_memories",
    "build_user_context",
    "get_user_memories",
    "propagate_run_hooks_in_background",
    "result_store",
    "run_context",
    "run_id",
    "scrub_run_output_for_storage",
    "store_executor_outputs",
    "store_media",
    "update_agents_and_teams_session_info",
    "update_memory_on_run",
    "user_message_role",
    "workflow_agent_run",
}


def test_every_name_is_in_the_page():
    """The page is current; a name without an entry raises an error."""
    assert agno_table.PAGE.read_text(encoding="utf-8") == agno_table.page(), "run docs/make.py"


def test_names_about_sessions_are_missing_by_decision_only():
    not_ours = {
        entry.name.rpartition("(")[2].removesuffix(")")
        for _, entries in agno_table.tables()
        for entry in entries
        if (entry.here or "").startswith("not ours")
    }

    about_sessions = {name for name in not_ours if any(word in name for word in SESSION_WORDS)}
    assert about_sessions == SESSION_NAMES_THAT_ARE_NOT_OURS


def test_tables_of_reasons_have_no_superfluous_names():
    """What kern_nb has needs no entry: it would be wrong."""
    entries = [(entry.name, entry.here) for _, entries in agno_table.tables() for entry in entries]
    elsewhere = {name for name, here in entries if here != agno_table.SAME}
    parameters = {f"({name.partition('(')[2]}" for name in elsewhere if "(" in name}

    for key in (*agno_names.OTHER_NAMES, *agno_names.NOT_OURS):
        assert key.rpartition(".")[2] in elsewhere | parameters, key
    # Some refused parameters are those of Agno 2.
    assert {"knowledge", "dependencies", "agent"} <= elsewhere & WORKFLOW_REFUSALS.keys()

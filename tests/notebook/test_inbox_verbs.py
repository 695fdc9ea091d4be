"""The inbox lists pending requirements with the lines to type, applies filters, and has a frame."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pandas as pd
from paused_notebook import BOOK, DELETE, RATE, confirmation, pause

import kern_nb
from kern_nb.db.columns import DTYPES, REQUIREMENTS
from kern_nb.records import Run

DTYPES_OF = {column.name: DTYPES[column.kind] for column in REQUIREMENTS}


def test_the_inbox_lists_requirements_with_the_lines_to_type(notebook, paused):
    """A row each: the beginning of its id, kind, run, agent, call, question, who is to answer, fields, since when."""
    inbox = notebook.run("%kern inbox")
    text = repr(inbox)

    assert len(inbox) == 3
    for part in (
        "0a000000", "confirmation", "chat/0", "clerk", 'delete_file(path="x.txt")', "Delete it?", "ann",
        "0b000000", "user_input", "book()", "city, date",
        "0c000000", "external_execution", "rate(n=2)",
        f"{datetime.now(UTC):%Y-%m-%d}", "%kern approve ID", "%kern answer ID VALUE", "%kern continue RUN",
    ):  # fmt: skip
        assert part in text
        assert part.replace('"', "&quot;") in inbox._repr_html_()


def test_the_inbox_frame_matches_the_sql_view(notebook, paused, main):
    """`.df` has the rows, columns and dtypes of SQL over ``requirements``, resolved ones included with --all."""
    main.resolve(BOOK, value={"city": "París", "date": None}, by="ann", note="n")
    view = notebook.run("%kern_sql SELECT * FROM requirements ORDER BY created_at, requirement_id")

    df = notebook.run("%kern inbox --all").df

    assert list(df["requirement_id"]) == [DELETE, BOOK, RATE]
    assert {name: str(dtype) for name, dtype in df.dtypes.items()} == DTYPES_OF
    for column in ("created_at", "resolved_at"):  # SQLite knows neither times nor truth
        view[column] = pd.to_datetime(view[column], utc=True).dt.as_unit("us")
    view["approved"] = view["approved"].astype("boolean")
    for column in ("args", "answer"):  # a server writes JSON in its own way
        df[column], view[column] = ([v if pd.isna(v) else json.loads(v) for v in f[column]] for f in (df, view))
    pd.testing.assert_frame_equal(df, view)
    assert list(notebook.run("%kern inbox").df["requirement_id"]) == [DELETE, RATE]


def test_an_empty_inbox_has_a_message_and_an_empty_frame(notebook, main):
    """Its frame has all columns."""
    inbox = notebook.run("%kern inbox")

    assert "The inbox is empty" in repr(inbox)
    assert "The inbox is empty" in inbox._repr_html_()
    assert inbox.df.empty
    assert {name: str(dtype) for name, dtype in inbox.df.dtypes.items()} == DTYPES_OF
    assert "No matching requirements" in repr(notebook.run("%kern inbox --for ann"))


def test_the_inbox_can_be_filtered(notebook, paused, main):
    """By user, assignee, session, run and store; a script does the same in one call."""
    main.append_run("chat", Run(input="y"))
    mine = pause(main, "other", user_id="u", a=confirmation(assignee="bob")).requirements[0].requirement_id
    notebook.run("%kern attach :memory: --as empty")

    for line, expected in (
        ("--user u", [mine]),
        ("--for ann", [DELETE]),
        ("--session other", [mine]),
        ("--session cha", [DELETE, BOOK, RATE]),
        ("--session chat/0 --for ann", [DELETE]),
        ("--session chat/1", []),
        ("", [DELETE, BOOK, RATE, mine]),
    ):
        inbox = notebook.run(f"%kern inbox --store main {line}")
        assert [item.requirement_id for item in inbox] == expected
        assert not expected or "--store main" in repr(inbox)
    assert len(notebook.run("%kern inbox")) == 0
    assert [r.requirement_id for r in kern_nb.inbox(assignee="ann", store="main")] == [DELETE]


def test_a_members_requirement_is_listed_with_the_team_run(notebook, main):
    """The team's run is the one that resumes."""
    team = pause(main, "trip", agent_id=None)
    pause(main, "trip", parent=team.run_id, agent_id="writer", a=confirmation(requirement_id=DELETE))

    inbox = notebook.run("%kern inbox --session trip/0")

    assert [(row.run, row.agent) for row in inbox.rows] == [("trip/0", "writer")]
    assert "%kern continue trip/0" in repr(notebook.run("%kern approve trip/0"))


def test_claimed_expired_and_cancelled_requirements_are_marked(notebook, main):
    """The claimant is named; a cancelled run has no pending requirement."""
    past = datetime(2026, 1, 1, tzinfo=UTC)
    pause(main, a=confirmation(requirement_id=DELETE), b=confirmation(requirement_id=BOOK, expires_at=past))
    main.claim(DELETE, by="ann")
    over = pause(main, "over", a=confirmation(requirement_id=RATE))
    main.finish_run(over.run_id, status="CANCELLED")

    shown = repr(notebook.run("%kern inbox"))
    everything = notebook.run("%kern inbox --all")

    assert "1 pending requirement:" in shown
    assert "claimed by ann" in shown
    assert "expired" not in shown
    assert "1 pending requirement, 2 resolved or expired:" in repr(everything)
    assert repr(everything).count("✗ expired") == 2
    main.resolve(DELETE, approve=True, by="ann")
    assert "✓ approved by ann" in repr(notebook.run("%kern inbox --all"))


def test_short_ids_are_unique_in_the_store(notebook, main):
    """At least 8 characters, unique among resolved ones too; verbs accept them."""
    ids = ["0a00000011", "0a00000012", "0a000000", "short", "0b0000001"]
    pause(main, **{f"c{i}": confirmation(requirement_id=item) for i, item in enumerate(ids)})
    main.resolve("0a00000012", approve=True)

    keys = {row.requirement.requirement_id: row.key for row in notebook.run("%kern inbox").rows}

    assert keys == {"0a00000011": "0a00000011", "0a000000": "0a000000", "short": "short", "0b0000001": "0b000000"}
    for name, key in keys.items():
        assert notebook.run(f"%kern approve {key}").requirement.requirement_id == name

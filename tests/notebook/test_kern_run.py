"""`%%kern run`: the cell's text to an agent; its pauses answered, and the run gone on with."""

from __future__ import annotations

import pytest
from scripted_agents import parrot, shredding

from kern_nb import errors
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.operations import agent_registry
from kern_nb.team import Team


def two_lines(notebook, cell, kind=errors.BadUsage):
    """A cell that must fail; its two lines."""
    error, lines = notebook.fails(cell)
    assert type(error) is kind, error
    assert len(lines) == 2
    return lines


def test_the_text_of_the_cell_is_the_input(notebook, memory):
    """As it is: `$name`, quotes, percent signs and blank lines are text. What is said is shown; there is no value."""
    parrot(notebook)
    text = 'Where is\n\n  my $order? "Now" {x} ;\n%kern sessions'

    shown = notebook.printed(f"%%kern run parrot --session trip --user ann\n{text}\n")

    (run,) = memory.get_session("trip").runs
    assert run.messages[-2].content == text
    assert run.input == text
    assert (run.user_id, run.agent_id, run.status) == ("ann", "parrot", "COMPLETED")
    assert "You said" in shown
    assert notebook.run("%%kern run parrot --session trip\nagain") is None
    assert len(memory.get_session("trip").runs) == 2


def test_an_agent_is_found_by_variable_id_or_name(notebook, clerk, memory):
    """Whichever one writes; `$boss` and `$name` work too."""
    notebook.shell.user_ns["name"] = "clerk-1"
    parrot(notebook, "bird", id="clerk-2", name="Poll", session_id="birds")

    for written in ("bird", "clerk-2", "Poll", "$bird"):
        notebook.run(f"%%kern run {written}\nhello")
    assert len(memory.get_session("birds").runs) == 4
    for written in ("boss", "clerk-1", "The Clerk"):
        assert agent_registry.find(written) is clerk
    notebook.run("%%kern run $name\nhello")
    assert memory.get_session("chat").runs[0].agent_id == "clerk-1"


def test_the_session_defaults_to_the_agents_own(notebook, memory):
    """One that it has, or that its first run makes."""
    parrot(notebook, session_id="mine")
    other = parrot(notebook, "other")

    for cell in ("%%kern run parrot\na", "%%kern run other\nb", "%%kern run other\nc"):
        notebook.run(cell)

    assert len(memory.get_session("mine").runs) == 1
    assert [run.input for run in memory.get_session(other.session_id).runs] == ["b", "c"]


@pytest.mark.parametrize(
    ("cell", "message", "hint"),
    [
        ("%%kern run bos\nhello", "Unknown agent 'bos'.", "Did you mean 'boss'? Agents in this notebook: boss."),
        (
            "%%kern run clerk_1\nhello",
            "Unknown agent 'clerk_1'.",
            "Did you mean 'clerk-1'? Agents in this notebook: boss.",
        ),
        ("%%kern run nobody\nhello", "Unknown agent 'nobody'.", "Agents in this notebook: boss."),
        ("%%kern run number\nhello", "'number' must be an agent, got int.", "Agents in this notebook: boss."),
        ("%%kern run\nhello", "required: AGENT", "Usage: %%kern run AGENT"),
        ("%%kern run boss hello\nhello", "'hello'", "Usage: %%kern run AGENT"),
        ("%%kern run boss --sesion x\nhello", "--sesion", "Did you mean '--session'?"),
        ("%%kern run boss", "The cell has no text.", "Write the agent's input below the line"),
        ("%%kern run boss\n\n  \n", "The cell has no text.", "Write the agent's input below the line"),
        ("%kern run boss", "takes the text of a cell", "Start the cell with %%kern run boss"),
        ("%kern run", "takes the text of a cell", "Start the cell with %%kern run"),
        ("x = %kern run boss hello", "takes the text of a cell", "Start the cell with %%kern run boss hello"),
        ("%%kern sessions\nhello", "sessions does not take the text of a cell.", "Write it on a line: %kern sessions"),
        ("%%kern inbox --all", "inbox does not take the text of a cell.", "Write it on a line: %kern inbox --all"),
        ("%%kern rnu boss\nhello", "Unknown verb 'rnu'", "Did you mean 'run'?"),
        ("%%kern\nhello", "needs a verb", "%%kern run AGENT"),
    ],
)
def test_an_invalid_cell_shows_two_lines_and_runs_nothing(notebook, clerk, memory, cell, message, hint):
    """A wrong agent, option or verb, no text, or the wrong number of percent signs."""
    notebook.shell.user_ns["number"] = 3

    lines = two_lines(notebook, cell)

    assert message in lines[0]
    assert hint in lines[1]
    assert len(memory.list_sessions()) == 0


def test_without_agents_the_hint_is_to_create_one(notebook):
    """Also where the machinery of agents was never imported."""
    lines = two_lines(notebook, "%%kern run clerk\nhello")

    assert "Unknown agent 'clerk'." in lines[0]
    assert "kern_nb.Agent(" in lines[1]


def test_an_ambiguous_name_is_refused(notebook, memory):
    """With their variables; one agent in two variables is one."""
    notebook.shell.user_ns["also"] = parrot(notebook, "a", id="same")
    notebook.run("%%kern run same\nhello")
    parrot(notebook, "b", id="same")

    lines = two_lines(notebook, "%%kern run same\nhello")

    assert "Several agents have the name or id 'same': a, also, b." in lines[0].replace("also, a", "a, also")
    assert "variable" in lines[1]


def test_help_is_printed_with_and_without_a_cell(notebook):
    """As for every verb."""
    for cell in ("%kern run --help", "%kern help run", "%%kern run --help", "%%kern run --help\nx"):
        assert "Usage: %%kern run AGENT [--session SESSION]" in notebook.printed(cell)


def test_a_run_pauses_is_approved_and_resumes(notebook, clerk, memory, shredder):
    """The tool runs once, with the arguments as edited; the line that the answer suggests is the one to type."""
    notebook.run("%%kern run boss\nDelete x.txt")
    assert shredder.shredded == []
    (requirement,) = notebook.run("%kern inbox").requirements
    assert (requirement.tool_name, requirement.args) == ("delete_file", {"path": "x.txt"})

    done = notebook.run('%kern approve chat --args {"path": "z.txt"}')
    line = repr(done).splitlines()[1].removeprefix("Resume it: ")
    run = notebook.run(line)

    assert line == "%kern continue chat/0 --agent boss"
    assert (run.status, run.output, run.session_id) == ("COMPLETED", "Done.", "chat")
    assert shredder.shredded == ["z.txt"]
    assert len(notebook.run("%kern inbox")) == 0
    two_lines(notebook, "%kern continue chat/0", errors.RunClosed)
    assert shredder.shredded == ["z.txt"]


def test_the_model_receives_a_rejection(notebook, clerk, memory, shredder):
    """With its note; the tool does not run."""
    notebook.run("%%kern run boss\nDelete x.txt")
    notebook.run("%kern reject chat/0 --note 'We still need it.'")

    run = notebook.run("%kern continue chat")

    assert run.status == "COMPLETED"
    assert any("We still need it." in str(m.content) for m in run.messages if m.role == "tool")
    assert shredder.shredded == []


def test_a_run_with_pending_requirements_cannot_resume(notebook, clerk):
    """Two lines that name what is waited for."""
    notebook.run("%%kern run boss\nDelete x.txt")

    lines = two_lines(notebook, "%kern continue chat/0", errors.StillWaiting)

    assert "delete_file" in lines[0]


def test_the_transcript_and_the_run_show_the_line_to_type(notebook, clerk, memory):
    """What waits stands at the run's end, in text and in HTML; then the line that goes on; then nothing."""
    notebook.run("%%kern run boss\nDelete x.txt")
    key = notebook.run("%kern inbox").rows[0].key
    run = memory.get_session("chat").runs[0]

    for shown in (
        repr(notebook.run("%kern show chat")),
        notebook.run("%kern show chat")._repr_html_(),
        run._repr_html_(),
    ):
        assert f"%kern approve {key}" in shown
        assert f"%kern reject {key}" in shown
    assert repr(run).startswith("<Run chat/0 PAUSED, ")

    notebook.run(f"%kern approve {key}")
    shown = repr(notebook.run("%kern show chat"))
    assert "%kern approve" not in shown
    assert "resume: %kern continue chat/0" in shown
    notebook.run("%kern continue chat")
    assert "resume: " not in repr(notebook.run("%kern show chat"))


def test_a_team_resumes_after_its_members_requirements_are_resolved(notebook, memory, shredder):
    """The inbox names the team's run; the member runs its tool once."""
    member = shredding(shredder, "x.txt", name="shredder")
    lead = [call("delegate_task_to_member", member_id="shredder", task="x.txt"), "It is done."]
    notebook.shell.user_ns |= {
        "member": member,
        "team": Team([member], ScriptedModel(lead), name="office", session_id="trip"),
    }
    notebook.run("%%kern run team\nDelete it")
    (row,) = notebook.run("%kern inbox").rows
    assert (row.run, row.agent) == ("trip/0", "shredder")

    done = notebook.run(f"%kern approve {row.key}")
    run = notebook.run("%kern continue trip/0")

    assert repr(done).endswith("Resume it: %kern continue trip/0 --agent team")
    assert (run.status, run.output, run.team_id) == ("COMPLETED", "It is done.", "office")
    assert shredder.shredded == ["x.txt"]

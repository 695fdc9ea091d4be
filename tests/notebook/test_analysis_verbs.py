"""The verbs of analysis on every engine: each gives what one call of a script gives."""

from __future__ import annotations

import pytest
from scripted_agents import parrot

import kern_nb
from kern_nb.errors import BadUsage, NoStore
from kern_nb.records import Run, Session


def test_compare_compares_references_with_the_first(notebook, chats):
    """Sessions, runs, and branches, by unique prefixes."""
    kern_nb.current_store().branch("alpha", after=0, new_session_id="what-if")
    notebook.run("c = %kern compare alpha what alps/0")
    result = notebook.shell.user_ns["c"]

    assert [side.label for side in result.sides] == ["alpha", "what-if", "alps/0"]
    assert result.divergence.turn == 0
    assert result.pairs[0].divergence.a == "alpha/1.0"
    assert set(notebook.run("%kern compare alpha alps").metrics["metric"]) > {"n_runs", "total_tokens"}
    assert "have no turns in common" in repr(notebook.run("%kern compare alpha/0 alpha/1"))


def test_compare_reads_another_store(notebook, chats):
    """`--to-store` names the store of all but the first."""
    notebook.run("%kern attach :memory: --as other")
    kern_nb.current_store().append_run("alpha", Run(input="question 0", output="another"))
    result = notebook.run("%kern compare alpha alpha --store chats --to-store other")

    assert [side.label for side in result.sides] == ["alpha in chats", "alpha in other"]


def test_compare_by_compares_groups(notebook, chats):
    """By a run's column, paired by a key of the metadata, narrowed by another."""
    for number in range(8):
        task, model, domain = f"t{number % 2}", f"m{number // 2 % 2}", f"d{number // 4}"
        session = Session(session_id=f"s{number}", metadata={"task_id": task, "domain": domain})
        chats.save_session(session.model_copy(update={"runs": [Run(input="x", model=model)]}))
        chats.add_score(session.session_id, "reward", float(number > 1))
    result = notebook.run("%kern compare --by model --key domain,task_id --groups m1,m0")

    assert result.groups["group"].tolist() == ["m1", "m0"]
    assert result.groups["success_rate"].tolist() == [1.0, 0.5]
    assert len(result.pairs[result.pairs["metric"] == "reward"]) == 4
    narrowed = notebook.run("%kern compare --by model --where domain=d1 --groups m0,m1")
    assert narrowed.groups["n_sessions"].tolist() == [2, 2]


def test_group_names_may_contain_commas(notebook, chats):
    """In quotes, as in a file of values with commas between them."""
    for number, model in enumerate(("m,1", 'the "new" one')):
        runs = [Run(input="x", model=model)]
        chats.save_session(Session(session_id=f"s{number}", metadata={"task_id": "t"}, runs=runs))
    result = notebook.run("""%kern compare --by model --score reward --groups '"the ""new"" one", "m,1"'""")

    assert result.groups["group"].tolist() == ['the "new" one', "m,1"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("compare", "two or more"),
        ("compare alpha", "two or more"),
        ("compare alpha alps --key task_id", "--key needs --by"),
        ("compare alpha --by model", "'alpha'"),
        ("compare --by model --where domain", "must be NAME=VALUE"),
        ("compare --by model --where domain=a --where domain=b", "--where has two values for 'domain'"),
        ("compare --by model, --key domain", "list of names, got 'model,'"),
        ("compare --by model --groups 'a,\"b'", "Expected a list of names"),
        ("plot alpha --kind pie", "unknown kind of plot 'pie'"),
    ],
)
def test_incomplete_and_conflicting_arguments_are_refused(notebook, chats, line, message):
    """In two lines: what is wrong, and what to write."""
    error, lines = notebook.fails(f"%kern {line}")

    assert isinstance(error, BadUsage)
    assert len(lines) == 2
    assert message.replace("'alpha'", "alpha") in lines[0]


def test_rerun_branches_runs_and_compares(notebook, chats):
    """By the variable of an agent; the branch has the name that was given, the original is as it was."""
    parrot(notebook)
    before = chats.messages_df()
    notebook.run('r = %kern rerun alpha/1 --agent parrot --message "another question" --as what-if')
    result = notebook.shell.user_ns["r"]

    assert result.session.session_id == "what-if"
    assert [run.output for run in result.runs] == ["You said 'another question'."]
    assert result.comparison.divergence.a == "alpha/1.0"
    again = chats.messages_df()
    assert again[again["session_id"] != "what-if"].reset_index(drop=True).equals(before)


def test_rerun_requires_an_agent_or_a_model(notebook, chats):
    """An agent of the notebook; a name that is none is told with those there are."""
    parrot(notebook)
    error, lines = notebook.fails("%kern rerun alpha/1 --agent parot")

    assert isinstance(error, BadUsage)
    assert "parrot" in lines[1]


def test_plot_draws_the_requested_kind(notebook, chats):
    """Runs where nothing is said; the data is there as a frame."""
    assert set(notebook.run("%kern plot alpha").df["session_id"]) == {"alpha"}
    assert notebook.run("%kern plot --kind tools").df["tool_name"].tolist() == ["get_order"]
    assert len(notebook.run("%kern plot --kind tree").df) == 2


def test_summarize_returns_a_digest_or_a_model_summary(notebook, chats):
    """Without a model what can be computed, of one or several; with one a summary, which is stored."""
    from kern_nb.models.scripted import ScriptedModel

    item = notebook.run("%kern summarize alpha")
    assert item.asked == "question 0"
    assert notebook.run("%kern summarize alpha alps/0").items["item"].tolist() == ["alpha", "alps/0"]
    chats.save_session(chats.get_session("alps").model_copy(update={"metadata": {"place": "hut"}}))
    assert notebook.run("%kern summarize --where place=hut").items["item"].tolist() == ["alps"]
    assert kern_nb.summarize("alpha", model=ScriptedModel("Orders were asked for.")).summary == "Orders were asked for."
    assert chats.get_session("alpha").summary["summary"] == "Orders were asked for."


def test_without_a_store_each_verb_names_the_attach_line(notebook):
    """Two lines, the second of which is what to type."""
    for line in ("compare a b", "compare --by model", "summarize a", "plot"):
        error, lines = notebook.fails(f"%kern {line}")
        assert isinstance(error, NoStore)
        assert "%kern attach" in lines[1]

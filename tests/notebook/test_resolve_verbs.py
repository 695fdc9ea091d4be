"""approve, reject, answer, handoff: what is typed is checked, stored once, and followed by what comes next."""

from __future__ import annotations

import re

import pytest
from paused_notebook import BOOK, DELETE, RATE, confirmation, pause, user_input

from kern_nb import environment, errors
from kern_nb.records import Run


def two_lines(notebook, line, kind):
    """A line that must fail; its two lines."""
    error, lines = notebook.fails(line)
    assert type(error) is kind, error
    assert len(lines) == 2
    return lines


def test_approve_resolves_and_lists_the_pending_requirements(notebook, paused, main, monkeypatch):
    """By a prefix of the id, with the login name; the result names the pending requirements and how to list them."""
    monkeypatch.setattr("getpass.getuser", lambda: "me")

    done = notebook.run("%kern approve 0a")

    stored = {item.requirement_id: item for item in main.requirements(status=None)}
    assert (stored[DELETE].approved, stored[DELETE].answer, stored[DELETE].resolved_by) == (True, None, "me")
    assert done.requirement == stored[DELETE]
    assert done.waiting == [stored[BOOK], stored[RATE]]
    first, second = repr(done).splitlines()
    assert first == '✓ Approved delete_file(path="x.txt") in chat/0.'
    assert second.startswith("2 more pending: 0b000000 book(), 0c000000 rate(n=2); %kern inbox --session")
    assert "Approved delete_file" in done._repr_html_()


def test_the_last_answer_names_the_line_that_resumes(notebook, main):
    """With the agent of the run; a run with one requirement can be named itself."""
    pause(main, "my trip", a=confirmation())

    done = notebook.run("%kern approve 'my trip/0' --note 'be careful' --by ann")

    assert repr(done).splitlines() == [
        '✓ Approved delete_file(path="x.txt") in my trip/0: be careful',
        "Resume it: %kern continue 'my trip/0' --agent clerk",
    ]
    assert (done.requirement.note, done.requirement.resolved_by) == ("be careful", "ann")
    assert done.waiting == []


@pytest.mark.parametrize(
    "args",
    ['{"path": "y.txt", "n": 1}', """'{"path": "y.txt", "n": 1}'""", '{"path":"y.txt","n":1} --by ann', "$edited"],
)
def test_approve_replaces_arguments(notebook, paused, main, args):
    """A JSON object, in quotes or not, or in a variable."""
    notebook.shell.user_ns["edited"] = '{"path": "y.txt", "n": 1}'

    done = notebook.run(f"%kern approve {DELETE} --args {args}")

    assert done.requirement.answer == {"path": "y.txt", "n": 1}
    assert 'as delete_file(path="y.txt", n=1)' in repr(done)


def test_json_in_a_line_keeps_spaces_and_quotes(notebook, paused, main):
    """Unlike in a shell; `$name` within it is text."""
    notebook.run("""%kern approve 0a --note 'it is {"not": "this"}' --args {"a": "it's  $x", "b": [1, "]}"]} --by me""")

    (result,) = (item for item in main.requirements(status="resolved"))
    assert result.answer["a"] == "it's  $x"
    assert result.answer["b"] == [1, "]}"]
    assert (result.note, result.resolved_by) == ('it is {"not": "this"}', "me")


@pytest.mark.every_engine
def test_reject_stores_the_note(notebook, paused, main):
    """Any kind of requirement."""
    for ref in (DELETE, BOOK, RATE):
        done = notebook.run(f'%kern reject {ref[:8]} --note "Not today."')

        assert (done.requirement.approved, done.requirement.note) == (False, "Not today.")
        assert repr(done).startswith("✗ Rejected ")


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("42", 42),
        ("-1.5", -1.5),
        ("true", True),
        ("null", None),
        ('{"a": ["b c", {"d": null}]}', {"a": ["b c", {"d": None}]}),
        ('["x", 2]', ["x", 2]),
        ("'\"42\"'", "42"),
        ("007", "007"),
        ("NaN", "NaN"),
        ("1e999", "1e999"),
        ("{broken", "{broken"),
        ("{'a': 1}", "{a: 1}"),
        ("all is well", "all is well"),
        ("a=b c", "a=b c"),
        ("'use --force,  twice'", "use --force,  twice"),
        ("-- --force", "--force"),
        ("[" * 3000, "[" * 3000),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_a_value_is_parsed_as_json_or_text(notebook, main, words, value):
    """What parses as JSON is JSON; several words are one text."""
    requirement = {"kind": "external_execution", "tool_name": "rate", "requirement_id": RATE}
    pause(main, a=requirement)

    notebook.run(f"%kern answer {RATE} {words}")

    (result,) = main.requirements(status="resolved")
    assert result.approved is True
    assert result.answer == value
    assert type(result.answer) is type(value)


@pytest.mark.parametrize(
    ("requirement", "words", "value"),
    [
        (user_input(), "city=Paris date='next Monday'", {"city": "Paris", "date": "next Monday"}),
        (user_input(), "date=7 city=[1,2]", {"date": 7, "city": [1, 2]}),
        (user_input(), 'city="a=b" date=null', {"city": "a=b", "date": None}),
        (user_input(), '{"city": "Paris", "date": ""}', {"city": "Paris", "date": ""}),
        (user_input(["city"]), "New York", {"city": "New York"}),
        (user_input(["n"]), "3", {"n": 3}),
        # The model filled in some: no field is mandatory, and anything else is the result.
        (user_input(args={"city": "Rome", "date": "now"}), "date=later", {"date": "later"}),
        (user_input(args={"city": "Rome"}), "It is booked.", "It is booked."),
        (user_input(args={"city": "Rome"}), '{"ticket": 7}', {"ticket": 7}),
    ],
)
def test_fields_are_parsed(notebook, main, requirement, words, value):
    """As pairs, as JSON, or as the text itself if there is one field."""
    pause(main, a=requirement)

    notebook.run(f"%kern answer chat {words}")

    assert main.requirements(status="resolved")[0].answer == value


@pytest.mark.parametrize(
    ("line", "kind", "message", "hint"),
    [
        (
            "approve 0a --args {broken}",
            errors.BadUsage,
            "--args must be JSON, got '{broken}'",
            "For example: --args '{",
        ),
        ("approve 0a --args '[1]'", errors.BadUsage, "must be a JSON object, got '[1]'", "For example: --args '{"),
        ("approve 0a --args '{\"n\": NaN}'", errors.BadUsage, "NaN", "For example: --args '{"),
        ("approve 0b", errors.BadUsage, "book() needs a value", "%kern answer 0b city=VALUE date=VALUE"),
        ("approve 0c", errors.BadUsage, "rate(n=2) needs a value", "%kern answer 0c VALUE"),
        ("answer 0a yes", errors.BadUsage, "needs an approval", "%kern approve 0a or %kern reject 0a"),
        ("answer 0a null", errors.BadUsage, "needs an approval", "%kern approve 0a or %kern reject 0a"),
        ("answer 0b Paris", errors.BadUsage, "needs 2 fields: city, date", "city=VALUE date=VALUE"),
        ("answer 0b city=Paris", errors.BadUsage, "Missing fields: date", "city=VALUE date=VALUE"),
        ("answer 0b ctiy=Paris date=1", errors.BadUsage, "'ctiy'", "Did you mean 'city'?"),
        ('answer 0b {"city": 1, "day": 2}', errors.BadUsage, "'day'", "city=VALUE"),
        ("answer 0c", errors.BadUsage, "required: VALUE", "Usage: %kern answer REF VALUE..."),
        ("approve", errors.BadUsage, "required: REF", "Usage: %kern approve REF"),
        ("approve 0a --nte x", errors.BadUsage, "--nte", "Did you mean '--note'?"),
        ("approve 0", errors.AmbiguousReference, "several requirements", "Use one of their ids"),
        ("approve chat/0", errors.AmbiguousReference, "several requirements", "Use one of their ids"),
        ("approve 0d", errors.RequirementNotFound, "'0d'", "%kern inbox"),
        ("reject chat/7", errors.RequirementNotFound, "'chat/7'", "%kern inbox"),
        ("handoff 0a", errors.BadUsage, "--to", "Usage: %kern handoff REF --to WHO [--note TEXT]"),
        ("handoff nobody --to ann", errors.RequirementNotFound, "'nobody'", "%kern inbox"),
        ("inbox --session nobody", errors.SessionNotFound, "'nobody'", "%kern sessions"),
        ("inbox --session chat/7", errors.RunNotFound, "run", "%kern show chat"),
    ],
)
def test_an_invalid_answer_shows_two_lines_and_changes_nothing(notebook, paused, main, line, kind, message, hint):
    """The message states the problem, the hint the fix; all requirements stay pending."""
    lines = two_lines(notebook, f"%kern {line}", kind)

    assert message in lines[0]
    assert hint in lines[1]
    assert main.requirements(status=None) == paused.requirements


def test_a_resolved_requirement_cannot_be_resolved_again(notebook, paused, main):
    """A second attempt is refused in two lines, also after the requirement expired."""
    notebook.run("%kern approve 0a --by ann")
    for line in ("approve 0a", 'approve 0a --args {"path": "z"}', "reject 0a", "answer 0a x", "handoff 0a --to bob"):
        lines = two_lines(notebook, f"%kern {line}", errors.AlreadyResolved)
        assert "was approved by ann" in lines[0]

    main.claim(RATE, by="bob")
    two_lines(notebook, "%kern answer 0c 1 --by ann", errors.AlreadyClaimed)
    assert notebook.run("%kern answer 0c 1 --by bob").requirement.answer == 1


def test_handoff_assigns_a_requirement_to_a_person(notebook, paused, main):
    """One requirement, or all of a run; the inbox of that person lists it with the note."""
    item = notebook.run('%kern handoff 0b --to "bob b" --note "You know him."')

    assert repr(item).startswith("→ Assigned to bob b: book() in chat/0.")
    assert "%kern inbox --for 'bob b'" in repr(item)
    assert "%kern answer 0b000000 city=VALUE date=VALUE" in repr(item)
    theirs = notebook.run("%kern inbox --for 'bob b'")
    assert [row.requirement.note for row in theirs.rows] == ["You know him."]
    assert "You know him." in repr(theirs)

    everything = notebook.run("%kern handoff chat/0 --to eve")

    assert repr(everything).startswith("→ Assigned to eve: 3 requirements in chat/0.")
    assert len(notebook.run("%kern inbox --for eve")) == 3


def test_handoff_of_a_session_creates_a_paused_run(notebook, main):
    """The run waits for the answer, whose result names the line that resumes."""
    main.append_run("chat", Run(input="x", output="y", agent_id="clerk"))

    done = notebook.run("%kern handoff chat --to ann --note 'He wants a refund.' --by me")

    assert repr(done).startswith("→ Assigned to ann: handoff “He wants a refund.” in chat/1.")
    assert [run.status for run in main.get_session("chat").runs] == ["COMPLETED", "PAUSED"]
    answered = notebook.run("%kern answer chat Give it to him. --by ann")
    assert answered.requirement.answer == "Give it to him."
    assert repr(answered).splitlines()[1] == "Resume it: %kern continue chat/1 --agent clerk"


def test_suggested_lines_include_the_store_option(notebook, paused):
    """Each suggested line names the store."""
    notebook.run("%kern attach :memory: --as empty")

    two_lines(notebook, "%kern approve 0a", errors.RequirementNotFound)
    texts = [
        repr(notebook.run(f"%kern {line} --store main"))
        for line in ("approve 0a", "answer 0c 1", "handoff 0b --to ann", "reject 0b")
    ]

    for text in texts:
        commands = re.findall(r"%kern [^;,]+", text)
        assert commands
        assert all("--store main" in command for command in commands), text


def test_an_unknown_login_name_is_none(notebook, paused, monkeypatch):
    """A container's user may have no name; that is no error."""

    def nobody() -> str:
        raise OSError("no such user")

    monkeypatch.setattr("getpass.getuser", nobody)

    assert notebook.run("%kern approve 0a").requirement.resolved_by is None
    assert environment.login_name() is None


def test_record_variables_are_replaced_by_references(notebook, paused, main):
    """`$requirement` is its id, `$run` its reference, `$session` its id."""
    notebook.shell.user_ns |= {"asked": paused.requirements[0], "run": paused, "session": main.get_session("chat")}

    assert len(notebook.run("%kern inbox --session $run")) == 3
    assert notebook.run("%kern approve $asked").requirement.requirement_id == DELETE
    assert len(notebook.run("%kern show $session").runs) == 1
    assert [r.run_index for r in notebook.run("%kern show $session/0").runs] == [0]


def test_reply_writes_into_a_session_that_is_handed_off(notebook, main, tmp_path):
    """A text, files of the disk, or both; the next step is to hand the session back."""
    report = tmp_path / "report.txt"
    report.write_text("90.00")
    main.append_run("chat", Run(run_id="r", input="hi", output="hello"))
    notebook.run("%kern handoff chat --to ann")
    done = notebook.run(f"%kern reply chat I called her --file {report}")

    assert repr(done).startswith("✓ Wrote a message and 'report.txt' in chat/1")
    key = main.requirements()[0].requirement_id[:8]
    assert repr(done).splitlines()[-1] == f"It stays handed off; hand it back with %kern answer {key} VALUE"
    session = main.get_session("chat")
    assert session.runs[1].messages[-1].content == "ann: I called her"
    assert list(session.session_state["workspace"]) == ["report.txt"]
    for line, words in (("reply chat", "needs a text"), ("reply chat --file nowhere.txt", "Cannot read")):
        assert words in two_lines(notebook, f"%kern {line}", errors.BadUsage)[0]

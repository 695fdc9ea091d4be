"""The snippets of the documents run word for word, `kern` read as `kern_nb`, and keep what the documents promise.

The model is real HTTP away: what it remembers was sent to it. Bound are only the placeholders that a reader must bind.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

ROOT = Path(__file__).resolve().parents[2]

QUICK_START = """
db = PostgresDb(db_url="postgresql+psycopg://...")

agent = Agent(
    model=OpenAIResponses(id="gpt-5.2"),
    db=db,                 # Enables persistence
    session_id="user_123", # Same ID = same conversation
)
"""

FIRST_RUN = """
# First run
agent = Agent(
    model=OpenAIResponses(id="gpt-5.2"),
    db=db,
    session_id="conversation_123",
)
agent.run("My name is Alice")
"""

LATER_RUN = """
# Later run with same session_id
agent = Agent(
    model=OpenAIResponses(id="gpt-5.2"),
    db=db,
    session_id="conversation_123",  # Same ID
    add_history_to_context=True,     # Enable history
)
agent.run("What's my name?")  # Agent remembers "Alice"
"""

SESSION_IDS = f"{FIRST_RUN}\n{LATER_RUN}"

MULTI_USER_SESSIONS = """
agent = Agent(
    model=OpenAIResponses(id="gpt-5.2"),
    db=db,
)

# Specify the user_id and session_id on run to start or continue the conversation
agent.print_response("Hello!", session_id="session_456", user_id="alice@example.com")
"""

CONFIGURE_THE_SESSION_TABLE = """
from kern.db.postgres import PostgresDb

db = PostgresDb(
    db_url="postgresql://user:password@localhost:5432/mydb",
    session_table="my_agent_sessions",
)

agent = Agent(db=db)
"""

RETRIEVE_SESSIONS = """
from kern.agent import Agent
from kern.db.sqlite import SqliteDb

agent = Agent(db=SqliteDb(db_file="agent.db"))

agent.print_response("What is the capital of France?", session_id="session_123")

# Retrieve the session
session = agent.get_session(session_id="session_123")

# Access session data
print(session.session_id)
print(session.runs)  # List of runs with messages and responses
"""

TEAMS_AND_WORKFLOWS = """
from kern.team import Team
from kern.workflow import Workflow
from kern.db.sqlite import SqliteDb

db = SqliteDb(db_file="kern.db")

team = Team(db=db, ...)
workflow = Workflow(db=db, ...)

# Retrieve sessions the same way
team_session = team.get_session(session_id="team_session_123")
workflow_session = workflow.get_session(session_id="workflow_session_456")
"""

# The documents take these for granted where a snippet does not import them.
IMPORTS = """
from kern.agent import Agent
from kern.db.postgres import PostgresDb
from kern.db.sqlite import SqliteDb
from kern.models.openai import OpenAIResponses
"""

DOCUMENTED_FIELDS = {
    *("session_id", "session_type", "agent_id", "team_id", "workflow_id", "user_id", "session_data", "agent_data"),
    *("team_data", "workflow_data", "metadata", "runs", "summary", "created_at", "updated_at"),
}


def as_ours(snippet):
    """The module `kern` is `kern_nb` here; the file kern.db keeps its name."""
    return re.sub(r"^from kern\.", "from kern_nb.", snippet, flags=re.MULTILINE)


@pytest.fixture
def run_snippet(openai_server, tmp_path, monkeypatch):
    """Run a snippet in an empty folder, `run_snippet(snippet, **names it finds)`, and give the names it leaves behind.

    Stores that it opens are closed after the test.
    """
    monkeypatch.chdir(tmp_path)
    stores = []

    def run(snippet, **known):
        names = dict(known)
        exec(compile(as_ours(IMPORTS + snippet), "<documented>", "exec"), names)
        stores.extend([names["db"]] if "db" in names else [names["agent"].store])
        return names

    yield run
    for store in stores:
        store.close()


def exchanges(session):
    """What was asked and answered, run by run."""
    return [(run.input, run.output) for run in session.runs]


def test_quick_start(run_snippet, postgres_database_url):
    """A database given to the agent keeps its runs; another agent with the same id is in the same conversation."""
    snippet = QUICK_START.replace("postgresql+psycopg://...", postgres_database_url)

    run_snippet(snippet)["agent"].run("Hello")
    again = run_snippet(snippet)["agent"]
    again.run("Hello again")

    session = again.get_session()
    assert (session.session_id, session.session_type) == ("user_123", "agent")
    assert exchanges(session) == [("Hello", "You said: Hello"), ("Hello again", "You said: Hello again")]


def test_same_session_id_continues_the_conversation(run_snippet, openai_server, tmp_path):
    """The later agent remembers Alice, because the history of the first was sent to the model."""
    from kern_nb.db import SqliteDb

    names = run_snippet(SESSION_IDS, db=SqliteDb(tmp_path / "agent.db"))

    session = names["agent"].get_session()
    assert exchanges(session)[1] == ("What's my name?", "Your name is Alice.")
    first, second = openai_server.requests
    assert first.conversation == [("user", "My name is Alice")]
    assert second.conversation == [
        ("user", "My name is Alice"),
        ("assistant", "You said: My name is Alice"),
        ("user", "What's my name?"),
    ]
    assert {request.path for request in openai_server.requests} == {"/v1/responses"}
    assert {request.body["model"] for request in openai_server.requests} == {"gpt-5.2"}


def test_history_is_limited_to_own_session(run_snippet, tmp_path):
    """It is add_history_to_context, and the session_id, that make the agent remember."""
    from kern_nb.db import SqliteDb

    forgetful = LATER_RUN.replace("add_history_to_context=True", "add_history_to_context=False")
    elsewhere = LATER_RUN.replace("conversation_123", "conversation_456")
    db = SqliteDb(tmp_path / "agent.db")
    run_snippet(FIRST_RUN, db=db)

    for snippet in (forgetful, elsewhere):
        session = run_snippet(snippet, db=db)["agent"].get_session()
        assert session.runs[-1].output == "I do not know your name."


def test_stored_fields_of_session(run_snippet, tmp_path):
    """Messages, the model, the tokens the service counted, the time."""
    from kern_nb.db import SqliteDb

    names = run_snippet(SESSION_IDS, db=SqliteDb(tmp_path / "agent.db"))

    session = names["agent"].get_session()
    assert set(type(session).model_fields) >= DOCUMENTED_FIELDS
    first, second = session.runs
    assert [(message.role, message.content) for message in first.messages] == [
        ("user", "My name is Alice"),
        ("assistant", "You said: My name is Alice"),
    ]
    assert first.model == "gpt-5.2"
    assert first.status == second.status == "COMPLETED"
    usage = names["db"].runs_df("conversation_123")[["input_tokens", "output_tokens", "total_tokens"]]
    assert usage.to_numpy().tolist() == [[4, 6, 10], [4 + 6 + 3, 4, 17]]
    assert [(run.usage.input_tokens, run.usage.output_tokens) for run in session.runs] == [(4, 6), (13, 4)]
    assert first.created_at <= first.finished_at <= second.created_at
    assert isinstance(session.created_at, int)
    assert session.created_at <= session.updated_at


def test_multi_user_sessions(run_snippet, tmp_path, capsys):
    """The session belongs to Alice, who finds it; Bob neither sees it nor may go on with it."""
    from kern_nb.db import SqliteDb
    from kern_nb.errors import OwnerMismatch

    names = run_snippet(MULTI_USER_SESSIONS, db=SqliteDb(tmp_path / "agent.db"))

    assert "You said: Hello!" in capsys.readouterr().out
    agent, db = names["agent"], names["db"]
    session = agent.get_session(session_id="session_456")
    assert session.user_id == "alice@example.com"
    assert [one.session_id for one in db.list_sessions(user_id="alice@example.com")] == ["session_456"]
    assert db.list_sessions(user_id="bob@example.com") == []
    with pytest.raises(OwnerMismatch):
        agent.run("Hello!", session_id="session_456", user_id="bob@example.com")
    assert len(agent.get_session(session_id="session_456").runs) == 1


def test_configure_the_session_table(run_snippet, postgres_database_url):
    """The rows are in tables of that name, made at the first use; those of the default name are not there."""
    url = postgres_database_url.replace("+psycopg", "", 1)
    placeholder = "postgresql://user:password@localhost:5432/mydb"
    assert placeholder in CONFIGURE_THE_SESSION_TABLE

    agent = run_snippet(CONFIGURE_THE_SESSION_TABLE.replace(placeholder, url))["agent"]
    agent.run("Hello", session_id="session_1")

    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT session_id, session_type FROM my_agent_sessions").fetchall()
        runs = connection.execute("SELECT session_id, run_index FROM my_agent_sessions_runs").fetchall()
        found = connection.execute("SELECT to_regclass('agno_sessions')").fetchone()
    assert (rows, runs, found) == ([("session_1", "agent")], [("session_1", 0)], (None,))


def test_retrieve_sessions(run_snippet, tmp_path, capsys):
    """`get_session` gives the session with its runs, each with its messages and the response."""
    names = run_snippet(RETRIEVE_SESSIONS)

    assert (tmp_path / "agent.db").is_file()
    session = names["session"]
    assert session.session_id == "session_123"
    (run,) = session.runs
    assert (run.input, run.output) == ("What is the capital of France?", "Paris is the capital of France.")
    assert [message.role for message in run.messages] == ["user", "assistant"]
    printed = capsys.readouterr().out
    assert "Paris is the capital of France." in printed
    assert "session_123\n[<Run session_123/0 COMPLETED, 2 messages" in printed


def test_works_with_teams_and_workflows(run_snippet):
    """Both give their sessions the same way, each of its type; a workflow's holds the pipeline's run."""
    from kern_nb.agent import Agent
    from kern_nb.db import SqliteDb
    from kern_nb.team import Team
    from kern_nb.workflow import Workflow

    snippet = TEAMS_AND_WORKFLOWS.replace("Team(db=db, ...)", "Team(db=db, members=[writer])")
    snippet = snippet.replace("Workflow(db=db, ...)", "Workflow(db=db, steps=[writer])")
    assert "..." not in snippet
    writer = Agent(name="Writer")
    earlier = SqliteDb(db_file="kern.db")
    Team(db=earlier, members=[writer]).run("Write a line", session_id="team_session_123")
    Workflow(db=earlier, steps=[writer]).run("Write a page", session_id="workflow_session_456")
    earlier.close()

    names = run_snippet(snippet, writer=writer)

    team, workflow = names["team_session"], names["workflow_session"]
    assert (team.session_id, team.session_type) == ("team_session_123", "team")
    assert exchanges(team) == [("Write a line", "You said: Write a line")]
    assert (workflow.session_id, workflow.session_type) == ("workflow_session_456", "workflow")
    pipeline = [run for run in workflow.runs if run.parent_run_id is None]
    assert [run.input for run in pipeline] == ["Write a page"]
    steps = [run for run in workflow.runs if run.parent_run_id == pipeline[0].run_id]
    assert [run.output for run in steps] == ["You said: Write a page"]


def test_history_is_read_by_another_process(openai_server, tmp_path):
    """The first process ends before the second begins; a file, and HTTP, are all that they share."""
    opening = f"{IMPORTS}\ndb = SqliteDb(db_file='agent.db')\n"

    def run(snippet):
        return subprocess.run(
            [
                sys.executable,
                "-W",
                "error",
                "-c",
                as_ours(opening + snippet + "\nprint(agent.get_session().runs[-1].output)"),
            ],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    first, later = run(FIRST_RUN), run(LATER_RUN)

    assert (first.returncode, first.stdout, first.stderr) == (0, "You said: My name is Alice\n", "")
    assert (later.returncode, later.stdout, later.stderr) == (0, "Your name is Alice.\n", "")
    assert [len(request.conversation) for request in openai_server.requests] == [1, 3]

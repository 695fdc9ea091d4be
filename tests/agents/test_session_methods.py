"""Methods of sessions under Agno's names, on agents, teams and workflows, and their asynchronous twins."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from pausing_agents import clerk, sender

from kern_nb import Agent, Team, Workflow
from kern_nb.db import InMemoryDb
from kern_nb.errors import BadUsage, OwnerMismatch, RunFailed, SessionNotFound
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.runtime.session_methods import SessionMethods

TWINS = [name for name in dir(SessionMethods) if name.startswith("a") and hasattr(SessionMethods, name[1:])]


def owners(db):
    """An agent, a team and a workflow, each with two runs in the session "chat" of its own store."""
    worker = Agent(ScriptedModel(lambda _: "from the worker"), db=db, name="Worker")

    def lead(messages):
        is_done = messages[-1].role == "tool"
        return "from the leader" if is_done else call("delegate_task_to_member", member_id="worker", task="Go")

    yield Agent(ScriptedModel(lambda _: "from the agent"), db=db, name="Solo"), "from the agent"
    yield Team([worker], ScriptedModel(lead), db=db, name="Pair"), "from the leader"
    yield Workflow([lambda step: step.input, worker], db=db, name="Flow"), "from the worker"


def test_runs_and_messages_are_read_alike():
    """The last run is the owner's own, not that of a member or a step."""
    for owner, answer in owners(InMemoryDb()):
        owner.session_id = owner.id
        assert owner.get_last_run_output() is None
        first, last = owner.run("One"), owner.run("Two")
        assert owner.get_last_run_output().run_id == last.run_id
        assert owner.get_run_output(first.run_id).content == answer
        assert owner.get_run_output("unknown") is None
        assert owner.get_run_output(first.run_id, "another") is None
        assert owner.get_run_output(first.run_id, user_id="somebody") is None
        session = owner.get_session()
        assert session.get_run(last.run_id).content == answer
        assert session.get_run("unknown") is None
        assert [m.content for m in session.get_chat_history(last_n_runs=1) if m.content] == ["Two", answer]
        assert set(session.to_dict()) >= {"session_id", "session_data", "runs", "created_at"}
        assert session.to_dict()["runs"][0]["content"] == session.runs[0].content
        assert "runs" not in session.to_dict(include_runs=False)
        messages = owner.get_session_messages(last_n_runs=1, skip_roles=["tool"])
        if isinstance(owner, Team):
            assert [m.role for m in messages] == ["system", "user", "assistant", "assistant"]
            everything = owner.get_session_messages(skip_member_messages=False)
            assert "from the worker" in [m.content for m in everything]
            members = owner.get_session_messages(member_ids=["worker"], skip_roles=["system"])
            assert [m.content for m in members] == ["Go", "from the worker"] * 2
            assert [call.tool_name for call in session.get_tool_calls(1)] == ["delegate_task_to_member"]
        elif isinstance(owner, Workflow):
            assert messages == []
            steps = session.get_messages(agent_id="worker", last_n_runs=1)
            assert [m.content for m in steps] == ["Two", "from the worker"]
        else:
            assert [m.content for m in messages] == ["Two", answer]
        with pytest.raises(SessionNotFound):
            owner.get_session_messages("unknown")


def test_messages_are_filtered():
    """By run, by number, by role and status; the instructions come once, and a result never without its call."""
    db, sent = InMemoryDb(), []
    agent = clerk(db, call("send", to="Bob"), "Done", tools=[sender(sent, name="send")], instructions="Be brief.")
    agent.run("One")
    agent.run("Two")
    session = agent.get_session()
    roles = lambda **options: [m.role for m in session.get_messages(**options)]  # noqa: E731
    assert roles() == ["system", *["user", "assistant", "tool", "assistant"] * 2]
    assert roles(limit=3) == ["system", "tool", "assistant"]
    assert roles(limit=2, skip_roles=["system"]) == ["assistant"]
    assert roles(limit=0, skip_roles=["system"]) == roles(last_n_runs=0) == []
    assert roles(last_n_runs=1, skip_roles=["tool"]) == ["system", "user", "assistant", "assistant"]
    assert roles(skip_statuses=["COMPLETED"]) == []
    assert session.get_messages(agent_id="another") == []
    [listed] = db.list_sessions()
    with pytest.raises(BadUsage, match="without its runs"):
        listed.get_messages()


def test_session_is_forked_saved_and_named():
    """A fork is a branch; a title comes from the model, or is passed, not both."""
    for owner, _ in owners(InMemoryDb()):
        owner.session_id = owner.id
        owner.run("Hello")
        fork = owner.fork_session(name="What if")
        branch = owner.get_session(fork)
        assert (branch.parent_session_id, branch.session_name) == (owner.id, "What if")
        assert [run.run_id for run in branch.runs] == [run.run_id for run in owner.get_session().runs]

        session = owner.get_session()
        session.metadata = {"task": 1}
        assert owner.save_session(session).metadata == {"task": 1}
        with pytest.raises(SessionNotFound):
            owner.fork_session(owner.id, user_id="bob")
        assert owner.set_session_name(session_name="Greeting", session_id=owner.id) == "Greeting"
        with pytest.raises(BadUsage, match="not both"):
            owner.set_session_name("chat", autogenerate=True)
        assert owner.update_session_state(session_state_updates={"a": 1}) == owner.get_session_state() == {"a": 1}
        with pytest.raises(BadUsage):
            owner.update_session_state()


def test_title_is_generated_without_being_stored():
    """By the owner's model."""
    agent = Agent(ScriptedModel(lambda _: "A title"), db=InMemoryDb(), session_id="chat")
    agent.run("Hello", user_id="alice")
    with pytest.raises(OwnerMismatch):
        agent.save_session(agent.get_session().model_copy(update={"user_id": "bob"}))
    assert agent.generate_session_name(session=agent.get_session()) == "A title"
    assert agent.get_session_name() is None
    assert agent.set_session_name(autogenerate=True) == agent.get_session_name() == "A title"
    agent.model = ScriptedModel([RuntimeError("down")])
    with pytest.raises(RunFailed):
        agent.generate_session_name()


def test_every_session_method_has_an_asynchronous_twin():
    """With the signature of the method, also of an overridden one."""
    assert {f"a{name}" for name in (
        "get_session", "get_session_state", "update_session_state", "get_session_name",
        "set_session_name", "get_session_summary", "get_session_metrics", "delete_session", "get_run_output",
        "get_last_run_output", "get_session_messages", "save_session", "fork_session", "cancel_run",
        "generate_session_name",
    )} <= set(TWINS)  # fmt: skip
    for name in TWINS:
        assert inspect.iscoroutinefunction(getattr(SessionMethods, name)), name
    for owner in (Agent, Workflow):  # each has its own parameters
        assert inspect.iscoroutinefunction(owner.aget_chat_history)
        parameters = inspect.signature(owner.get_chat_history).parameters
        assert inspect.signature(owner.aget_chat_history).parameters == parameters

    async def use(agent):
        run = await agent.arun("Hello")
        assert (await agent.aget_session()).runs[0].run_id == run.run_id
        assert (await agent.aget_last_run_output()).run_id == run.run_id
        assert await agent.aset_session_name(session_name="Greeting") == await agent.aget_session_name() == "Greeting"
        assert await agent.aupdate_session_state({"a": 1}) == await agent.aget_session_state()
        assert [m.content for m in await agent.aget_chat_history()] == ["Hello", "Hi"]
        fork = await agent.afork_session()
        await agent.adelete_session(fork)
        assert await agent.aget_session(fork) is None
        with pytest.raises(SessionNotFound):
            await agent.aget_session_name(fork)

    asyncio.run(use(Agent(ScriptedModel(["Hi"]), db=InMemoryDb(), session_id="chat", cache_session=True)))


def test_run_has_documented_names():
    """Content, metrics, tools, and a dict of all."""
    agent = clerk(InMemoryDb(), call("send", to="Bob"), "Grüße", tools=[sender([], name="send")])
    run = agent.run("One")
    assert (run.content, run.is_paused, run.is_cancelled, run.get_content_as_string()) == (
        "Grüße",
        False,
        False,
        "Grüße",
    )
    assert run.metrics.input_tokens == run.usage.input_tokens
    assert run.metrics.total_tokens == run.usage.input_tokens + run.usage.output_tokens
    assert run.metrics.duration == run.duration_s
    [sent] = run.tools
    assert (sent.tool_name, sent.tool_args, sent.result, sent.tool_call_error) == (
        "send", {"to": "Bob"}, "sent 1 to Bob", False,
    )  # fmt: skip
    with pytest.raises(BadUsage, match="waits for no answer"):
        sent.confirmed = True
    values = run.to_dict()
    assert (values["content"], values["tools"][0]["tool_name"], values["status"]) == ("Grüße", "send", "COMPLETED")
    assert isinstance(values["created_at"], str)
    assert run.model_copy(update={"output": {"ä": 1}}).get_content_as_string() == '{"ä": 1}'

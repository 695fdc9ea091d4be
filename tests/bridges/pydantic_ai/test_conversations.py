"""Conversations as sessions: what our frames and transcripts show of them, and what an attached agent adds."""

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic_ai import Agent, DeferredToolRequests, DeferredToolResults
from pydantic_ai.conversation import Conversation
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel

from kern_nb import compare
from kern_nb.bridges.pydantic_ai import KernConversationStore, attach
from kern_nb.db import InMemoryDb, SessionStore
from kern_nb.errors import UnstorableValue


class Chat:
    """An agent, and a store of its conversations."""

    def __init__(self, store: SessionStore, *, attached: bool) -> None:
        self.store, self.conversations = store, KernConversationStore(store)
        self.agent = Agent(TestModel(custom_output_text="Hello!"), name="greeter")
        if attached:
            attach(self.agent, store)

    def say(self, text: str, session_id: str = "chat", *, branch_at: int | None = None) -> None:
        async def turn() -> None:
            conversation = await self.conversations.load(session_id)
            if conversation is not None and branch_at is not None:
                conversation = await self.conversations.branch(
                    session_id, at=branch_at, expected_revision=conversation.revision
                )
            conversation = conversation or Conversation(conversation_id=session_id)
            await self.conversations.save(await self.agent.run(text, conversation=conversation))

        asyncio.run(turn())

    def fork(self, **options: Any) -> Conversation:
        return asyncio.run(self.conversations.fork("chat", **options))

    def texts(self, session_id: str = "chat") -> list[str]:
        """What our transcript shows."""
        runs = self.store.get_session(session_id).runs
        return [message.content for run in runs or [] for message in run.messages]

    def theirs(self, session_id: str = "chat") -> list[str]:
        """What pydantic-ai loads."""
        loaded = asyncio.run(self.conversations.load(session_id))
        return [message.parts[0].content for message in loaded.messages]

    def n_rows(self) -> int:
        with self.store.read_connection() as connection:
            count = sa.select(sa.func.count()).select_from(self.store.tables.messages)
            return connection.execute(count).scalar_one()


@pytest.fixture(params=[False, True], ids=["saved", "recorded"])
def chat(request: pytest.FixtureRequest, store: SessionStore) -> Chat:
    """A conversation of two turns, that the agent's runs are recorded in, or not."""
    chat = Chat(store, attached=request.param)
    chat.say("One")
    chat.say("Two")
    return chat


@pytest.mark.every_engine
def test_a_conversation_is_a_session_with_a_run_for_each_turn(chat):
    session = chat.store.get_session("chat")
    assert [(run.input, run.output, run.status) for run in session.runs] == [
        ("One", "Hello!", "COMPLETED"),
        ("Two", "Hello!", "COMPLETED"),
    ]
    assert chat.texts() == chat.theirs() == ["One", "Hello!", "Two", "Hello!"]
    assert chat.store.messages_df()["content"].tolist() == chat.texts()
    usage = asyncio.run(chat.conversations.load("chat")).usage
    assert chat.store.runs_df()["input_tokens"].sum() == usage.input_tokens
    assert chat.n_rows() == 4


def test_runs_keep_the_frameworks_ids(chat):
    entries = asyncio.run(chat.conversations.load_entries("chat"))
    ids = [entry.message.run_id for entry in entries]
    assert [run.run_id for run in chat.store.get_session("chat").runs] == [ids[0], ids[2]]
    messages = [message for run in chat.store.get_session("chat").runs for message in run.messages]
    assert [message.message_id for message in messages] == [entry.id for entry in entries]


@pytest.mark.every_engine
def test_a_fork_is_a_branch_that_copies_no_row(chat):
    chat.fork(at=2, new_conversation_id="what-if")
    chat.fork(new_conversation_id="end")
    assert chat.n_rows() == 4
    fork = chat.store.get_session("what-if")
    assert (fork.parent_session_id, fork.fork_run_index, fork.fork_message_index) == ("chat", 0, None)
    chat.say("Else", "what-if")
    assert chat.n_rows() == 6
    assert chat.texts("what-if") == chat.theirs("what-if") == ["One", "Hello!", "Else", "Hello!"]
    comparison = compare("chat", "what-if", store=chat.store)
    assert comparison.divergence is not None


def test_a_branch_of_ours_is_no_conversation_until_it_is_saved(chat):
    chat.store.branch("chat", after=0, new_session_id="ours")
    assert asyncio.run(chat.conversations.load("ours")) is None


@pytest.mark.every_engine
@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_what_a_conversation_leaves_is_kept_as_a_session(chat, at):
    before = chat.texts()
    chat.fork(at=3, new_conversation_id="fork")
    chat.say("Again", branch_at=at)
    assert chat.texts() == chat.theirs() == [*before[:at], "Again", "Hello!"]
    assert chat.texts("chat~1") == before
    assert chat.texts("fork") == chat.theirs("fork") == before[:3]
    assert chat.store.get_session("chat").parent_session_id == "chat~1"
    assert chat.n_rows() == 6
    chat.say("Third")
    assert chat.texts() == chat.theirs() == [*before[:at], "Again", "Hello!", "Third", "Hello!"]
    assert not chat.store.check().problems


@pytest.mark.every_engine
def test_a_run_that_rewrites_the_history_is_stored_once(chat):
    async def turn() -> None:
        stored = await chat.conversations.load("chat")
        rewritten = Conversation(messages=stored.messages[:2], conversation_id="chat", revision=stored.revision)
        await chat.conversations.save(await chat.agent.run("Else", conversation=rewritten))

    asyncio.run(turn())
    assert chat.texts() == chat.theirs() == ["One", "Hello!", "Else", "Hello!"]
    assert chat.n_rows() == 6
    assert not chat.store.check().problems


def test_edited_messages_are_copies_that_are_not_counted(chat):
    async def edit() -> None:
        stored = await chat.conversations.load("chat")
        stored.messages[1] = ModelResponse([TextPart("Edited")], run_id=stored.messages[1].run_id)
        conversation = Conversation(messages=stored.messages, conversation_id="chat", revision=stored.revision)
        await chat.conversations.save(conversation)

    before = chat.store.runs_df()["input_tokens"].sum()
    asyncio.run(edit())
    assert chat.texts() == chat.theirs() == ["One", "Edited", "Two", "Hello!"]
    assert chat.store.runs_df()["input_tokens"].sum() == before


@pytest.mark.every_engine
def test_deleting_a_conversation_deletes_what_only_it_has(chat):
    chat.fork(at=1, new_conversation_id="fork")
    chat.say("Again", branch_at=2)
    asyncio.run(chat.conversations.delete("chat"))
    assert [session.session_id for session in chat.store.list_sessions()] == ["fork"]
    assert chat.texts("fork") == chat.theirs("fork") == ["One"]
    assert chat.n_rows() == 1


def test_a_title_and_scores_stay_with_the_conversation(chat):
    chat.store.rename_session("chat", "Greetings")
    chat.store.add_score("chat", "reward", 1.0)
    chat.say("Again", branch_at=0)
    assert chat.store.get_session("chat").session_name == "Greetings"
    assert chat.store.scores_df()["session_id"].tolist() == ["chat"]


def test_the_scope_is_the_user():
    store = InMemoryDb()
    conversation = Conversation(conversation_id="chat", messages=[ModelResponse([TextPart("Hi")])])
    asyncio.run(KernConversationStore(store).save(conversation, scope="ann"))
    assert store.get_session("chat", user_id="ann") is not None
    assert store.get_session("chat", user_id="bob") is None


def test_a_paused_run_goes_on_in_another_process():
    """The conversation carries what it waits for; the run that was recorded is completed, and saved as one."""
    store = InMemoryDb()
    conversations = KernConversationStore(store)

    def respond(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        is_first = len(messages) == 1
        return ModelResponse([ToolCallPart("delete", {"path": "a"}, "c1")] if is_first else [TextPart("done")])

    agent: Agent[None, Any] = Agent(FunctionModel(respond), output_type=[str, DeferredToolRequests])

    @agent.tool_plain(requires_approval=True)
    def delete(path: str) -> str:
        return f"deleted {path}"

    attach(agent, store)

    async def pause() -> None:
        await conversations.save(await agent.run("Delete.", conversation=Conversation(conversation_id="chat")))

    async def resume() -> None:
        stored = await conversations.load("chat")
        results = stored.deferred_tool_requests.build_results(approve_all=True)
        assert isinstance(results, DeferredToolResults)
        await conversations.save(await agent.run(conversation=stored, deferred_tool_results=results))

    asyncio.run(pause())
    assert store.get_session("chat").runs[0].status == "PAUSED"
    asyncio.run(resume())
    [run] = store.get_session("chat").runs
    assert (run.status, run.output) == ("COMPLETED", "done")
    assert [message.message_id is not None for message in run.messages] == [True] * 4
    assert len(asyncio.run(conversations.load("chat")).messages) == 4


def test_history_is_read_with_a_constant_number_of_queries(chat):
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        statements.append(statement)

    def count() -> int:
        statements.clear()
        asyncio.run(chat.conversations.load("fork"))
        return sum(statement.lstrip("(").startswith(("SELECT", "WITH")) for statement in statements)

    chat.fork(new_conversation_id="fork")
    chat.say("Three", "fork")
    sa.event.listen(chat.store.engine, "before_cursor_execute", note)
    before = count()
    for n in range(10):
        chat.say(str(n), "fork")
    assert count() == before <= 5


def test_a_value_that_cannot_be_stored_is_refused(store):
    conversation = Conversation(conversation_id="chat")
    conversation.messages = [ModelResponse([ToolCallPart("f", {"x": object()}, "c1")])]
    with pytest.raises(UnstorableValue):
        asyncio.run(KernConversationStore(store).save(conversation))
    assert store.get_session("chat") is None


def test_any_text_comes_back(chat):
    hostile = "NUL \x00, lone \ud800, <b>'\"\\"
    chat.say(hostile)
    assert chat.theirs()[-2] == hostile
    assert chat.texts()[-2] == hostile

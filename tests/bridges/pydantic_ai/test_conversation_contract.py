"""The contract of pydantic-ai's conversation stores, told again: for theirs in memory, and for ours on every engine."""

import asyncio
from collections.abc import Callable, Coroutine
from copy import deepcopy
from datetime import timedelta
from importlib.metadata import version
from typing import Any

import pytest
from pydantic_ai import BinaryImage
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    ConversationStore,
    InMemoryConversationStore,
)
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    RetryFeedbackPart,
    RetryInfo,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.tools import DeferredToolRequests
from pydantic_ai.usage import RequestUsage, RunUsage

from kern_nb.bridges.pydantic_ai import KernConversationStore
from kern_nb.db import SessionStore

SUITE = f"pydantic-ai {version('pydantic-ai-slim')}: contract of conversation stores (ours)"


def ask(text: str) -> ModelRequest:
    return ModelRequest([UserPromptPart(text)])


def answer(text: str) -> ModelResponse:
    return ModelResponse([TextPart(text)], usage=RequestUsage(input_tokens=5, output_tokens=2), model_name="m")


def turns(*texts: str) -> list[ModelMessage]:
    """A question and an answer for each text."""
    return [message for text in texts for message in (ask(text), answer(f"re: {text}"))]


def texts(messages: list[ModelMessage]) -> list[str]:
    return [message.parts[0].content for message in messages]


def wait(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def save(store: ConversationStore, *names: str, **options: Any) -> Conversation:
    """A saved conversation of the id ``c``."""
    conversation = Conversation(messages=turns(*names), conversation_id="c", usage=RunUsage(requests=len(names)))
    wait(store.save(conversation, **options))
    return conversation


def ids(store: ConversationStore, conversation_id: str = "c") -> list[str]:
    return [entry.id for entry in wait(store.load_entries(conversation_id))]


class Contract:
    def test_a_conversation_is_loaded_as_it_was_saved(self, conversations):
        saved = save(conversations, "one", "two")
        loaded = wait(conversations.load("c"))
        assert loaded == saved
        assert (loaded.new_message_index, loaded.usage.requests) == (4, 2)
        assert loaded.revision is not None

    def test_one_that_is_not_stored_is_none(self, conversations):
        assert wait(conversations.load("c")) is None
        assert wait(conversations.load_entries("c")) is None
        assert wait(conversations.read_record("c")) is None
        assert wait(conversations.list_conversations()) == []
        wait(conversations.delete("c"))

    def test_an_empty_conversation(self, conversations):
        save(conversations)
        assert wait(conversations.load("c")).messages == []
        assert wait(conversations.read_record("c")).head_id is None
        loaded = wait(conversations.load("c"))
        loaded.messages += turns("one")
        wait(conversations.save(loaded))
        assert texts(wait(conversations.load("c")).messages) == ["one", "re: one"]

    def test_a_save_stores_what_is_new(self, conversations):
        conversation = save(conversations, "one")
        first = wait(conversations.load_entries("c"))
        conversation.messages += turns("two")
        new = wait(conversations.save(conversation))
        assert [entry.message for entry in new] == conversation.messages[2:]
        entries = wait(conversations.load_entries("c"))
        assert entries == [*first, *new]
        assert [entry.parent_id for entry in entries] == [None, *(entry.id for entry in entries[:-1])]
        assert wait(conversations.read_record("c")).head_id == new[-1].id

    def test_a_save_without_news_has_a_new_revision(self, conversations):
        conversation = save(conversations, "one")
        before = conversation.revision
        assert wait(conversations.save(conversation)) == []
        assert conversation.revision not in (None, before)
        assert len(ids(conversations)) == 2

    def test_a_stale_save_stores_nothing(self, conversations):
        save(conversations, "one")
        first, second = wait(conversations.load("c")), wait(conversations.load("c"))
        first.messages += turns("two")
        wait(conversations.save(first))
        second.messages += turns("else")
        with pytest.raises(ConversationConflict) as conflict:
            wait(conversations.save(second))
        assert conflict.value.conversation_id == "c"
        assert texts(wait(conversations.load("c")).messages) == ["one", "re: one", "two", "re: two"]

    def test_one_that_was_not_loaded_does_not_replace_one(self, conversations):
        save(conversations, "one")
        with pytest.raises(ConversationConflict):
            wait(conversations.save(Conversation(messages=turns("else"), conversation_id="c")))

    def test_one_that_was_deleted_is_not_saved_again(self, conversations):
        conversation = save(conversations, "one")
        wait(conversations.delete("c"))
        with pytest.raises(ConversationConflict):
            wait(conversations.save(conversation))
        other = save(conversations, "other")
        assert other.revision != conversation.revision
        with pytest.raises(ConversationConflict):
            wait(conversations.save(conversation))
        assert texts(wait(conversations.load("c")).messages) == ["other", "re: other"]

    def test_of_savers_at_once_one_saves(self, conversations):
        save(conversations, "one")
        copies = [wait(conversations.load("c")) for _ in range(5)]
        for n, copy in enumerate(copies):
            copy.messages += turns(f"by {n}")

        async def save_all() -> list[Any]:
            return await asyncio.gather(*map(conversations.save, copies), return_exceptions=True)

        outcomes = wait(save_all())
        assert sum(isinstance(outcome, ConversationConflict) for outcome in outcomes) == 4
        assert len(wait(conversations.load("c")).messages) == 4

    @pytest.mark.parametrize(("limit", "expected"), [(0, 0), (1, 1), (3, 3), (4, 4), (9, 4)])
    def test_the_last_messages(self, conversations, limit, expected):
        messages = save(conversations, "one", "two").messages
        assert wait(conversations.load("c", limit=limit)).messages == messages[4 - expected :]
        assert [e.id for e in wait(conversations.load_entries("c", limit=limit))] == ids(conversations)[4 - expected :]

    def test_a_window_is_saved_to_the_whole(self, conversations):
        save(conversations, "one", "two")
        window = wait(conversations.load("c", limit=1))
        window.messages += turns("three")
        assert len(wait(conversations.save(window))) == 2
        assert len(wait(conversations.load("c")).messages) == 6

    def test_a_negative_limit_is_refused(self, conversations):
        save(conversations, "one")
        for call in (conversations.load("c", limit=-1), conversations.list_conversations(limit=-1)):
            with pytest.raises(UserError):
                wait(call)

    @pytest.mark.parametrize("shared", [0, 1, 2, 3])
    def test_a_rewritten_history_branches_off(self, conversations, shared):
        conversation = save(conversations, "one", "two")
        before = ids(conversations)
        rewritten = Conversation(
            messages=[*conversation.messages[:shared], *turns("else")],
            conversation_id="c",
            revision=conversation.revision,
        )
        new = wait(conversations.save(rewritten))
        assert len(new) == 2
        assert new[0].parent_id == (before[shared - 1] if shared else None)
        assert ids(conversations) == [*before[:shared], *(entry.id for entry in new)]
        record = wait(conversations.read_record("c"))
        assert record.branches == [before[-1]]
        assert [entry.id for entry in wait(conversations.read_history(before[-1]))] == before

    def test_a_shortened_history_moves_the_head_back(self, conversations):
        conversation = save(conversations, "one", "two")
        before = ids(conversations)
        shorter = Conversation(messages=conversation.messages[:2], conversation_id="c", revision=conversation.revision)
        assert wait(conversations.save(shorter)) == []
        assert ids(conversations) == before[:2]

    def test_a_branch_goes_back_and_returns(self, conversations):
        conversation = save(conversations, "one", "two")
        first_line = ids(conversations)
        branched = wait(conversations.branch("c", at=2, expected_revision=conversation.revision))
        assert texts(branched.messages) == ["one", "re: one"]
        branched.messages += turns("else")
        wait(conversations.save(branched))
        second_line = ids(conversations)
        assert second_line[:2] == first_line[:2]
        assert wait(conversations.read_record("c")).branches == [first_line[-1]]
        back = wait(conversations.branch("c", from_entry=first_line[-1], expected_revision=branched.revision))
        assert back.messages == conversation.messages
        assert wait(conversations.read_record("c")).branches == [second_line[-1]]
        back.messages += turns("three")
        wait(conversations.save(back))
        assert ids(conversations)[:4] == first_line
        middle = wait(conversations.branch("c", from_entry=second_line[2], expected_revision=back.revision))
        assert texts(middle.messages) == ["one", "re: one", "else"]
        assert [e.id for e in wait(conversations.read_history(second_line[-1]))] == second_line

    def test_what_cannot_be_branched(self, conversations):
        conversation = save(conversations, "one")
        revision = conversation.revision
        for options in ({}, {"at": 3}, {"at": -1}, {"at": 1, "from_entry": "x"}, {"from_entry": "x"}):
            with pytest.raises(UserError):
                wait(conversations.branch("c", expected_revision=revision, **options))
        with pytest.raises(UserError):
            wait(conversations.branch("other", at=0, expected_revision=revision))
        with pytest.raises(ConversationConflict):
            wait(conversations.branch("c", at=1, expected_revision="another"))

    def test_a_fork_shares_entries(self, conversations):
        save(conversations, "one", "two")
        fork = wait(conversations.fork("c", at=2, new_conversation_id="f"))
        assert ids(conversations, "f") == ids(conversations)[:2]
        record = wait(conversations.read_record("f"))
        assert (record.forked_from, record.forked_at, record.usage) == ("c", record.head_id, RunUsage())
        fork.messages += turns("else")
        wait(conversations.save(fork))
        assert texts(wait(conversations.load("f")).messages) == ["one", "re: one", "else", "re: else"]
        assert texts(wait(conversations.load("c")).messages)[2:] == ["two", "re: two"]
        again = wait(conversations.fork("f", new_conversation_id="g"))
        assert again.messages == fork.messages
        assert ids(conversations, "g") == ids(conversations, "f")

    def test_a_whole_fork_carries_usage_and_requests(self, conversations):
        requests = DeferredToolRequests(approvals=[ToolCallPart("f", {}, "c1")])
        conversation = Conversation(conversation_id="c", usage=RunUsage(requests=3), deferred_tool_requests=requests)
        conversation.messages = [ask("one"), ModelResponse([ToolCallPart("f", {}, "c1")])]
        wait(conversations.save(conversation))
        whole = wait(conversations.fork("c"))
        assert (whole.usage.requests, whole.deferred_tool_requests) == (3, requests)
        part = wait(conversations.fork("c", at=1))
        assert (part.usage.requests, part.deferred_tool_requests) == (0, None)
        assert wait(conversations.load(whole.conversation_id)) == whole

    def test_an_empty_fork_and_a_fork_from_a_branch_left(self, conversations):
        conversation = save(conversations, "one", "two")
        line = ids(conversations)
        empty = wait(conversations.fork("c", at=0))
        assert empty.messages == []
        wait(conversations.branch("c", at=0, expected_revision=conversation.revision))
        fork = wait(conversations.fork("c", from_entry=line[2], new_conversation_id="f"))
        assert texts(fork.messages) == ["one", "re: one", "two"]
        assert ids(conversations, "f") == line[:3]

    def test_what_cannot_be_forked(self, conversations):
        save(conversations, "one")
        wait(conversations.fork("c", new_conversation_id="f"))
        with pytest.raises(ConversationConflict):
            wait(conversations.fork("c", new_conversation_id="f"))
        for name, options in [("other", {}), ("c", {"at": 3}), ("c", {"at": 1, "from_entry": "x"})]:
            with pytest.raises(UserError):
                wait(conversations.fork(name, **options))

    def test_forks_outlive_what_they_share(self, conversations):
        conversation = save(conversations, "one", "two")
        wait(conversations.branch("c", at=2, expected_revision=conversation.revision))
        wait(conversations.fork("c", at=1, new_conversation_id="f"))
        wait(conversations.fork("f", new_conversation_id="g"))
        shared = ids(conversations, "f")
        wait(conversations.delete("c"))
        assert wait(conversations.load("c")) is None
        assert ids(conversations, "f") == ids(conversations, "g") == shared
        wait(conversations.delete("f"))
        loaded = wait(conversations.load("g"))
        loaded.messages += [answer("end")]
        wait(conversations.save(loaded))
        assert texts(wait(conversations.load("g")).messages) == ["one", "end"]

    def test_a_delete_erases_what_nothing_shares(self, conversations):
        conversation = save(conversations, "one", "two")
        line = ids(conversations)
        branched = wait(conversations.branch("c", at=1, expected_revision=conversation.revision))
        branched.messages += [answer("else")]
        wait(conversations.save(branched))
        wait(conversations.delete("c"))
        for entry_id in {*line}:
            with pytest.raises(LookupError):
                wait(conversations.read_entry(entry_id))

    def test_a_delete_of_another_revision_is_refused(self, conversations):
        save(conversations, "one")
        for name in ("c", "other"):
            with pytest.raises(ConversationConflict):
                wait(conversations.delete_record(name, expected_revision="another"))
        assert len(ids(conversations)) == 2

    def test_the_latest_first(self, conversations):
        for name in ("a", "b", "c"):
            scope = "odd" if name != "b" else None
            wait(conversations.save(Conversation(messages=turns(name), conversation_id=name), scope=scope))
        again = wait(conversations.load("a"))
        wait(conversations.save(again))

        def names(**options: Any) -> list[str]:
            return [record.conversation_id for record in wait(conversations.list_conversations(**options))]

        assert names() == ["a", "c", "b"]
        assert names(scope="odd") == ["a", "c"]
        assert names(scope="odd", limit=1) == ["a"]
        assert names(limit=0) == names(scope="none") == []

    def test_a_scope_keeps_a_conversation_to_its_owner(self, conversations):
        conversation = save(conversations, "one", scope="ann")
        assert wait(conversations.read_record("c")).scope == "ann"
        assert wait(conversations.load("c", scope="bob")) is None
        assert wait(conversations.load("c", scope="ann")) == wait(conversations.load("c")) == conversation
        assert wait(conversations.load_entries("c", scope="bob")) is None
        with pytest.raises(ConversationConflict):
            wait(conversations.save(conversation, scope="bob"))
        with pytest.raises(UserError):
            wait(conversations.branch("c", at=1, expected_revision=conversation.revision, scope="bob"))
        with pytest.raises(UserError):
            wait(conversations.fork("c", source_scope="bob"))
        wait(conversations.delete("c", scope="bob"))
        conversation.messages += turns("two")
        wait(conversations.save(conversation))
        assert wait(conversations.read_record("c")).scope == "ann"
        kept = wait(conversations.fork("c", new_conversation_id="f"))
        other = wait(conversations.fork("c", new_conversation_id="g", scope="bob"))
        assert [wait(conversations.read_record(c.conversation_id)).scope for c in (kept, other)] == ["ann", "bob"]
        wait(conversations.delete("c", scope="ann"))
        assert wait(conversations.load("c")) is None

    def test_every_kind_of_part_comes_back(self, conversations):
        image = BinaryImage(b"\x89PNG" + bytes(range(256)), media_type="image/png", identifier="i1")
        calls = [ToolCallPart("f", {"x": [1, None, {"y": "ü"}]}, "c1"), ToolCallPart("g", '{"raw": 1}', "c2")]
        usage = RequestUsage(input_tokens=7, output_tokens=3, details={"reasoning_tokens": 2})
        messages = [
            ModelRequest([SystemPromptPart("Be kind."), UserPromptPart(["Look:", image])], instructions="Briefly."),
            ModelResponse([ThinkingPart("Hm.", signature="s", provider_name="p"), TextPart("Yes."), *calls],
                          usage=usage, model_name="m", provider_name="p", provider_response_id="r1",
                          finish_reason="tool_call", metadata={"k": 1}),
            ModelRequest([ToolReturnPart("f", {"rows": [1, 2]}, "c1", metadata={"m": 1}),
                          ToolReturnPart("g", "bad", "c2", outcome="failed"), UserPromptPart("And?")]),
            ModelResponse([], model_name="m"),
            ModelRequest([]),
            ModelResponse([TextPart("Done.")], run_id="r", conversation_id="c"),
        ]  # fmt: skip
        wait(conversations.save(Conversation(messages=messages, conversation_id="c")))
        assert wait(conversations.load("c")).messages == messages

    def test_retries_come_back(self, conversations):
        retry = [
            ask("one"),
            ModelResponse([TextPart("")]),
            ModelRequest([RetryFeedbackPart("Please answer.", retry=RetryInfo(cause="no_output"))]),
        ]
        wait(conversations.save(Conversation(messages=deepcopy(retry), conversation_id="c")))
        assert wait(conversations.load("c")).messages[2].parts[0].content == "Please answer."

    def test_requests_that_wait_come_back(self, conversations):
        requests = DeferredToolRequests(
            calls=[ToolCallPart("g", {"y": 2}, "c2")],
            approvals=[ToolCallPart("f", {"x": 1}, "c1")],
            metadata={"c1": {"reason": "it deletes"}},
        )
        messages = [ask("one"), ModelResponse([*requests.approvals, *requests.calls])]
        conversation = Conversation(messages=messages, conversation_id="c", deferred_tool_requests=requests)
        wait(conversations.save(conversation))
        loaded = wait(conversations.load("c"))
        assert loaded.deferred_tool_requests == requests
        assert loaded.deferred_tool_requests.kind("c1") == "approval"
        back = wait(conversations.branch("c", at=1, expected_revision=loaded.revision))
        assert back.deferred_tool_requests is None

    def test_what_was_passed_or_returned_can_be_changed(self, conversations):
        conversation = save(conversations, "one")
        wait(conversations.load("c")).messages[0].parts[0].content = "changed"
        conversation.messages[0].parts[0].content = "changed"
        record = wait(conversations.read_record("c"))
        record.branches.append("x")
        record.usage.requests = 99
        assert texts(wait(conversations.load("c")).messages) == ["one", "re: one"]
        assert wait(conversations.read_record("c")).usage.requests == 1

    def test_a_head_that_nobody_has_is_a_conflict(self, conversations):
        record = ConversationRecord(conversation_id="c", head_id="nobody's")
        with pytest.raises(ConversationConflict):
            wait(conversations.write_record(record, expected_revision=None))
        assert wait(conversations.read_record("c")) is None

    def test_a_conflict_leaves_no_entries(self, conversations):
        save(conversations, "one")
        entry = ConversationEntry(parent_id=ids(conversations)[-1], message=ask("two"))
        record = ConversationRecord(conversation_id="c", head_id=entry.id)
        with pytest.raises(ConversationConflict):
            wait(conversations.write_record(record, new_entries=[entry], expected_revision="another"))
        with pytest.raises(LookupError):
            wait(conversations.read_entry(entry.id))

    def test_a_record_comes_back(self, conversations):
        save(conversations, "one")
        record = wait(conversations.read_record("c"))
        changed = ConversationRecord(
            conversation_id="c", head_id=record.head_id, usage=RunUsage(requests=2, tool_calls=3, details={"a": 1}),
            scope="ann", branches=[record.head_id], updated_at=record.updated_at + timedelta(microseconds=5),
        )  # fmt: skip
        wait(conversations.write_record(changed, expected_revision=record.revision))
        assert wait(conversations.read_record("c")) == changed
        assert list(wait(conversations.read_records(scope="ann"))) == [changed]

    def test_entries_by_id(self, conversations):
        save(conversations, "one", "two")
        entries = wait(conversations.load_entries("c"))
        assert [wait(conversations.read_entry(entry.id)) for entry in entries] == entries
        assert wait(conversations.read_history(entries[1].id)) == entries[:2]
        assert wait(conversations.read_history(None)) == []
        with pytest.raises(LookupError):
            wait(conversations.read_entry("nobody's"))
        with pytest.raises(LookupError):
            wait(conversations.read_history("nobody's"))


class TestTheirStore(Contract):
    @pytest.fixture
    def conversations(self, record_property: Callable[[str, object], None]) -> ConversationStore:
        record_property("suite", SUITE)
        record_property("store", "theirs")
        return InMemoryConversationStore()


@pytest.mark.every_engine
class TestOurStore(Contract):
    @pytest.fixture
    def conversations(
        self, store: SessionStore, engine_name: str, record_property: Callable[[str, object], None]
    ) -> ConversationStore:
        record_property("suite", SUITE)
        record_property("store", engine_name)
        return KernConversationStore(store)

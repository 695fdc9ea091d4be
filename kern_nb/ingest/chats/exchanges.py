"""Logs of requests to a model's API: each request repeats the history, which is stored once.

An exchange is a request and its answer. It continues the conversation that its history begins with, or one that it
names; where several exchanges continue the same messages in different ways, the conversation is a tree. Histories are
compared by what was said: roles, texts, calls and results, without reasoning, which clients do not send back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from kern_nb.ingest.chats.drafts import Conversation, describe_error, make_draft, set_error
from kern_nb.ingest.importer import Draft, hash_record
from kern_nb.ingest.parsing.values import decode_json, to_object
from kern_nb.ingest.run_splitter import SourceMessage
from kern_nb.ingest.source import Source
from kern_nb.records import Message, RunStatus, Usage

_REASONING_TYPES = frozenset({"thinking", "redacted_thinking", "reasoning"})

_REQUESTS = ("request", "request_body", "requestBody", "req", "params", "input", "kwargs")
_REQUEST_FIELDS = frozenset(
    {"messages", "input", "model", "system", "instructions", "previous_response_id", "max_tokens", "tools", "metadata"}
)
FIRST_ERROR_STATUS = 400
"""Of HTTP."""

_RESPONSES = ("response", "response_body", "responseBody", "res", "output", "result", "completion")


@dataclass
class Exchange:
    """A request and its answer.

    Attributes:
        line: The line of its record.
        name: The id of the conversation, if this is its first exchange and states no id.
        session_id: The conversation that it states.
        system: The system prompt, if any.
        history: The messages of the request without it.
        answer: The messages of the answer.
        alternatives: Other answers of a message each, to the same request.
        fields: Other fields: the metadata of a new conversation.
        model: The model.
        error: Why there is no complete answer.
        error_status: The status of the run then; INTERRUPTED, also without an error, if the log ends before the answer.
        id: The id of the answer.
        previous: The id of the answer that it continues; its history is then only what is new.
        conversation: The conversation in which it follows the exchange before it.
        created_at: When it began.
        has_local_times: Whether its times lack a zone.
    """

    line: int
    name: str
    session_id: str | None = None
    system: Sequence[SourceMessage] = ()
    history: list[SourceMessage] = field(default_factory=list)
    answer: Sequence[SourceMessage] = ()
    alternatives: Sequence[SourceMessage] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    error: Any = None
    error_status: RunStatus = "ERROR"
    id: str | None = None
    previous: str | None = None
    conversation: str | None = None
    created_at: datetime | None = None
    has_local_times: bool = False


def split_exchange(value: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]] | None:
    """The request, the response and the other fields of a log's record; None if it is no such record.

    The request may be a field, or the fields of the record itself. Bodies may be nested or JSON text.
    """
    if not isinstance(value, dict):
        return None
    requests = {key: body for key in _REQUESTS if (body := _body(value.get(key)))}
    responses = {key: body for key in _RESPONSES if (body := _body(value.get(key)))}
    request_key = next((key for key in requests if "messages" in requests[key] or "input" in requests[key]), None)
    response_key = next(iter(responses), None)
    if request_key is not None:
        rest = {key: item for key, item in value.items() if key not in (request_key, response_key)}
        return requests[request_key], responses.get(response_key or "", {}), rest
    if response_key is not None and (value.get("messages") or value.get("input")):
        request = {key: item for key, item in value.items() if key in _REQUEST_FIELDS}
        rest = {key: item for key, item in value.items() if key not in _REQUEST_FIELDS and key != response_key}
        return request, responses[response_key], rest
    return None


def find_failure(response: Mapping[str, Any], rest: Mapping[str, Any]) -> str | None:
    """Why a request has no answer: the error, or the HTTP status, in its response or beside it."""
    bodies = (response, rest, *(to_object(rest.get(key)) for key in _RESPONSES))
    if (error := next((body["error"] for body in bodies if body.get("error")), None)) is not None:
        return describe_error(error)
    statuses = [body.get(key) for body in bodies for key in ("status_code", "status")]
    return next((f"status {code}" for code in statuses if type(code) is int and code >= FIRST_ERROR_STATUS), None)


def _body(value: Any) -> dict[str, Any]:
    """An object, itself or in its ``body``, or as JSON text."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        value = decode_json(value)
    if isinstance(value, dict) and value.get("body") is not None:
        status = value.get("status_code", value.get("status"))
        body = decode_json(value["body"]) if isinstance(value["body"], str) else value["body"]
        value = body if not isinstance(body, dict) or status is None else {**body, "status_code": status}
    return to_object(value)


def in_order(exchanges: list[Exchange]) -> Iterator[Exchange]:
    """Yield exchanges oldest first, each after the one that it continues: an API lists the newest first."""
    times = {id(e): e.created_at.timestamp() for e in exchanges if e.created_at is not None}
    if len(times) == len(exchanges):
        exchanges = sorted(exchanges, key=lambda exchange: times[id(exchange)])
    # A response that is logged twice counts once, as it was last.
    by_id = {exchange.id: exchange for exchange in exchanges if exchange.id is not None}
    exchanges = [exchange for exchange in exchanges if exchange.id is None or by_id[exchange.id] is exchange]
    latest: dict[str, str | None] = {}
    for exchange in exchanges:
        if exchange.conversation is not None:
            exchange.previous = exchange.previous or latest.get(exchange.conversation)
            latest[exchange.conversation] = exchange.id or latest.get(exchange.conversation)
    done: set[int] = set()
    for exchange in exchanges:
        pending: list[Exchange] = []
        current: Exchange | None = exchange
        while current is not None and id(current) not in done:
            done.add(id(current))
            pending.append(current)
            current = by_id.get(current.previous or "")
        yield from reversed(pending)


class _Node:
    __slots__ = ("children", "end", "exchange", "is_leaf", "item", "last", "parent", "root", "session")

    def __init__(self, session: _Session, parent: _Node | None, item: SourceMessage, exchange: Exchange) -> None:
        self.session, self.parent, self.item = session, parent, item
        self.exchange = self.last = exchange
        self.is_leaf, self.end = True, 0
        self.children: dict[str, _Node] = {}
        self.root: int = id(self) if parent is None else parent.root
        if parent is not None:
            parent.is_leaf = False

    def add_copy(self, item: SourceMessage) -> None:
        """Add what another record of this message states: the usage of an answer that another request repeats.

        Two responses with the same text are one message with the usage of both.
        """
        mine, other = self.item.message, item.message
        if other.usage is None:
            return
        if mine.usage is None:
            self.item = item
        elif mine.message_id and other.message_id and mine.message_id != other.message_id:
            usage = Usage.total([mine.usage, other.usage])
            message = mine.model_copy(update={"usage": usage})
            self.item = self.item._replace(message=message, record=[self.item.record, item.record])

    @property
    def is_unanswered(self) -> bool:
        """Whether nothing follows it, and it is no answer itself."""
        return self.is_leaf and self.item.message.role != "assistant"


class _Session(NamedTuple):
    session_id: str
    first: Exchange
    nodes: list[_Node]


class ConversationTrees:
    """The conversations of a log."""

    def __init__(self) -> None:
        self._sessions: dict[str, _Session] = {}
        # The node of a history by the hash of all that was said, from the conversation's start or system prompt on.
        self._nodes: dict[str, _Node] = {}
        self._ends: dict[str, _Node | None] = {}
        self._starts: dict[str, _Session] = {}
        self._logged: set[str] = set()
        self._n_exchanges = 0

    def add(self, exchange: Exchange) -> None:
        """Add an exchange after those before it; one that is logged twice counts once."""
        self._n_exchanges += 1
        said = [_said(item.message) for item in exchange.history]
        if self._is_logged(exchange, said):
            return
        session, node, n_shared = self._find(exchange, said)
        roots = [hash_record("session", session.session_id), *_roots(exchange)]
        chains = [_chain(root, said) if exchange.previous is None else [] for root in roots]
        shared = _path(node) if node is not None and n_shared else []
        for position, item in enumerate(exchange.history):
            if position >= n_shared:
                node = self._append(session, node, item, exchange)
            at = node if position >= n_shared else shared[position]
            if at is not None:
                self._register(at, [chain[position] for chain in chains if chain])
        heads = [chain[-1] if chain else root for chain, root in zip(chains, roots, strict=True)]
        prompt, prompts = node, heads if exchange.previous is None else []
        for item in exchange.answer:
            node = self._append(session, node, item, exchange)
            heads = [hash_record(head, _said(item.message)) for head in heads]
            if exchange.previous is None:
                self._register(node, heads)
        for item in exchange.alternatives:
            alternative = self._append(session, prompt, item, exchange)
            self._register(alternative, [hash_record(head, _said(item.message)) for head in prompts])
        if node is not None:
            node.end, node.last = self._n_exchanges, exchange
        if exchange.id is not None:
            self._ends[exchange.id] = node
            self._starts[exchange.id] = session

    def _is_logged(self, exchange: Exchange, said: Sequence[str]) -> bool:
        """Whether an answer of this id has been added: mocks of models have one id for all, so that the texts count."""
        answers = [(item.message.message_id, _said(item.message)) for item in exchange.answer]
        if not any(message_id for message_id, _ in answers):
            return False
        key = hash_record(exchange.session_id, exchange.previous, said, answers)
        is_logged = key in self._logged
        self._logged.add(key)
        return is_logged

    def _find(self, exchange: Exchange, said: Sequence[str]) -> tuple[_Session, _Node | None, int]:
        """The session of an exchange, the last message of its history that is known, and how many are."""
        if exchange.previous in self._ends:
            return self._starts[exchange.previous], self._ends[exchange.previous], 0
        if exchange.session_id is not None:
            session = self._session(exchange.session_id, exchange)
            if exchange.previous is None:
                chain = _chain(hash_record("session", session.session_id), said)
                node, n_shared = self._longest(chain)
                return session, node, n_shared
            return session, None, 0
        roles = [item.message.role for item in exchange.history]
        n_before_answer = roles.index("assistant") if "assistant" in roles else len(roles)
        for root in _roots(exchange) if exchange.previous is None else ():
            node, n_shared = self._longest(_chain(root, said))
            # Two conversations may begin with the same prompt: they are one only if they share an answer, too, or if
            # the earlier one, a request without a response, has none yet. A log may have the newest request first.
            if node is not None and (
                n_shared > n_before_answer
                or (node.is_unanswered and exchange.id is None)
                or (n_shared == len(said) and self._is_repeated(node, exchange.answer[:1]))
            ):
                return node.session, node, n_shared
        return self._session(exchange.name, exchange), None, 0

    @staticmethod
    def _is_repeated(node: _Node, answer: Sequence[SourceMessage]) -> bool:
        """Whether another request repeats this answer, which has no record of its own yet."""
        children = [node.children.get(_said(item.message)) for item in answer]
        return any(child is not None and child.item.message.usage is None for child in children)

    def _longest(self, chain: Sequence[str]) -> tuple[_Node | None, int]:
        for n_shared in range(len(chain), 0, -1):
            if (node := self._nodes.get(chain[n_shared - 1])) is not None:
                return node, n_shared
        return None, 0

    def _session(self, session_id: str, exchange: Exchange) -> _Session:
        return self._sessions.setdefault(session_id, _Session(session_id, exchange, []))

    def _append(self, session: _Session, parent: _Node | None, item: SourceMessage, exchange: Exchange) -> _Node:
        """The node of a message after another one: a new one, unless that says the same."""
        said = _said(item.message)
        if parent is not None and (child := parent.children.get(said)) is not None:
            child.add_copy(item)
            return child
        node = _Node(session, parent, item, exchange)
        session.nodes.append(node)
        if parent is not None:
            parent.children[said] = node
        return node

    def _register(self, node: _Node, hashes: Sequence[str]) -> None:
        for key in hashes:
            self._nodes[key] = node

    def drafts(self, source: Source, importer: str) -> Iterator[Draft]:
        """Yield the drafts of each session, the line of its latest exchange first.

        Conversations of one stated id that have nothing in common, such as those of an agent and its helpers, are
        sessions of their own: their ids have a number.
        """
        for session in self._sessions.values():
            leaves: dict[int, list[_Node]] = {}
            for node in session.nodes:
                leaves.setdefault(node.root, []).extend([node] if node.is_leaf else [])
            for number, nodes in enumerate(leaves.values(), 1):
                session_id = session.session_id if number == 1 else f"{session.session_id}-{number}"
                for index, leaf in enumerate(sorted(nodes, key=lambda node: -node.end)):
                    yield _draft(source, importer, session_id, leaf, shares_messages=index > 0)


def _draft(source: Source, importer: str, session_id: str, leaf: _Node, *, shares_messages: bool) -> Draft:
    path = _path(leaf)
    first = path[0].exchange
    messages = [*first.system, *(node.item for node in path)]
    if shares_messages:  # with a draft whose runs are built already
        messages = [item._replace(message=item.message.model_copy(deep=True)) for item in messages]
    conversation = Conversation(session_id, first.line, messages, first.fields, first.model, first.has_local_times)
    draft = make_draft(source, importer, conversation)
    if leaf.last.error is not None or leaf.last.error_status != "ERROR":
        set_error(draft, leaf.last.error, leaf.last.error_status)
    return draft


def _path(leaf: _Node) -> list[_Node]:
    path = []
    node: _Node | None = leaf
    while node is not None:
        path.append(node)
        node = node.parent
    return path[::-1]


def _roots(exchange: Exchange) -> list[str]:
    """The starts of the history's chain: the system prompt, and none, as some clients change it while they go on."""
    system = [_said(item.message) for item in exchange.system]
    return [hash_record("system", system), hash_record("any")]


def _chain(root: str, said: Sequence[str]) -> list[str]:
    """The hash of each beginning of a history."""
    chain = []
    for item in said:
        root = hash_record(root, item)
        chain.append(root)
    return chain


def _said(message: Message) -> str:
    """The hash of what a message says."""
    content = message.content
    if isinstance(content, list):
        content = [p for p in content if not (isinstance(p, dict) and str(p.get("type")) in _REASONING_TYPES)]
        if all(
            isinstance(part, str) or (isinstance(part, dict) and isinstance(part.get("text"), str)) for part in content
        ):
            content = "\n".join(part if isinstance(part, str) else part["text"] for part in content)
    content = content.strip() if isinstance(content, str) else content
    calls = [(call.tool_name, call.args) for call in message.tool_calls]
    return hash_record(message.role, content or None, calls, message.tool_call_id)

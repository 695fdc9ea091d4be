"""Several things to wait for in one answer of the model, beside tools that need not wait, and pauses after pauses."""

from __future__ import annotations

import pytest
from pausing_agents import calls, clerk, pending_tools, requirement_id, results, said, sender, with_ids
from pydantic_ai.exceptions import ApprovalRequired, CallDeferred, ModelRetry

from kern_nb.agent import Agent, RunContext, tool
from kern_nb.db import SqliteDb
from kern_nb.errors import RunFailed, StillWaiting
from kern_nb.models.scripted import call


@pytest.fixture
def store(tmp_path):
    """One engine: what is tested here is above the store."""
    with SqliteDb(db_file=tmp_path / "s.db") as opened:
        yield opened


def looker(seen):
    """A tool that needs no leave."""

    def look(city: str) -> str:
        """Look at the weather."""
        seen.append(city)
        return f"sun in {city}"

    return look


def asker():
    """A tool that is run elsewhere."""

    @tool(external_execution=True)
    def query(text: str) -> str:
        """Query the archive."""
        raise AssertionError(text)

    return query


SEVERAL = ["one moment", call("send", to="a"), call("look", city="P"), call("send", to="b"), call("query", text="q")]


def test_all_calls_of_an_answer_must_be_resolved(store):
    """Answers that are there are kept; StillWaiting names what is missing, and only that; nothing runs before the last one."""
    sent, seen = [], []
    agent = clerk(store, SEVERAL, "done", tools=[sender(sent), looker(seen), asker()])
    run = agent.run("go")
    a, b, q = (one.requirement_id for one in run.requirements)
    assert pending_tools(run) == ["send", "send", "query"]

    for answered, (requirement, answer) in enumerate([(b, {"approve": True}), (q, {"value": "found"})], 1):
        store.resolve(requirement, **answer)
        with pytest.raises(StillWaiting, match=rf"chat/0 has {3 - answered} pending") as caught:
            agent.continue_run("chat/0")
        assert (a in str(caught.value), requirement in str(caught.value)) == (True, False)
        assert store.get_run(run.run_id).status == "PAUSED"
    assert sent == []
    store.resolve(a, approve=False, note="not a")
    done = agent.continue_run("chat/0")

    assert (done.status, done.output, sent) == ("COMPLETED", "done", [("b", 1)])
    assert calls(done) == [
        ("send", "failed", "not a"),
        ("look", "completed", "sun in P"),
        ("send", "completed", "sent 1 to b"),
        ("query", "completed", "found"),
    ]


def test_tool_beside_paused_call_runs_once(store):
    """It ran, its result was stored before the pause, and the model is told that result."""
    sent, seen, heard = [], [], []
    agent = clerk(store, SEVERAL[1:3], "done", tools=[sender(sent), looker(seen)], heard=heard)
    run = agent.run("go")
    assert said(run) == [("user", "go"), ("assistant", ["send", "look"]), ("tool", "sun in P")]
    store.resolve(requirement_id(run), approve=True)
    done = agent.continue_run(run.run_id)

    assert (seen, sent) == (["P"], [("a", 1)])
    assert sorted(results(done)) == sorted(results(heard[-1])) == ["sent 1 to a", "sun in P"]


def test_failed_calls_beside_paused_call_are_reported(store):
    """One that raises, one that no tool fits, one whose arguments do not fit, one that asks to be tried again."""

    def fail() -> str:
        """Fail."""
        raise OSError("no disk")

    def again() -> str:
        """Ask for another try."""
        raise ModelRetry("another try, please")

    sent, heard = [], []
    asked = [call("fail"), call("nothing"), call("send", copies="x"), call("again"), call("send", to="bob")]
    agent = clerk(store, asked, "done", tools=[fail, again, sender(sent)], heard=heard)
    run = agent.run("go")
    assert [status for _, status, _ in calls(run)] == ["failed"] * 4 + ["started"]
    store.resolve("chat/0", approve=True)
    done = agent.continue_run("chat/0")

    assert (done.status, sent) == ("COMPLETED", [("bob", 1)])
    assert len(results(done)) == len(results(heard[-1])) == 5
    told = str(results(heard[-1]))
    assert all(text in told for text in ("no disk", "another try", "Unknown tool", "sent 1 to bob"))


def test_run_pauses_repeatedly(store):
    """Each time for what is new; what was answered stays answered, and no tool runs twice."""
    sent, seen = [], []
    letters = [call("send", to=name) for name in "abc"]
    agent = clerk(
        store, letters[0], [letters[1], call("look", city="P")], letters[2], "done", tools=[sender(sent), looker(seen)]
    )
    run = agent.run("go")
    for count in (1, 2, 3):
        assert (run.status, len(run.requirements), pending_tools(run)) == ("PAUSED", count, ["send"])
        with pytest.raises(StillWaiting):
            agent.continue_run(run.run_id)
        store.resolve("chat/0", approve=True)
        run = agent.continue_run(run.run_id)

    assert (run.status, run.output, run.run_index) == ("COMPLETED", "done", 0)
    assert (sent, seen) == ([("a", 1), ("b", 1), ("c", 1)], ["P"])
    assert [m.message_index for m in run.messages] == list(range(9))


def test_tool_requests_approval_dynamically(store):
    """pydantic-ai's ApprovalRequired; once approved, it is called again, as the same call."""
    seen = []

    def pay(amount: int, run_context: RunContext) -> str:
        """Pay."""
        seen.append((amount, run_context.tool_call_id))
        if amount > 100 and len(seen) == 1:
            raise ApprovalRequired
        return f"paid {amount}"

    agent = clerk(store, call("pay", amount=500), "done", tools=[pay])
    run = agent.run("pay")
    assert [(one.kind, one.tool_name, one.args) for one in run.requirements] == [
        ("confirmation", "pay", {"amount": 500})
    ]
    store.resolve("chat/0", args={"amount": 400})
    done = agent.continue_run("chat/0")

    call_id = done.tool_calls[0].tool_call_id
    assert seen == [(500, call_id), (400, call_id)]
    assert calls(done) == [("pay", "completed", "paid 400")]


def test_dynamic_approval_rejected(store):
    """The model is told."""
    seen = []

    def pay(amount: int) -> str:
        """Pay."""
        seen.append(amount)
        raise ApprovalRequired

    agent = clerk(store, call("pay", amount=500), "done", tools=[pay])
    run = agent.run("pay")
    store.resolve(requirement_id(run), approve=False, note="too much")

    assert calls(agent.continue_run("chat/0")) == [("pay", "failed", "too much")]
    assert seen == [500]


def test_tool_defers_call_dynamically(store):
    """pydantic-ai's CallDeferred; what they give is its result, and it is not called again."""
    seen = []

    def render(name: str) -> str:
        """Begin to render."""
        seen.append(name)
        raise CallDeferred

    agent = clerk(store, call("render", name="film"), "done", tools=[render])
    run = agent.run("go")
    assert [one.kind for one in run.requirements] == ["external_execution"]
    store.resolve("chat/0", value="film.mp4")

    assert calls(agent.continue_run("chat/0")) == [("render", "completed", "film.mp4")]
    assert seen == ["film"]


@pytest.mark.parametrize("signal", [ApprovalRequired, CallDeferred])
def test_deferral_metadata_is_stored(store, signal):
    """Who answers must know why, and who executes must know which job."""

    def render(name: str) -> str:
        """Begin to render."""
        raise signal(metadata={"job": 7, "name": name})

    run = clerk(store, call("render", name="film"), tools=[render]).run("go")

    assert {"job": 7, "name": "film"} in run.requirements[0].extra.values()


def test_tool_requests_retry(store):
    """pydantic-ai's ModelRetry, also once it was approved: the next try waits for leave of its own."""
    seen = []

    @tool(requires_confirmation=True)
    def pay(amount: int) -> str:
        """Pay."""
        seen.append(amount)
        if amount > 100:
            raise ModelRetry("at most 100")
        return "paid"

    agent = clerk(store, call("pay", amount=500), call("pay", amount=50), "done", tools=[pay])
    agent.run("go")
    store.resolve("chat/0", approve=True)
    run = agent.continue_run("chat/0")
    assert (pending_tools(run), seen) == (["pay"], [500])
    store.resolve("chat/0", approve=True)
    done = agent.continue_run("chat/0")

    assert calls(done) == [("pay", "failed", "at most 100"), ("pay", "completed", "paid")]


def test_too_many_retries_fail_run(store):
    """With an error that is stored, and the next run works."""

    def never(n: int) -> str:
        """Never."""
        raise ModelRetry("again")

    agent = clerk(store, *[call("never", n=1)] * 5, tools=[never])
    with pytest.raises(RunFailed, match="retries"):
        agent.run("go")

    assert [(r.status, r.error is None) for r in store.get_session("chat").runs] == [("ERROR", False)]
    assert clerk(store, "fine").run("go").output == "fine"


@pytest.mark.parametrize("first", ["send", "look"])
@pytest.mark.parametrize("approve", [True, False])
def test_repeated_call_ids_are_resolved(store, first, approve):
    """Each answer is for the call it was given for."""
    sent, seen = [], []
    earlier = ("send", {"to": "a"}, "c1") if first == "send" else ("look", {"city": "P"}, "c1")
    model = with_ids([earlier], [("send", {"to": "b"}, "c1")], "done")
    agent = Agent(model, db=store, session_id="chat", tools=[sender(sent), looker(seen)])
    run = agent.run("go")
    if first == "send":
        store.resolve("chat/0", approve=True)
        run = agent.continue_run("chat/0")
    store.resolve("chat/0", **({"approve": True} if approve else {"approve": False, "note": "not b"}))
    done = agent.continue_run(run.run_id)

    assert results(done)[1:] == (["sent 1 to b"] if approve else ["not b"])
    letters = ["a"] * (first == "send") + ["b"] * approve
    assert (sent, seen) == ([(to, 1) for to in letters], ["P"] * (first == "look"))

"""Create the sample of the tour: recorded sessions of two fictional models, and a store with them.

No model or network is used: the "models" follow a script and make mistakes, one of them more often, by a seeded random
generator, so the files are reproducible. Run ``python notebooks/make_sample.py``.
"""

from __future__ import annotations

import json
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from sample_shop import POLICY, TASKS, Calls, Shop, Task

from kern_nb.db import open_store


class Model(NamedTuple):
    """The error rates, the speed and the prices per million tokens of a fictional model."""

    name: str
    seconds: float
    price_in: float
    price_out: float
    fails: float
    misreads: float


MODELS = (
    Model("small-1", 0.7, price_in=0.15, price_out=0.6, fails=0.45, misreads=0.4),
    Model("large-1", 1.9, price_in=2.5, price_out=10.0, fails=0.1, misreads=0.1),
)
CUSTOMER = Model("customer-1", 1.2, price_in=0.4, price_out=1.6, fails=0, misreads=0)
TRIALS = 2
SEED = 389


class Recording:
    """A recorded conversation: messages with their times and costs."""

    def __init__(self, model: Model, rng: Random, start: datetime) -> None:
        self.model, self.rng, self.now = model, rng, start
        self.shop = Shop()
        self.messages: list[dict[str, Any]] = []
        self.read = len(POLICY)
        self._add("assistant", "Hello, this is the shop's support. How can I help?", None)

    def user(self, text: str) -> None:
        """Add a message of the customer."""
        self._add("user", text, CUSTOMER)

    def agent(self, text: str) -> None:
        """Add a message of the agent."""
        self._add("assistant", text, self.model)

    def call(self, calls: Calls) -> None:
        """Add tool calls of the agent, in one message, and their results."""
        tool_calls = [
            {
                "id": f"call_{self.rng.getrandbits(48):012x}",
                "name": name,
                "arguments": arguments,
                "requestor": "assistant",
            }
            for name, arguments in calls
        ]
        self._add("assistant", None, self.model, tool_calls=tool_calls)
        for call in tool_calls:
            try:
                result, error = json.dumps(self.shop.call(call["name"], call["arguments"]), ensure_ascii=False), False
            except ValueError as refusal:
                result, error = f"Error: {refusal}", True
            self.now += timedelta(seconds=self.rng.uniform(0.02, 0.2))
            self.read += len(result)
            self._record(
                {"role": "tool", "id": call["id"], "content": result, "requestor": "assistant", "error": error}
            )

    def _add(self, role: str, text: str | None, by: Model | None, **fields: Any) -> None:
        size = len(text or "") + len(json.dumps(fields))
        message = {"role": role, "content": text, "tool_calls": None, "cost": 0.0, "usage": None} | fields
        if by is not None:
            tokens_in, tokens_out = 60 + self.read // 4, 4 + size // 4
            self.now += timedelta(seconds=by.seconds * self.rng.uniform(0.6, 1.2) + tokens_out * 0.01)
            message["usage"] = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out}
            message["cost"] = round((tokens_in * by.price_in + tokens_out * by.price_out) / 1_000_000, 8)
        self.read += size
        self._record(message)

    def _record(self, message: dict[str, Any]) -> None:
        self.messages.append(message | {"turn_idx": len(self.messages), "timestamp": self.now.isoformat()})


def simulate(task: Task, model: Model, trial: int) -> dict[str, Any]:
    """Simulate one trial of a task with a model."""
    rng = Random(f"{SEED} {model.name} {task.id} {trial}")
    start = datetime(2026, 3, 2, 9) + timedelta(minutes=7 * TASKS.index(task), hours=3 * trial)  # noqa: DTZ001 - as tau2
    recording = Recording(model, rng, start)
    fails, misreads = rng.random() < model.fails, rng.random() < model.misreads
    reason = play(
        recording,
        task,
        fails=rng.choice(("wrong", "wrong", "hands over", "is lost")) if fails else None,
        misreads=misreads,
    )
    ideal = Shop()
    for name, arguments in task.acts:
        ideal.call(name, arguments)
    is_said = any(task.must_say in (m["content"] or "") for m in recording.messages if m["role"] == "assistant")
    parts = {"DB": float(recording.shop.orders == ideal.orders), "COMMUNICATE": float(is_said)}
    costs = {
        role: round(sum(m.get("cost", 0) for m in recording.messages if m["role"] == role), 8)
        for role in ("assistant", "user")
    }
    return {
        "id": f"{model.name}-{task.id}-{trial}",
        "task_id": task.id,
        "trial": trial,
        "seed": rng.getrandbits(20),
        "start_time": start.isoformat(),
        "end_time": recording.now.isoformat(),
        "duration": (recording.now - start).total_seconds(),
        "termination_reason": reason,
        "agent_cost": costs["assistant"],
        "user_cost": costs["user"],
        "reward_info": {"reward": parts["DB"] * parts["COMMUNICATE"], "reward_breakdown": parts},
        "messages": recording.messages,
    }


def play(recording: Recording, task: Task, *, fails: str | None, misreads: bool) -> str:
    """Play the conversation and return the reason of its end."""
    recording.user(task.opening)
    recording.agent("I will have a look. What is the number of your order, and on whose name is it?")
    recording.user(task.number)
    if misreads or fails == "is lost":
        recording.call([("find_order", {"order_id": f"#{task.order_id}"})])
    if fails == "is lost":
        for order_id in (f"no. {task.order_id}", f"order-{task.order_id}", f"#{task.order_id}"):
            recording.call([("find_order", {"order_id": order_id})])
        return "too_many_errors"
    recording.call([("find_order", {"order_id": task.order_id}), *task.looks])
    if fails == "hands over":
        recording.call([("transfer_to_person", {"reason": task.opening})])
        recording.agent("I have passed this on to a colleague, who will write to you tomorrow.")
        recording.user("Tomorrow? All right. ###STOP###")
    elif fails == "wrong":
        if task.wrong_acts:
            recording.call(task.wrong_acts)
        recording.agent(task.wrong)
        recording.user("Hm. I had hoped for something else. ###STOP###")
    else:
        if task.acts:
            recording.agent(task.offer)
            recording.user("Yes, please.")
            recording.call(task.acts)
        recording.agent(task.done)
        recording.user("I see. Thank you, that is all. ###STOP###")
    return "user_stop"


def result_file(model: Model) -> dict[str, Any]:
    """Build a result file in the layout of the tau2 benchmark."""
    return {
        "timestamp": "2026-03-02T18:00:00",
        "info": {
            "num_trials": TRIALS,
            "max_errors": 4,
            "agent_info": {"implementation": "support_agent", "llm": model.name, "llm_args": {"temperature": 0.0}},
            "user_info": {"implementation": "customer", "llm": CUSTOMER.name, "llm_args": {}},
            "environment_info": {"domain_name": "shop", "policy": POLICY},
        },
        "tasks": [
            {"id": task.id, "user_scenario": {"instructions": f"{task.opening} {task.number}"}} for task in TASKS
        ],
        "simulations": [simulate(task, model, trial) for trial in range(TRIALS) for task in TASKS],
    }


def _msg(role: str, content: str | list[dict[str, str]] | None, **fields: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **fields}


def _part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _calls(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    return _msg("assistant", None, tool_calls=[call])


CHATS: list[dict[str, Any]] = [
    {"id": "soup", "model": "large-1", "metadata": {"topic": "cooking"}, "messages": [
        _msg("system", "You are a cook who answers in two sentences."),
        _msg("user", "My soup is too salty. Can I save it?"),
        _msg("assistant", "Add a peeled potato and let it simmer for ten minutes. A little lemon juice helps, too."),
        _msg("user", "No potatoes here, but I have cream."),
        _msg("assistant", "Cream works well: stir in a few spoons at the end. Taste before you add any more pepper."),
    ]},
    {"id": "lisbon", "model": "large-1", "metadata": {"topic": "travel"}, "messages": [
        _msg("user", "Will I need a coat in Lisbon next week?"),
        _calls("call_1", "forecast", '{"city": "Lisbon", "days": 7}'),
        _msg("tool", '{"low": 11, "high": 19, "rain_days": 1}', tool_call_id="call_1"),
        _msg("assistant", "Between 11 °C at night and 19 °C by day a light jacket will do. One day may be wet."),
        _msg("user", "And in Reykjavík?"),
        _calls("call_1", "forecast", '{"city": "Reykjavík", "days": 7}'),
        _msg("tool", '{"low": -3, "high": 4, "rain_days": 4}', tool_call_id="call_1"),
        _msg("assistant", "There you do: it stays between -3 °C and 4 °C, with rain or sleet on four days."),
    ]},
    {"id": "broken-arguments", "model": "small-1", "metadata": {"topic": "travel"}, "messages": [
        _msg("user", "What is the weather in Oslo?"),
        _calls("call_7", "forecast", '{"city": "Oslo", "days": '),
        _msg("tool", "Error: the arguments are no JSON.", tool_call_id="call_7"),
        _msg("assistant", "Sorry, I could not look that up."),
    ]},
    {"id": "picture", "model": "small-1", "metadata": {"topic": "plants"}, "messages": [
        _msg("user", [_part("What plant is this?"), _part("It has stood in the shade for a year.")]),
        _msg("assistant", "From the leaves I would say it is a fern. Keep the soil moist and it will like the shade."),
    ]},
    {"id": "unanswered", "model": "small-1", "metadata": {"topic": "calendar"}, "messages": [
        _msg("user", "Book a table for four tonight."),
        _calls("call_3", "book_table", '{"guests": 4, "when": "tonight"}'),
    ]},
]  # fmt: skip


def make(folder: Path) -> Path:
    """Write the files into ``folder/sample`` and a store beside it, and return the path of the store."""
    files = folder / "sample"
    shutil.rmtree(files, ignore_errors=True)
    files.mkdir(parents=True)
    for model in MODELS:
        (files / f"shop_{model.name}.json").write_text(
            json.dumps(result_file(model), ensure_ascii=False, indent=1), encoding="utf-8"
        )
    lines = (json.dumps(chat, ensure_ascii=False) for chat in CHATS)
    (files / "chats.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    target = folder / "sample.duckdb"
    for old in (target, target.with_name("sample.duckdb.wal")):
        old.unlink(missing_ok=True)
    with open_store(target) as store:
        report = store.ingest(files, progress=False)
    if report.errors:
        raise SystemExit(repr(report))
    return target


if __name__ == "__main__":
    print(f"Created {make(Path(__file__).resolve().parent)}")

"""The home of an imaginary user, with small sessions of several programs, for `your_own_sessions.ipynb`.

All texts are invented. `make` writes the files as the programs do: Claude Code (a fork and a sub-agent), Codex (a
fork), pi, OpenTelemetry spans and chats. `move_in` makes the folder the home of this process, so that no file of the
real one is read.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kern_nb

Record = dict[str, Any]

CLAUDE, CODEX, GPT = "claude-sonnet-4-5", "gpt-5-codex", "gpt-4.1-mini"
SCALE, SCALE_FORK = "a5ca1e00-0000-4000-8000-000000000001", "b0111e00-0000-4000-8000-000000000002"
FROST, FROST_FORK = "019df200-0000-7000-8000-000000000001", "019df600-0000-7000-8000-000000000002"
OUNCES = "019df900-0000-7000-8000-000000000003"
RECIPES, WEATHER = "/home/kim/recipes", "/home/kim/weather"


class Clock:
    """The time of a recording: each look at it is some seconds later."""

    def __init__(self, day: int, hour: int) -> None:
        self.now = datetime(2026, 5, day, hour, tzinfo=UTC)

    def tick(self, seconds: int = 7) -> str:
        """The next time, as ISO text."""
        self.now += timedelta(seconds=seconds)
        return self.now.strftime("%Y-%m-%dT%H:%M:%S.000Z")


class ClaudeTranscript:
    """A transcript of Claude Code: each record is below the one before."""

    def __init__(self, session_id: str, clock: Clock, copied: Iterable[Record] = (), **fields: Any) -> None:
        self.fields = {"sessionId": session_id, "cwd": RECIPES, "version": "2.1.0", "isSidechain": False} | fields
        self.records = [record | self.fields for record in copied]
        self.name, self.clock, self.context = session_id[-2:] + str(fields.get("agentId", "")), clock, 9_000

    def user(self, content: Any, **fields: Any) -> None:
        """Add a prompt, or the result of a call."""
        self._add("user", {"role": "user", "content": content}, fields)

    def result(self, call_id: str, text: str, *, failed: bool = False, **fields: Any) -> None:
        """Add the result of a call."""
        part = {"type": "tool_result", "tool_use_id": call_id, "content": text}
        self.user([part | ({"is_error": True} if failed else {})], **fields)

    def answer(self, text: str, *calls: tuple[str, str, Record]) -> None:
        """Add an answer of the model, with calls of tools: id, name, arguments."""
        parts: list[Record] = [{"type": "text", "text": text}] if text else []
        parts += [{"type": "tool_use", "id": call_id, "name": name, "input": args} for call_id, name, args in calls]
        written = 40 + len(json.dumps(parts))
        usage = {"input_tokens": 12, "cache_read_input_tokens": self.context, "output_tokens": written // 3}
        usage["cache_creation_input_tokens"] = written
        self.context += written
        message_id = f"msg_{self.name}_{len(self.records)}"
        message = {"id": message_id, "role": "assistant", "model": CLAUDE, "content": parts, "usage": usage}
        self._add("assistant", message, {"requestId": f"req_{message_id}"})

    def _add(self, kind: str, message: Record, fields: Record) -> None:
        parent = self.records[-1]["uuid"] if self.records else None
        uuid = f"{self.name}-{len(self.records):04}"
        record = {"type": kind, "uuid": uuid, "parentUuid": parent, "timestamp": self.clock.tick(), "message": message}
        self.records.append(record | self.fields | fields)


def claude_files() -> dict[str, list[Record]]:
    """A session with a sub-agent, and a fork of it, which repeats its first run."""
    clock = Clock(4, 9)
    main = ClaudeTranscript(SCALE, clock)
    main.user("tests/test_scale.py fails since yesterday. Why?")
    main.answer("I run the test first.", ("t1", "Bash", {"command": "pytest tests/test_scale.py"}))
    main.result("t1", "FAILED test_scale_down: assert 2 == 2.5 (scale(5, servings=2, of=4))", failed=True)
    main.answer("", ("t2", "Read", {"file_path": f"{RECIPES}/scale.py"}))
    main.result("t2", "def scale(amount, servings, of):\n    return amount * servings // of")
    main.answer("`scale` divides with `//`, which drops the fraction: 5 eggs for half the people are 2, not 2.5.")
    shared = list(main.records)
    main.user("Fix it, please.")
    edit = {"file_path": f"{RECIPES}/scale.py", "old_string": "// of", "new_string": "/ of"}
    main.answer("", ("t3", "Edit", edit))
    main.result("t3", "The file has been updated.")
    main.answer("", ("t4", "Bash", {"command": "pytest tests/test_scale.py"}))
    main.result("t4", "3 passed")
    main.answer("Fixed: `scale` divides with `/`. All three tests pass.")
    main.user("Does the README still describe this? Let a sub-agent check it.")
    task = {"description": "Check the README", "prompt": "Does README.md say anything about how amounts are rounded?"}
    main.answer("", ("t5", "Task", task))
    agent = ClaudeTranscript(SCALE, clock, isSidechain=True, agentId="c0ffee")
    agent.user(task["prompt"])
    agent.answer("", ("t6", "Read", {"file_path": f"{RECIPES}/README.md"}))
    agent.result("t6", "# Recipes\nScales recipes to any number of people. Amounts are whole numbers.")
    agent.answer("Yes: it says that amounts are whole numbers.")
    main.result("t5", "Yes: it says that amounts are whole numbers.", toolUseResult={"agentId": "c0ffee"})
    main.answer("No. It says that amounts are whole numbers, which is no longer true.")
    main.records.append({"type": "custom-title", "customTitle": "Half an egg", "sessionId": SCALE})

    fork = ClaudeTranscript(SCALE_FORK, Clock(5, 10), shared, sessionKind="bg")
    fork.user("Fix it with fractions, as cookbooks write them.")
    fraction = {"file_path": f"{RECIPES}/scale.py", "old_string": "amount * servings // of"}
    fork.answer("", ("f1", "Edit", fraction | {"new_string": "Fraction(amount * servings / of)"}))
    fork.result("f1", "The file has been updated.")
    fork.answer("", ("f2", "Bash", {"command": "pytest tests/test_scale.py"}))
    fork.result("f2", "FAILED test_thirds: assert Fraction(6004799503160661, 18014398509481984) == 1/3", failed=True)
    fork.answer("", ("f3", "Edit", fraction | {"new_string": "Fraction(amount * servings, of)"}))
    fork.result("f3", "The file has been updated.")
    fork.answer("", ("f4", "Bash", {"command": "pytest tests/test_scale.py"}))
    fork.result("f4", "3 passed")
    fork.answer("Fixed: amounts are fractions now, 5/2 eggs. A division of floats was not exact enough.")
    fork.records.append({"type": "custom-title", "customTitle": "Half an egg, as a fraction", "sessionId": SCALE_FORK})
    folder = ".claude/projects/-home-kim-recipes"
    return {
        f"{folder}/{SCALE}.jsonl": main.records,
        f"{folder}/{SCALE}/subagents/agent-c0ffee.jsonl": agent.records,
        f"{folder}/{SCALE_FORK}.jsonl": fork.records,
    }


class CodexRollout:
    """A rollout of the Codex CLI."""

    def __init__(self, thread: str, clock: Clock, copied: Iterable[Record] = (), usage: int = 0) -> None:
        self.clock, self.records, self.total = clock, list[Record](), usage
        header = {"id": thread, "timestamp": clock.tick(0), "cwd": WEATHER, "model_provider": "openai"}
        self._add("session_meta", header)
        self.records += [record | {"timestamp": clock.tick(0)} for record in copied]

    def turn(self, turn_id: str, prompt: str, calls: Iterable[tuple[str, str]], answer: str) -> None:
        """Add a turn: a prompt, shell commands with their output, an answer."""
        self._event("task_started", turn_id=turn_id)
        self._add("turn_context", {"turn_id": turn_id, "model": CODEX, "cwd": WEATHER})
        self._say("user", prompt)
        for number, (command, output) in enumerate(calls):
            call_id, arguments = f"call_{turn_id[-2:]}_{number}", json.dumps({"command": command})
            called = {"type": "function_call", "name": "shell", "arguments": arguments, "call_id": call_id}
            self._add("response_item", called)
            self._count(len(arguments))
            self._add("response_item", {"type": "function_call_output", "call_id": call_id, "output": output})
        self._say("assistant", answer)
        self._count(len(answer))
        self._event("task_complete", turn_id=turn_id, duration_ms=21_000, time_to_first_token_ms=900)

    def _say(self, role: str, text: str) -> None:
        part = {"type": "output_text" if role == "assistant" else "input_text", "text": text}
        self._add("response_item", {"type": "message", "role": role, "content": [part]})

    def _count(self, size: int) -> None:
        last = {"input_tokens": 5_000 + self.total // 20, "cached_input_tokens": 4_000, "output_tokens": 20 + size // 3}
        self.total += last["input_tokens"] + last["output_tokens"]
        total = last | {"total_tokens": self.total, "input_tokens": self.total - last["output_tokens"]}
        info = {"total_token_usage": total, "last_token_usage": last | {"total_tokens": sum(last.values()) - 4_000}}
        self._event("token_count", info=info)

    def _event(self, kind: str, **fields: Any) -> None:
        self._add("event_msg", {"type": kind, **fields})

    def _add(self, kind: str, payload: Record) -> None:
        self.records.append({"timestamp": self.clock.tick(3), "type": kind, "payload": payload})


def codex_files() -> dict[str, list[Record]]:
    """A session, and a fork of it, which repeats its first turn."""
    main = CodexRollout(FROST, Clock(4, 15))
    head = "Exit code: 0\nOutput:\nday,low,high\n2026-05-05,2,11\n2026-05-06,-1,9"
    main.turn(
        "019df200-0001-7000-8000-00000000000a",
        "Write a script that says whether there is frost tomorrow, from forecast.csv.",
        [("head -3 forecast.csv", head), ("python frost.py", "Exit code: 0\nOutput:\nno frost (low: 2 °C)")],
        "`frost.py` reads the first row and compares its low with 0 °C. Tomorrow there is no frost.",
    )
    shared, total = list(main.records), main.total
    main.turn(
        "019df200-0002-7000-8000-00000000000b",
        "Say it in Fahrenheit, too.",
        [("python frost.py", "Exit code: 0\nOutput:\nno frost (low: 2 °C, 35.6 °F)")],
        "Done: it prints both.",
    )
    fork = CodexRollout(FROST_FORK, Clock(6, 8), shared, total)
    fork.turn(
        "019df600-0002-7000-8000-00000000000c",
        "Look at the whole week instead.",
        [
            ("python frost.py", "Exit code: 1\nOutput:\nValueError: invalid literal for int(): ''"),
            ("python frost.py", "Exit code: 0\nOutput:\nfrost on 2026-05-06 (low: -1 °C)"),
        ],
        "It lists all days with frost now, and skips days without a value. There is frost on 6 May.",
    )
    folder = ".codex/sessions/2026/05"
    titles = [{"id": FROST, "thread_name": "Frost warning"}, {"id": FROST_FORK, "thread_name": "Frost, whole week"}]
    return {
        ".codex/session_index.jsonl": titles,
        f"{folder}/04/rollout-2026-05-04T15-00-00-{FROST}.jsonl": main.records,
        f"{folder}/06/rollout-2026-05-06T08-00-00-{FROST_FORK}.jsonl": fork.records,
    }


def pi_files() -> dict[str, list[Record]]:
    """A session of pi, which states its cost."""
    clock = Clock(5, 14)
    header = {"type": "session", "version": 3, "id": OUNCES, "cwd": RECIPES, "timestamp": clock.tick()}
    records: list[Record] = [header]

    def add(role: str, content: list[Record], **fields: Any) -> None:
        parent = records[-1].get("id") if len(records) > 1 else None
        entry = {"type": "message", "id": f"{len(records):08x}", "parentId": parent, "timestamp": clock.tick()}
        message = {"role": role, "content": content, "timestamp": int(clock.now.timestamp() * 1000)}
        records.append(entry | {"message": message | fields})

    def answer(part: Record, cost: float) -> None:
        usage = {"input": 900, "output": 60, "cacheRead": 2_000, "cacheWrite": 0, "totalTokens": 2_960}
        usage["cost"] = {"input": cost / 2, "output": cost / 2, "cacheRead": 0, "cacheWrite": 0, "total": cost}
        stop = "toolUse" if part["type"] == "toolCall" else "stop"
        add("assistant", [part], provider="anthropic", model=CLAUDE, api="x", usage=usage, stopReason=stop)

    add("user", [{"type": "text", "text": "Convert the ounces in scones.json to grams."}])
    arguments = {"command": "python convert.py scones.json"}
    answer({"type": "toolCall", "id": "p1", "name": "bash", "arguments": arguments}, 0.0052)
    converted = [{"type": "text", "text": "flour: 8 oz -> 227 g\nbutter: 2 oz -> 57 g"}]
    add("toolResult", converted, toolCallId="p1", toolName="bash", isError=False)
    answer({"type": "text", "text": "Converted: 227 g of flour and 57 g of butter."}, 0.0048)
    named = {"type": "session_info", "id": "0000000a", "parentId": records[-1]["id"], "timestamp": clock.tick()}
    records.append(named | {"name": "Ounces to grams"})
    return {f".pi/agent/sessions/--home-kim-recipes--/2026-05-05T14-00-00_{OUNCES}.jsonl": records}


def _span(number: int, name: str, start: datetime, seconds: int, **attributes: Any) -> Record:
    begin = int(start.timestamp()) * 10**9
    values = {key.replace("__", "."): value for key, value in attributes.items()}
    return {
        "traceId": f"{0x5A1AD:032x}",
        "spanId": f"{number:016x}",
        "parentSpanId": "" if number == 1 else f"{1:016x}",
        "name": name,
        "startTimeUnixNano": str(begin),
        "endTimeUnixNano": str(begin + seconds * 10**9),
        "attributes": [
            {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
            for key, value in values.items()
        ],
    }


def spans() -> list[Record]:
    """What an agent of one's own reports to OpenTelemetry: a call of a tool between two of the model."""
    at = datetime(2026, 5, 6, 18, tzinfo=UTC)
    user = {"role": "user", "parts": [{"type": "text", "content": "Do I have all I need for scones?"}]}
    called = {"type": "tool_call", "id": "o1", "name": "pantry", "arguments": {"items": ["flour", "butter", "milk"]}}
    request = {"role": "assistant", "parts": [called]}
    response = {"type": "tool_call_response", "id": "o1", "response": "flour: yes, butter: yes, milk: no"}
    answered = {"role": "assistant", "parts": [{"type": "text", "content": "Almost: buy milk."}]}
    history = [user, request, {"role": "tool", "parts": [response]}]
    conversation = {"gen_ai__conversation__id": "pantry-check"}
    model = conversation | {"gen_ai__operation__name": "chat", "gen_ai__request__model": GPT}
    model |= {"gen_ai__provider__name": "openai", "gen_ai__usage__output_tokens": 25}

    def chat(number: int, second: int, sent: list[Record], received: Record, tokens: int) -> Record:
        texts = {"gen_ai__input__messages": json.dumps(sent), "gen_ai__output__messages": json.dumps([received])}
        start = at + timedelta(seconds=second)
        return _span(number, f"chat {GPT}", start, 2, **model, **texts, gen_ai__usage__input_tokens=tokens)

    agent = {"gen_ai__operation__name": "invoke_agent", "gen_ai__agent__name": "cook"} | conversation
    tool = {"gen_ai__operation__name": "execute_tool", "gen_ai__tool__name": "pantry", "gen_ai__tool__call__id": "o1"}
    tool |= {"gen_ai__tool__call__result": response["response"]}
    recorded = [
        _span(1, "invoke_agent cook", at, 9, **agent),
        chat(2, 1, [user], request, 180),
        _span(3, "execute_tool pantry", at + timedelta(seconds=4), 1, **tool),
        chat(4, 6, history, answered, 240),
    ]
    return [{"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [{"spans": recorded}]}]}]


def chats() -> str:
    """Two conversations in the layout of OpenAI's chat API; the second line is cut off, as a full disk leaves it."""
    question = {"role": "user", "content": "What can I cook with leeks and potatoes?"}
    answer = {"role": "assistant", "content": "A soup: simmer both for twenty minutes, and blend it with some cream."}
    line = json.dumps({"id": "leeks", "model": GPT, "messages": [question, answer]})
    return f"{line}\n{line.replace('leeks', 'beets')[:90]}"


def make(home: Path) -> Path:
    """Write the files into a folder and return it."""
    for name, records in (claude_files() | codex_files() | pi_files()).items():
        _write(home / name, "".join(json.dumps(record) + "\n" for record in records))
        if times := [record["timestamp"] for record in records if "timestamp" in record]:
            last = datetime.fromisoformat(max(times)).timestamp()
            os.utime(home / name, (last, last))  # as the program has left it
    _write(home / "exports" / "cook.otlp.jsonl", "".join(json.dumps(record) + "\n" for record in spans()))
    _write(home / "exports" / "chats.jsonl", chats())
    _write(home / "exports" / "settings.json", '{"theme": "dark"}')
    return home


def move_in(home: Path) -> None:
    """Make a folder the home of this process, and hide where the real programs keep their sessions."""
    os.environ["HOME"] = os.environ["USERPROFILE"] = str(home)
    places = " ".join(place for info in kern_nb.formats() for place in info.locations)
    for variable in re.findall(r"[$%](\w+)", places):
        os.environ.pop(variable, None)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")

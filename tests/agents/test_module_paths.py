"""Names where users of Agno look for them: every path is the same object as ours, and nothing is imported early."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from kern_nb import Agent, Session, Team, Workflow
from kern_nb.db import DuckDb, InMemoryDb, PostgresDb, SessionStore, SqliteDb
from kern_nb.db.base import SessionType
from kern_nb.errors import BadUsage
from kern_nb.media import Audio, File, Image, Video
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.records import Run
from kern_nb.tools import Toolkit, tool

PATHS = {
    "kern_nb.agent": ("Agent", Agent),
    "kern_nb.agent.agent": ("Agent", Agent),
    "kern_nb.team.team": ("Team", Team),
    "kern_nb.workflow.workflow": ("Workflow", Workflow),
    "kern_nb.db.in_memory": ("InMemoryDb", InMemoryDb),
    "kern_nb.db.sqlite": ("SqliteDb", SqliteDb),
    "kern_nb.db.postgres": ("PostgresDb", PostgresDb),
    "kern_nb.db.duckdb": ("DuckDb", DuckDb),
    "kern_nb.db.base": ("BaseDb", SessionStore),
    "kern_nb.session": ("AgentSession", Session),
    "kern_nb.session.agent": ("AgentSession", Session),
    "kern_nb.session.team": ("TeamSession", Session),
    "kern_nb.session.workflow": ("WorkflowSession", Session),
}
OURS = {
    "kern_nb.workflow": {
        "step": "Step",
        "steps": "Steps",
        "condition": "Condition",
        "loop": "Loop",
        "parallel": "Parallel",
    },
    "kern_nb.session": {"summary": "SessionSummaryManager"},
    "kern_nb.tools": {"toolkit": "Toolkit"},
}
MODELS = {
    "anthropic": "Claude", "google": "Gemini", "groq": "Groq", "mistral": "MistralChat", "deepseek": "DeepSeek",
    "openrouter": "OpenRouter", "xai": "xAI", "cohere": "Cohere", "ollama": "Ollama", "openai": "OpenAILike",
}  # fmt: skip


def test_paths_lead_to_the_same_objects():
    """One implementation, several paths."""
    for path, (name, value) in PATHS.items():
        assert getattr(importlib.import_module(path), name) is value, path
    for package, modules in OURS.items():
        for module, name in modules.items():
            own = getattr(importlib.import_module(package), name)
            assert getattr(importlib.import_module(f"{package}.{module}"), name) is own


def test_imports_stay_light():
    """The packages import nothing heavy by themselves."""
    code = "import sys, kern_nb, kern_nb.tools, kern_nb.session, kern_nb.media, kern_nb.models.anthropic\n"
    code += "print([m for m in ('pandas', 'sqlalchemy', 'duckdb', 'pydantic_ai', 'pydantic') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_models_build_or_name_the_installation():
    """With the package and a key, a model of pydantic-ai; otherwise an error with the next step."""
    for module, name in MODELS.items():
        model = getattr(importlib.import_module(f"kern_nb.models.{module}"), name)(
            id="some/model", temperature=0.5, **({} if module == "ollama" else {"api_key": "secret"})
        )
        assert repr(model) == f"{name}(id='some/model')"
        agent = Agent(model, db=InMemoryDb())
        try:
            built = model.build()
        except ImportError:
            with pytest.raises(BadUsage, match="missing package") as refused:
                agent.run("Hello")
            assert f"[{model.provider}]" in refused.value.hint
        else:
            assert (built.model_name, built.settings["temperature"]) == ("some/model", 0.5)


def test_files_are_inputs(tmp_path):
    """By path, URL or bytes; stored like any others."""
    path = tmp_path / "cat.png"
    path.write_bytes(b"\x89PNG cat")
    agent = Agent(ScriptedModel(["A cat."]), db=InMemoryDb(), session_id="chat")
    run = agent.run(
        "What is this?",
        images=[Image(filepath=path), Image(url="https://example.org/dog.png")],
        audio=[Audio(content=b"miaow", format="wav")],
        videos=[Video(url="https://example.org/cat.mp4")],
        files=[File(content="a,b", mime_type="text/csv")],
    )
    parts = run.messages[0].content
    assert [part["type"] for part in parts] == ["text", "image", "image", "audio", "video", "document"]
    assert agent.store.get_blob(parts[1]["sha256"]).content == b"\x89PNG cat"
    for source in ({}, {"url": "x", "content": b"x"}, {"path": "x"}, {"filepath": tmp_path / "missing.png"}):
        with pytest.raises(BadUsage):
            Image(**source)


def test_toolkit_is_a_list_of_tools():
    """With what its tools require, by name."""

    class Calculator(Toolkit):
        def __init__(self):
            named = {"requires_confirmation_tools": ["clear"], "exclude_tools": ["secret"]}
            super().__init__(name="calculator", tools=[self.add, self.clear, self.secret], **named)

        def add(self, a: int, b: int) -> int:
            """Add."""
            return a + b

        def clear(self) -> str:
            """Clear."""
            return "cleared"

        def secret(self) -> None:
            """Never offered."""

    @tool
    def other() -> str:
        """Another."""
        return "other"

    model = ScriptedModel([call("add", a=1, b=2), call("clear"), "Done"])
    agent = Agent(model, db=InMemoryDb(), tools=[Calculator(), other], session_id="chat")
    run = agent.run("Add, then clear")
    assert [(t.tool_name, t.result) for t in run.tools] == [("add", 3), ("clear", None)]
    run.active_requirements[0].confirm()
    assert agent.continue_run(run).content == "Done"
    with pytest.raises(BadUsage, match="no tool 'mul'"):
        Toolkit(tools=[other], include_tools=["mul"])
    with pytest.raises(BadUsage, match="Two tools"):
        Agent(model, tools=[Calculator(), Calculator()])


def test_session_types_select(db):
    """As text or as an enumeration."""
    db.append_run("chat", Run(input="Hello"))
    assert SessionType.AGENT == "agent"
    assert db.get_session("chat", session_type=SessionType.AGENT).session_id == "chat"
    assert db.get_session("chat", session_type=SessionType.TEAM) is None
    assert [s.session_id for s in db.list_sessions(session_type=SessionType.AGENT)] == ["chat"]

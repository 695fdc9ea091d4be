"""A session as a trajectory in ATIF, the interchange format of Harbor: the newest version that Harbor's models accept.

* A session is a trajectory, its messages are steps. What a branch inherits is copied context.
* The runs of members and steps are nested trajectories, which the result of the call that started them refers to.
* Pictures and sounds are files beside the trajectory, in ``images/`` and ``audio/``, as Harbor's agents write them.
* What is unknown is absent; the version of an agent, which ATIF requires, is then "unknown".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kern_nb.extra_keys import TOOL_CALL_ID
from kern_nb.ingest.importers.atif.own import OWN, VERSION
from kern_nb.ingest.origins import ORIGIN
from kern_nb.operations.export.atif_steps import Steps
from kern_nb.operations.export.conversations import Conversation, stated_cost, usage_of
from kern_nb.operations.export.media import MediaFolder
from kern_nb.operations.export.plain import without_none
from kern_nb.records import Run, Usage

SCHEMA_VERSION = "ATIF-v1.8"

_UNKNOWN = "unknown"
_NESTED = "nested_agent"  # in the ``extra`` of a member's run: its session in the source

JsonObject = dict[str, Any]


class TrajectoryWriter:
    """Builds the trajectory of a conversation, and counts what it has.

    Args:
        conversation: The session or run.
        media: Where pictures and sounds are written.
        load: Returns the bytes of a blob by its hash.
    """

    def __init__(self, conversation: Conversation, media: MediaFolder, load: Callable[[str], bytes | None]) -> None:
        self.counts = {"runs": 0, "messages": 0, "tool_calls": 0}
        self._conversation = conversation
        self._media, self._load = media, load
        origin = (conversation.session.session_data or {}).get(ORIGIN)
        self._is_atif = isinstance(origin, dict) and origin.get("format") == "atif"

    def build(self, branches: Sequence[str] = ()) -> JsonObject | None:
        """Return the trajectory; None for a session without messages, which ATIF cannot express.

        ``branches`` are the files of its branches, which an import of this one reads, too.
        """
        conversation = self._conversation
        session = conversation.session
        stated = self._stated_agent()
        name, version = conversation.owner, (session.metadata or {}).get("version")
        agent = {"name": name or _UNKNOWN, "version": version if isinstance(version, str) else _UNKNOWN} | stated
        document = self._trajectory(conversation.session_id, agent, conversation.runs)
        if document is None:
            return None
        own = {
            "version": VERSION,
            "session_name": session.session_name,
            "session_type": session.session_type,
            "agent_id": session.agent_id,
            "team_id": session.team_id,
            "workflow_id": session.workflow_id,
            "metadata": session.metadata or None,
            "created_at": session.created_at,
            "updated_at": session.updated_at,
            "duration_s": session.duration_s,
            "parent_session_id": session.parent_session_id,
            "fork_run_index": session.fork_run_index,
            "fork_message_index": session.fork_message_index,
            "branches": branches or None,
            "scores": conversation.scores or None,
        }
        document["extra"] = {OWN: without_none(own)}
        return document

    def _stated_agent(self) -> JsonObject:
        """The version, tools and details of the agent as its trajectory stated them."""
        agent = ((self._conversation.session.agent_data or {}).get("atif") or {}) if self._is_atif else {}
        agent = agent.get("agent") if isinstance(agent, dict) else None
        agent = agent if isinstance(agent, dict) else {}
        tools = agent.get("tool_definitions")
        stated: JsonObject = {"version": agent["version"]} if isinstance(agent.get("version"), str) else {}
        if isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools):
            stated["tool_definitions"] = tools
        return stated | ({"extra": agent["extra"]} if isinstance(agent.get("extra"), dict) else {})

    def _trajectory(self, trajectory_id: str, agent: JsonObject, runs: list[Run]) -> JsonObject | None:
        conversation = self._conversation
        steps = Steps(self._media, self._load, is_atif=self._is_atif, estimated=conversation.estimated)
        nested: dict[str, JsonObject] = {}
        for run in runs:
            is_copied = run.run_id in conversation.copied
            steps.add_run(run, is_copied=is_copied)
            self.counts["runs"] += 1
            if not is_copied:
                self._add_members(run, steps, nested)
        if not steps.steps:
            return None
        records = steps.finish()
        self.counts["messages"] += steps.n_messages
        self.counts["tool_calls"] += steps.n_calls
        document: JsonObject = {
            "schema_version": SCHEMA_VERSION,
            "session_id": conversation.session_id,
            "trajectory_id": trajectory_id,
            "agent": agent | without_none({"model_name": _model_of(records, runs)}),
            "steps": records,
            "final_metrics": self._totals(runs, nested.values()) | {"total_steps": len(records)},
        }
        return document | ({"subagent_trajectories": list(nested.values())} if nested else {})

    def _add_members(self, run: Run, steps: Steps, nested: dict[str, JsonObject]) -> None:
        """Add the trajectories of a run's members and steps; several runs of one nested agent are one."""
        groups: dict[str, list[Run]] = {}
        for member in self._conversation.members.get(run.run_id, []):
            stated = member.extra.get(_NESTED)
            session_id = stated.get("session_id") if isinstance(stated, dict) else None
            groups.setdefault(session_id if isinstance(session_id, str) else member.run_id, []).append(member)
        for stated_id, members in groups.items():
            trajectory_id = stated_id if stated_id not in nested else members[0].run_id
            first = members[0]
            name = first.agent_id or first.team_id or first.workflow_id or _UNKNOWN
            document = self._trajectory(trajectory_id, {"name": name, "version": _UNKNOWN}, members)
            if document is None:
                continue
            document["extra"] = {OWN: {"version": VERSION}}
            nested[trajectory_id] = document
            call_id = first.internal.get(TOOL_CALL_ID)
            steps.add_reference(run, call_id if isinstance(call_id, str) else None, trajectory_id)

    def _totals(self, runs: list[Run], nested: Iterable[JsonObject]) -> JsonObject:
        """The usage of the runs that are not copied; the cost includes that of nested trajectories."""
        estimated, copied = self._conversation.estimated, self._conversation.copied
        usages = [usage_of(run, estimated) for run in runs if run.run_id not in copied]
        total = Usage.total(usages) or Usage()
        costs = [document["final_metrics"].get("total_cost_usd") for document in nested]
        known = [cost for cost in (stated_cost(total), *costs) if cost is not None]
        fields = {
            "total_prompt_tokens": total.input_tokens,
            "total_completion_tokens": total.output_tokens,
            "total_cached_tokens": total.cache_read_tokens,
            "total_cost_usd": sum(known) if known else None,
        }
        return without_none(fields)


def _model_of(steps: list[JsonObject], runs: list[Run]) -> str | None:
    """The model that a step without one has: the most frequent one, unless the model of some step is unknown."""
    answers = [step for step in steps if step["source"] == "agent" and step.get("llm_call_count") != 0]
    names = [step.get("model_name") for step in answers]
    stated = [name for name in names if name is not None]
    if not stated:
        models = {run.model for run in runs}
        return next(iter(models)) if len(models) == 1 else None
    return Counter(stated).most_common(1)[0][0] if len(stated) == len(names) else None

"""The messages of runs as the steps of an ATIF trajectory.

An answer is a step of the agent, with the results of its calls in its observation. What ATIF has no field for is in
the ``extra`` of the step, call or result: the source's own ``extra``, and below `OWN` what kern_nb's importer needs to
restore the messages.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from kern_nb.extra_keys import FILES
from kern_nb.ingest.importers.atif.own import OWN
from kern_nb.operations.export.atif_fields import (
    JsonObject,
    lift_fields,
    results_of,
    set_extra,
    to_metrics,
    unstated_ends,
)
from kern_nb.operations.export.conversations import is_reasoning, messages_of, reasoning_of
from kern_nb.operations.export.media import MediaFolder, read_medium
from kern_nb.operations.export.plain import to_json, without_none
from kern_nb.records import RESULT_ROLES, Message, Run, ToolCall, is_parts

_Calls: TypeAlias = "defaultdict[str | None, list[tuple[JsonObject, ToolCall]]]"

_SOURCES = {"system": "system", "user": "user", "assistant": "agent"}
_TEXT_TYPES = frozenset({"text", "input_text", "output_text"})


class Steps:
    """Builds the steps of a trajectory.

    Args:
        media: Where pictures and sounds are written.
        load: Returns the bytes of a blob by its hash.
        is_atif: Whether the session was imported from ATIF: fields of a step that kern_nb has no column for are in the
            ``extra`` of its message.
        estimated: The messages whose cost is an estimate, by run id and index.
    """

    def __init__(
        self,
        media: MediaFolder,
        load: Callable[[str], bytes | None],
        *,
        is_atif: bool,
        estimated: frozenset[tuple[str, int | None]],
    ) -> None:
        self.steps: list[JsonObject] = []
        self.n_messages = self.n_calls = 0
        self._media, self._load = media, load
        self._is_atif, self._estimated = is_atif, estimated
        self._pending: _Calls = defaultdict(list)  # of the run, and of those before it
        self._unanswered: _Calls = defaultdict(list)
        self._steps_by_call: dict[tuple[str, str], JsonObject] = {}

    def add_run(self, run: Run, *, is_copied: bool) -> None:
        """Add the messages of a run, and the calls that are in none of them."""
        first = len(self.steps)
        last_answer: JsonObject | None = None
        for message in messages_of(run):
            copied = is_copied or message.from_history is True
            self.n_messages += 1
            if message.role in RESULT_ROLES:
                self._add_result(message, first, is_copied=copied)
            else:
                step = self._add_message(run, message, is_copied=copied)
                last_answer = step if step["source"] == "agent" else last_answer
        in_messages = {id(call) for message in run.messages for call in message.tool_calls}
        for call in run.tool_calls:
            if id(call) not in in_messages and call.message_index is None:
                last_answer = last_answer or self._new_step("agent", "", is_copied=is_copied)
                self._add_calls(run, last_answer, [call])
        if not is_copied:
            self._mark_run(run, first)
        elif len(self.steps) > first:
            own = self.steps[first].setdefault("extra", {}).setdefault(OWN, {})
            own["inherited"] = {"index": run.run_index}
        for call_id, entries in self._pending.items():
            self._unanswered[call_id] += entries
        self._pending.clear()

    def add_reference(self, run: Run, call_id: str | None, trajectory_id: str) -> None:
        """Refer to the trajectory of a member or step from the result of the call that started it.

        Without a call, the reference is in a result of its own, at the last step of the run.
        """
        step = self._steps_by_call.get((run.run_id, call_id or ""))
        if step is None:
            call_id = None
            step = self.steps[-1] if self.steps else self._new_step("system", "", only_results=True)
        results = results_of(step)
        result = next((r for r in results if r.get("source_call_id") == call_id), None) if call_id else None
        if result is None:
            result = without_none({"source_call_id": call_id, "extra": {OWN: {"is_message": False}}})
            results.append(result)
        result.setdefault("subagent_trajectory_ref", []).append({"trajectory_id": trajectory_id})

    def finish(self) -> list[JsonObject]:
        """Add the results of calls that no message has; return the steps."""
        for call_id, entries in self._unanswered.items():
            for step, call in entries:
                if call.result is not None and call_id == call.tool_call_id:
                    result: JsonObject = {"source_call_id": call.tool_call_id}
                    own: JsonObject = {"is_message": False}
                    self._set_result_content(result, own, call.result)
                    failed = {} if call.is_error is None else {"is_error": call.is_error}
                    results_of(step).append(result | {"extra": failed | {OWN: own}})
        self._unanswered.clear()
        for number, step in enumerate(self.steps, 1):
            step["step_id"] = number
        return self.steps

    # Messages -------------------------------------------------------------------------------------------------------

    def _new_step(
        self, source: str, message: Any, *, is_copied: bool = False, only_results: bool = False
    ) -> JsonObject:
        step: JsonObject = {"step_id": 0, "source": source, "message": message}
        if is_copied:
            step["is_copied_context"] = True
        if only_results:
            step["extra"] = {OWN: {"is_message": False}}
        self.steps.append(step)
        return step

    def _add_message(self, run: Run, message: Message, *, is_copied: bool) -> JsonObject:
        source = _SOURCES.get(message.role, "system")
        step = self._new_step(source, "", is_copied=is_copied)
        if message.created_at is not None:
            step["timestamp"] = message.created_at.isoformat()
        extra = dict(message.extra)
        fields, metrics = lift_fields(extra, source) if self._is_atif else ({}, {})
        step |= fields
        own = without_none({"message_id": message.message_id, "partial": message.partial})
        if message.role not in _SOURCES:
            own["role"] = message.role
        step["message"], others = self._to_content(message, own)
        reasoning = reasoning_of(message)
        stated = extra.get("usage") if self._is_atif and message.usage is not None else None
        metrics |= self._metrics(run, message)
        if isinstance(stated, dict):  # the numbers of the source, with details for which kern_nb has no column
            extra.pop("usage")
            if isinstance(stated.get("extra"), dict):
                metrics["extra"] = stated["extra"] | metrics.get("extra", {})
        if source == "agent":
            step |= without_none({"model_name": message.model, "reasoning_content": reasoning})
            step |= {"metrics": metrics} if metrics else {}
        else:
            own |= without_none({"model": message.model, "metrics": metrics or None})
            contents = message.content if isinstance(message.content, list) else []
            others = [part for part in contents if is_reasoning(part)] + others
        if step.get("llm_call_count") == 0 and {"metrics", "reasoning_content"} & step.keys():
            own["llm_call_count"] = step.pop("llm_call_count")
        if others:
            own["parts"] = others
        set_extra(step, extra, own)
        self._add_calls(run, step, message.tool_calls)
        return step

    def _to_content(self, message: Message, own: JsonObject) -> tuple[Any, list[Any]]:
        """The message of a step, and the parts that it cannot have; ``own`` notes a value that is no text."""
        content = message.content
        if content is None or isinstance(content, str):
            return content or "", []
        if not is_parts(content):
            own["is_json"] = True
            return to_json(content), []
        parts: list[JsonObject] = []
        others: list[Any] = []
        has_calls = bool(message.tool_calls)
        for part in content:
            if (converted := self._to_part(part)) is not None:
                parts.append(converted)
            elif not is_reasoning(part) and not (has_calls and part["type"] == "tool_use"):
                others.append(part)
        if any(part["type"] != "text" for part in parts):
            return parts, others
        return "\n".join(part["text"] for part in parts), others

    def _to_part(self, part: Any) -> JsonObject | None:
        if isinstance(part, str):
            return {"type": "text", "text": part}
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in _TEXT_TYPES:
            return {"type": "text", "text": part["text"]} if isinstance(part.get("text"), str) else None
        if kind == "refusal":
            return {"type": "text", "text": part["refusal"]} if isinstance(part.get("refusal"), str) else None
        medium = read_medium(part, self._load)
        if medium is None:
            return None
        return {"type": medium.kind, "source": {"media_type": medium.media_type, "path": self._media.write(medium)}}

    def _metrics(self, run: Run, message: Message) -> JsonObject:
        index = message.message_index
        is_estimate = index is not None and (run.run_id, index) in self._estimated
        return to_metrics(message.usage, is_estimate=is_estimate)

    def _mark_run(self, run: Run, first: int) -> None:
        """Note at the first step of a run what kern_nb has of it: ATIF has no runs."""
        if len(self.steps) == first:
            self._new_step("system", "", only_results=True)
        usage = None if run.usage is None else without_none(run.usage.model_dump())
        if usage and (run.run_id, None) in self._estimated:
            usage.pop("cost", None)
        fields = {
            "index": run.run_index, "id": run.run_id, "type": run.run_type, "status": run.status, "error": run.error,
            "agent_id": run.agent_id, "team_id": run.team_id, "workflow_id": run.workflow_id, "model": run.model,
            "model_provider": run.model_provider, "duration_s": run.duration_s, "usage": usage,
            "time_to_first_token_s": run.time_to_first_token_s,
        }  # fmt: skip
        for name, time in (("created_at", run.created_at), ("finished_at", run.finished_at)):
            fields[name] = None if time is None else time.isoformat()
        step = self.steps[first]
        step.setdefault("extra", {}).setdefault(OWN, {})["run"] = without_none(fields) | unstated_ends(run)

    # Calls and results ------------------------------------------------------------------------------------------------

    def _add_calls(self, run: Run, step: JsonObject, calls: list[ToolCall]) -> None:
        """Add calls to a step; those of another one than the agent are in its ``extra``."""
        self.n_calls += len(calls)
        if not calls:
            return
        records = [self._to_call(call) for call in calls]
        if step["source"] != "agent":
            step.setdefault("extra", {}).setdefault(OWN, {}).setdefault("tool_calls", []).extend(records)
            return
        step.setdefault("tool_calls", []).extend(records)
        for call in calls:
            call_id = str(call.tool_call_id)
            entry = (step, call)
            self._steps_by_call.setdefault((run.run_id, call_id), step)
            self._pending[call_id].append(entry)
            stem, separator, number = call_id.rpartition("~")
            if separator and number.isdigit():  # the second call of an id, whose result states that id
                self._pending[stem].append(entry)

    def _to_call(self, call: ToolCall) -> JsonObject:
        own = without_none(
            {"duration_s": call.duration_s, "caller": None if call.caller == "assistant" else call.caller}
        )
        if call.created_at is not None:
            own["timestamp"] = call.created_at.isoformat()
        if not isinstance(call.args, dict):
            own["arguments"] = call.args
        extra = dict(call.extra)
        if self._is_atif and isinstance(extra.get("extra"), dict):
            extra = extra.pop("extra") | extra
        record = {
            "tool_call_id": call.tool_call_id or "",
            "function_name": call.tool_name or "",
            "arguments": call.args if isinstance(call.args, dict) else {},
        }
        set_extra(record, extra, own)
        return record

    def _add_result(self, message: Message, first: int, *, is_copied: bool) -> None:
        """Add a tool's message to the step of its call; without one, to the step before it."""
        entry = self._take(message, self._pending) or self._take(message, self._unanswered)
        own = without_none({"message_id": message.message_id, "partial": message.partial})
        if message.created_at is not None:
            own["timestamp"] = message.created_at.isoformat()
        if message.role != "tool":
            own["role"] = message.role
        if entry is not None and entry[0].get("is_copied_context", False) is not is_copied:
            entry = None  # the call is inherited, and its result is not
        result: JsonObject = {}
        is_error = message.is_error
        if entry is not None:
            step, call = entry
            result["source_call_id"] = call.tool_call_id
            is_error = True if is_error is None and call.status == "failed" else is_error
            if message.tool_call_id != call.tool_call_id:
                own["tool_call_id"] = message.tool_call_id
            if message.tool_name != call.tool_name:
                own["tool_name"] = message.tool_name
        else:
            own |= without_none({"tool_call_id": message.tool_call_id, "tool_name": message.tool_name})
            last = self.steps[-1] if len(self.steps) > first else None
            if last is None or last.get("is_copied_context", False) is not is_copied:
                last = self._new_step("system", "", is_copied=is_copied, only_results=True)
            step = last
        is_part = FILES in message.internal and isinstance(message.content, dict)
        self._set_result_content(result, own, [message.content] if is_part else message.content)
        extra = dict(message.extra)
        if self._is_atif and isinstance(extra.get("extra"), dict):
            extra = extra.pop("extra") | extra
        extra.pop("subagent_trajectory_ref", None)  # written anew
        set_extra(result, extra | ({} if is_error is None else {"is_error": is_error}), own)
        results_of(step).append(result)

    @staticmethod
    def _take(message: Message, pending: _Calls) -> tuple[JsonObject, ToolCall] | None:
        """Remove and return the call that a result answers: by its id, else by the name of the tool."""
        if message.tool_call_id is not None:
            entries: Iterable[tuple[JsonObject, ToolCall]] = pending.get(message.tool_call_id, [])
        else:
            entries = (e for es in pending.values() for e in es if message.tool_name in (None, e[1].tool_name))
        entry = next(iter(entries), None)
        if entry is None:
            return None
        call_id = str(entry[1].tool_call_id)
        for key in (call_id, call_id.rpartition("~")[0]):
            if key in pending:
                pending[key] = [other for other in pending[key] if other[1] is not entry[1]]
                if not pending[key]:
                    del pending[key]
        return entry

    def _set_result_content(self, result: JsonObject, own: JsonObject, content: Any) -> None:
        """Set the content of a result: text, parts, or the JSON of a value."""
        if isinstance(content, list) and is_parts(content):
            parts = [self._to_part(part) for part in content]
            if all(part is not None for part in parts):
                result["content"] = parts
                return
        if content is None:
            return
        if isinstance(content, str):
            result["content"] = content
        else:
            result["content"], own["is_json"] = to_json(content), True

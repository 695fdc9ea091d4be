"""Tools: Python functions that a model may call, some of them only after a person has answered.

`tool` makes one that pauses. `toolset` is what pydantic-ai is given: it writes every call's end before anything else
happens, and tells the model of a failure instead of ending the run.
"""

from __future__ import annotations

import asyncio
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, update_wrapper
from inspect import BoundArguments, Parameter
from typing import Any, overload

from pydantic import PydanticUserError
from pydantic_ai import RunContext as PydanticContext
from pydantic_ai import Tool as PydanticTool
from pydantic_ai import ToolReturn
from pydantic_ai.exceptions import (
    ApprovalRequired,
    CallDeferred,
    ModelRetry,
    ToolFailed,
    ToolRetryError,
    UserError,
)
from pydantic_ai.toolsets import AbstractToolset, CombinedToolset, FunctionToolset, WrapperToolset
from pydantic_ai.toolsets.abstract import ToolsetTool
from pydantic_core import PydanticSerializationError, to_jsonable_python

from kern_nb.control_characters import escape_controls
from kern_nb.errors import BadUsage, KernError
from kern_nb.interop import media
from kern_nb.records import Run
from kern_nb.runtime.context import ASKED_FOR, RunContext
from kern_nb.runtime.iteration import IterationFailed, is_pending, resolve
from kern_nb.runtime.threads import in_thread

_CONTEXT = "_pydantic_context"

# What a tool raises to speak to the loop: to be tried again, to wait.
_SIGNALS = (ModelRetry, ToolRetryError, CallDeferred, ApprovalRequired)


class Tool:
    """A function that a model may call, and what must happen before it runs; made by `tool`."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        requires_confirmation: bool = False,
        requires_user_input: bool = False,
        user_input_fields: Sequence[str] = (),
        external_execution: bool = False,
        handoff: bool = False,
        assignee: str | None = None,
        prompt: str | None = None,
        expires_after_s: float | None = None,
        timeout_s: float | None = None,
    ) -> None:
        kinds = {
            "confirmation": requires_confirmation,
            "user_input": requires_user_input or bool(user_input_fields),
            "external_execution": external_execution,
            "handoff": handoff,
        }
        asked = [kind for kind, is_set in kinds.items() if is_set]
        if len(asked) > 1:
            raise BadUsage(f"A tool waits for one thing, not for {' and '.join(asked)}.", "Choose one of them.")
        self.function = function
        named = function.func if isinstance(function, partial) else function
        self.name = name or str(getattr(named, "__name__", type(named).__name__))
        self.description = description
        self.kind = asked[0] if asked else None
        self.fields = tuple(user_input_fields)
        self.assignee = assignee
        self.prompt = prompt
        self.expires_after_s = expires_after_s
        self.timeout_s = timeout_s
        signature = _signature(function, self.name)
        declared = signature.parameters
        self.injected = _injected(function, signature)
        self.parameters = [name for name in declared if name not in self.injected]
        self.required_fields = tuple(n for n in self.fields if n in declared and declared[n].default is Parameter.empty)
        if unknown := set(self.fields) - set(self.parameters):
            raise BadUsage(f"{self.name} has no parameter {min(unknown)!r}.", f"It has {self.parameters}.")
        update_wrapper(self, function, updated=())  # attributes of a callable object are not ours

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        """Its name, and what it waits for."""
        return escape_controls(f"<Tool {self.name}{f', waits for {self.kind}' if self.kind else ''}>")


def _signature(function: Callable[..., Any], name: str) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (ValueError, TypeError) as error:
        hint = f"Wrap it: def {name}(x: str): ..., with type hints."
        raise BadUsage(f"{name} says nothing of its parameters, so no model can call it.", hint) from error


@overload
def tool(function: Callable[..., Any], **options: Any) -> Tool: ...
@overload
def tool(function: None = None, **options: Any) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(function: Callable[..., Any] | None = None, **options: Any) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """A tool from a function, which may pause the run; also as a decorator: ``@tool(requires_confirmation=True)``.

    The function's parameters, type hints and docstring are what the model is told. Parameters named ``run_context`` or
    of type `RunContext`, ``session_state`` (its dict) and ``agent`` are filled in by the run.

    Args:
        function: The function, plain or async.
        **options: ``name`` and ``description``, where the function's own will not do;
            ``requires_confirmation``: it runs once a person has approved, with the arguments as they edited them;
            ``requires_user_input``: a person fills in arguments (``user_input_fields`` names which; the model then
            does not see these) or gives the result;
            ``external_execution``: it is never run here, a person or program gives its result;
            ``handoff``: a person takes over, and what they answer is its result;
            ``assignee``: who is to answer; ``prompt``: what they are asked;
            ``expires_after_s``: after so many seconds it counts as refused;
            ``timeout_s``: the most seconds it may run.

    Raises:
        BadUsage: two kinds of waiting at once, or a field that is no parameter.
    """
    if function is None:
        return lambda decorated: Tool(decorated, **options)
    return Tool(function, **options)


def handoff(*, to: str | None = None, name: str = "hand_to_human", description: str | None = None) -> Tool:
    """A ready-made tool with which a model hands the conversation to a person and waits for what they say.

    Args:
        to: The person; None leaves it to whoever looks into the inbox.
        name: The tool's name.
        description: When to use it; a sentence of ours where None.
    """

    def hand_over(reason: str) -> str:
        raise NotImplementedError(reason)  # never called: a person answers

    told = description or "Hand the conversation to a human when you cannot or may not go on. Say why."
    return Tool(hand_over, name=name, description=told, handoff=True, assignee=to)


def normalized(given: Sequence[Any]) -> tuple[dict[str, Tool], list[AbstractToolset[RunContext]]]:
    """The tools of an agent by name, and the toolsets of pydantic-ai among them (an MCP server's, for example).

    Raises:
        BadUsage: two have one name.
    """
    tools: dict[str, Tool] = {}
    toolsets: list[AbstractToolset[RunContext]] = []
    for one in given:
        if isinstance(one, AbstractToolset):
            toolsets.append(one)
            continue
        made = one if isinstance(one, Tool) else Tool(one)
        if made.name in tools:
            raise BadUsage(f"Two tools are called {made.name!r}.", "Give one another name: tool(fn, name=...).")
        tools[made.name] = made
    return tools, toolsets


def toolset(tools: Mapping[str, Tool], others: Sequence[AbstractToolset[RunContext]]) -> AbstractToolset[RunContext]:
    """What pydantic-ai is given."""
    functions: FunctionToolset[RunContext] = FunctionToolset([_pydantic_tool(one) for one in tools.values()])
    return _Ledger(CombinedToolset([_Waiting(functions, tools), *others]))


def _pydantic_tool(one: Tool) -> PydanticTool[RunContext]:
    """The tool as pydantic-ai knows it.

    Raises:
        BadUsage: a parameter has a type that a model cannot be told.
    """
    options: dict[str, Any] = {"name": one.name, "description": one.description, "timeout": one.timeout_s}
    try:
        return PydanticTool(_with_context(one), takes_ctx=True, **options)
    except (PydanticUserError, UserError) as error:
        reason = str(error).splitlines()[0].partition(". Set ")[0]
        raise BadUsage(f"{one.name} cannot be a tool: {reason}.", "Give its parameters types that JSON has.") from error


def _with_context(one: Tool) -> Callable[..., Any]:
    """The function with pydantic-ai's context first, and without the parameters that the run fills in."""
    function = one.function
    signature = inspect.signature(function)
    hints = _hints(function, signature)
    shown, blank = [], set(one.fields)
    for parameter in signature.parameters.values():
        if parameter.name in one.injected:
            continue
        hint = hints[parameter.name]
        if parameter.name in one.fields or not _is_json(parameter.default):
            # A person gives it, so the model need not; or the function's own default is nothing a model can read.
            blank.add(parameter.name)
            parameter = parameter.replace(default=None)  # noqa: PLW2901
            hint = hint | None if hint is not Any else Any
        shown.append(parameter.replace(annotation=hint))
    own = signature.replace(parameters=shown)

    def bound(ctx: PydanticContext[RunContext], args: tuple[Any, ...], kwargs: dict[str, Any]) -> BoundArguments:
        run = replace(ctx.deps, tool_call_id=ctx.tool_call_id)
        known = run.by_name()
        filled = {name: known[what] for name, what in one.injected.items()}
        given = own.bind(*args, **kwargs).arguments | filled
        left = [name for name in blank if given.get(name) is None]
        if missing := [name for name in one.required_fields if name in left]:
            raise ToolFailed(f"{one.name} was not told {', '.join(missing)}.")
        given = {name: value for name, value in given.items() if name not in left}  # the function has its own default
        found = BoundArguments(signature, {n: given[n] for n in signature.parameters if n in given})
        found.apply_defaults()
        return found

    async def awaited(ctx: PydanticContext[RunContext], /, *args: Any, **kwargs: Any) -> Any:
        found = bound(ctx, args, kwargs)
        return await _values(function(*found.args, **found.kwargs))

    def plain(ctx: PydanticContext[RunContext], /, *args: Any, **kwargs: Any) -> Any:
        found = bound(ctx, args, kwargs)
        result = function(*found.args, **found.kwargs)
        # pydantic-ai awaits a coroutine on the loop, within the tool's time limit.
        return _values(result) if is_pending(result) else result

    facade: Any = awaited if inspect.iscoroutinefunction(function) else plain
    first = Parameter(_CONTEXT, Parameter.POSITIONAL_ONLY, annotation=PydanticContext[Any])
    facade.__signature__ = own.replace(parameters=[first, *_after(shown)])
    facade.__annotations__ = {_CONTEXT: PydanticContext[Any]} | {p.name: p.annotation for p in shown}
    facade.__name__, facade.__doc__, facade.__module__ = one.name, inspect.getdoc(function), __name__
    return facade  # type: ignore[no-any-return]


def _injected(function: Callable[..., Any], signature: inspect.Signature) -> dict[str, str]:
    """The parameters that are given by us and not shown to the model, and what: they say it by their name or type.

    Raises:
        BadUsage: one asks for pydantic-ai's own context.
    """
    found = {name: name for name in ASKED_FOR if name in signature.parameters}
    for name, hint in _hints(function, signature).items():
        if hint is RunContext:
            found[name] = "run_context"
        elif name not in found and PydanticContext in (hint, typing.get_origin(hint)):
            said = f"{name}: the RunContext of pydantic-ai is not given to tools here."
            raise BadUsage(said, "Take ours: from kern_nb.agent import RunContext")
    return found


def _hints(function: Callable[..., Any], signature: inspect.Signature) -> dict[str, Any]:
    """The type of each parameter; one that cannot be found out is no hint."""
    try:
        known = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):
        known = {}
    hints = {}
    for name, parameter in signature.parameters.items():
        written = parameter.annotation
        hints[name] = known.get(name, Any if written is Parameter.empty or isinstance(written, str) else written)
    return hints


def _is_json(default: Any) -> bool:
    """Whether a default, if there is one, is something that a schema can state."""
    if default is Parameter.empty:
        return True
    try:
        to_jsonable_python(default)
    except (ValueError, TypeError, PydanticSerializationError):
        return False
    return True


def _after(shown: Sequence[Parameter]) -> list[Parameter]:
    """Parameters in an order that a signature takes, once one of them got a default."""
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    if not any(p.kind in kinds and p.default is None for p in shown):
        return list(shown)
    return [p.replace(kind=Parameter.KEYWORD_ONLY) if p.kind in kinds else p for p in shown]


@dataclass
class _Waiting(WrapperToolset[RunContext]):
    """Marks the tools that wait for an answer; pydantic-ai then asks for it instead of calling them."""

    tools: Mapping[str, Tool]

    async def get_tools(self, ctx: PydanticContext[RunContext]) -> dict[str, ToolsetTool[RunContext]]:
        found = await super().get_tools(ctx)
        return {name: self._marked(name, one) for name, one in found.items()}

    def _marked(self, name: str, found: ToolsetTool[RunContext]) -> ToolsetTool[RunContext]:
        ours = self.tools[name]
        if ours.kind is None:
            return found
        schema = found.tool_def.parameters_json_schema
        if ours.fields:
            shown = {key: value for key, value in schema.get("properties", {}).items() if key not in ours.fields}
            needed = [key for key in schema.get("required", []) if key not in ours.fields]
            schema = {**schema, "properties": shown, "required": needed}
        kind: Any = "unapproved" if ours.kind in ("confirmation", "user_input") else "external"
        return replace(found, tool_def=replace(found.tool_def, kind=kind, parameters_json_schema=schema))


async def _values(result: Any) -> Any:
    """The result of an awaitable, and the list of what a generator yields, also where the tool returns one.

    Raises:
        ToolFailed: a generator raised; the message includes what it had yielded.
    """
    try:
        return await resolve(result, _answer_of)
    except IterationFailed as failed:
        error, items = failed.cause, failed.items
        if isinstance(error, _SIGNALS):
            raise error from None
        text = _error_text(error)
        if items:
            text += f" (after {len(items)} value{'' if len(items) == 1 else 's'}: {media.as_text(items)})"
        raise ToolFailed(text) from error


def _error_text(error: BaseException) -> str:
    """What the model is told of an error."""
    if isinstance(error, ToolFailed):
        return error.message
    hint = f" {error.hint}" if isinstance(error, KernError) and error.hint else ""
    return f"{type(error).__name__}: {error}{hint}"


def _answer_of(result: Any) -> Any:
    """What a tool gave; of an agent's run that it made, the answer.

    Raises:
        ToolFailed: that run waits, and no one would go on with it for this one.
    """
    if not isinstance(result, Run):
        return result
    if result.status != "COMPLETED":
        raise ToolFailed(f"The run {result.session_id}/{result.run_index} is {result.status}; it gave no answer.")
    return result.output


@dataclass
class _Ledger(WrapperToolset[RunContext]):
    """Stores the end of each call when it ends. What a tool raises is told to the model, and the run goes on."""

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: PydanticContext[RunContext], tool: ToolsetTool[RunContext]
    ) -> Any:
        recorder, call_id = ctx.deps.recorder, ctx.tool_call_id or ""
        recorder.call_started(call_id, name, tool_args)
        try:
            result = _answer_of(await _values(await super().call_tool(name, tool_args, ctx, tool)))
        except _SIGNALS:
            raise
        except (Exception, SystemExit, KeyboardInterrupt, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
                raise  # the run is; else it is the tool's own affair
            told = _error_text(error)
            await recorder.call_ended(call_id, name, media.Result(told, told), is_error=True)
            raise ToolFailed(told) from error
        if isinstance(result, ToolReturn):  # the tool says itself what the model is told
            kept = await in_thread(lambda: media.result(result.return_value, recorder.keep_result))
            await recorder.call_ended(call_id, name, kept, is_error=False)
            return result
        given = await in_thread(lambda: media.result(result, recorder.keep_result))
        await recorder.call_ended(call_id, name, given, is_error=False)
        return given.told

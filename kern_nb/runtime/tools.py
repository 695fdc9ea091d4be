"""Tools: Python functions that a model may call, some of them only after a person has answered.

`tool` creates a tool that pauses. `build_toolset` wraps tools for pydantic-ai: the end of every call is stored before
anything else happens, and a failure is reported to the model instead of ending the run.
"""

from __future__ import annotations

import asyncio
import inspect
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, update_wrapper
from inspect import BoundArguments, Parameter
from typing import Any, overload

from pydantic import PydanticUserError
from pydantic_ai import RunContext as PydanticContext
from pydantic_ai import Tool as PydanticTool
from pydantic_ai import ToolReturn
from pydantic_ai.exceptions import ApprovalRequired, CallDeferred, ModelRetry, ToolFailed, ToolRetryError, UserError
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, CombinedToolset, FunctionToolset, WrapperToolset
from pydantic_ai.toolsets.abstract import ToolsetTool
from pydantic_core import PydanticSerializationError, to_jsonable_python

from kern_nb.control_characters import escape_controls
from kern_nb.errors import BadUsage, KernError
from kern_nb.interop import media
from kern_nb.records import Run
from kern_nb.runtime.context import INJECTABLE, RunContext
from kern_nb.runtime.event_loop import in_thread
from kern_nb.runtime.iteration import IterationFailed, is_pending, resolve

_CONTEXT = "_pydantic_context"

# Control flow exceptions of pydantic-ai: retry, or wait.
_SIGNALS = (ModelRetry, ToolRetryError, CallDeferred, ApprovalRequired)


class Tool:
    """A function that a model may call, and what must happen before it runs; see `tool`."""

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
        selected = [kind for kind, is_set in kinds.items() if is_set]
        if len(selected) > 1:
            raise BadUsage(f"A tool has at most one kind of requirement, got {' and '.join(selected)}.", "Choose one.")
        self.function = function
        inner = function.func if isinstance(function, partial) else function
        self.name = name or str(getattr(inner, "__name__", type(inner).__name__))
        self.description = description
        self.kind = selected[0] if selected else None
        self.fields = tuple(user_input_fields)
        self.assignee = assignee
        self.prompt = prompt
        self.expires_after_s = expires_after_s
        self.timeout_s = timeout_s
        try:
            signature = inspect.signature(function)
        except (ValueError, TypeError) as error:
            hint = f"Wrap it: def {self.name}(x: str): ..., with type hints."
            raise BadUsage(f"{self.name} has no signature, so no model can call it.", hint) from error
        declared = signature.parameters
        self.injected = _injected(function, signature)
        self.parameters = [name for name in declared if name not in self.injected]
        self.required_fields = tuple(n for n in self.fields if n in declared and declared[n].default is Parameter.empty)
        if unknown := set(self.fields) - set(self.parameters):
            raise BadUsage(f"Tool {self.name} has no parameter {min(unknown)!r}.", f"It has {self.parameters}.")
        update_wrapper(self, function, updated=())  # without the attributes of a callable object

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return escape_controls(f"<Tool {self.name}{f', requires {self.kind}' if self.kind else ''}>")


@overload
def tool(function: Callable[..., Any], **options: Any) -> Tool: ...
@overload
def tool(function: None = None, **options: Any) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(function: Callable[..., Any] | None = None, **options: Any) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Create a tool from a function, which may pause the run; also a decorator: ``@tool(requires_confirmation=True)``.

    The model sees the function's parameters, type hints and docstring. Parameters named ``run_context`` or of type
    `RunContext`, ``session_state`` (a dict) and ``agent`` are filled in by the run.

    Args:
        function: The function, plain or async.
        **options: ``name``, ``description`` (default: the function's own) and ``timeout_s``, the maximum duration of
            a call. At most one kind of requirement:
            ``requires_confirmation``: run after a person has approved, with the arguments as they edited them;
            ``requires_user_input``: a person fills in arguments (``user_input_fields`` names them, and hides them from
            the model) or the result;
            ``external_execution``: never run here, a person or program supplies the result;
            ``handoff``: a person takes over, and their answer is the result.
            With it: ``assignee``, the person to answer; ``prompt=``, the question they see; ``expires_after_s``, the
            seconds after which it counts as rejected.

    Raises:
        BadUsage: there are two kinds of requirement, or a field is not a parameter.
    """
    if function is None:
        return lambda decorated: Tool(decorated, **options)
    return Tool(function, **options)


def handoff(*, to: str | None = None, name: str = "hand_to_human", description: str | None = None) -> Tool:
    """Create a tool with which a model hands the conversation to a person and waits for their answer.

    Args:
        to: The assignee; anyone where None.
        name: The tool's name.
        description: When to use it; a default sentence where None.
    """

    def hand_over(reason: str) -> str:
        raise NotImplementedError(reason)  # never called: a person answers

    text = description or "Hand the conversation to a human when you cannot or may not go on. Say why."
    return Tool(hand_over, name=name, description=text, handoff=True, assignee=to)


def build_toolset(items: Sequence[Any]) -> tuple[dict[str, Tool], AbstractToolset[RunContext]]:
    """Combine functions and pydantic-ai toolsets (an MCP server, for example) into the toolset of a pydantic-ai agent.

    Returns:
        The functions, as tools by name; and the toolset.

    Raises:
        BadUsage: two tools have the same name.
    """
    tools: dict[str, Tool] = {}
    toolsets: list[AbstractToolset[RunContext]] = []
    for item in items:
        if isinstance(item, AbstractToolset):
            toolsets.append(item)
            continue
        new = item if isinstance(item, Tool) else Tool(item)
        if new.name in tools:
            raise BadUsage(f"Two tools are named {new.name!r}.", "Rename one: tool(fn, name=...).")
        tools[new.name] = new
    functions: FunctionToolset[RunContext] = FunctionToolset([_pydantic_tool(tool) for tool in tools.values()])
    return tools, _RecordingToolset(CombinedToolset([functions, *toolsets]))


def _pydantic_tool(tool: Tool) -> PydanticTool[RunContext]:
    options: dict[str, Any] = {"name": tool.name, "description": tool.description, "timeout": tool.timeout_s}
    prepare = partial(_defer, tool) if tool.kind else None
    try:
        return PydanticTool(_with_context(tool), takes_ctx=True, prepare=prepare, **options)
    except (PydanticUserError, UserError) as error:
        reason = str(error).splitlines()[0].partition(". Set ")[0]
        raise BadUsage(f"{tool.name} cannot be a tool: {reason}.", "Use parameter types that JSON has.") from error


def _with_context(tool: Tool) -> Callable[..., Any]:
    """Wrap the function: pydantic-ai's context comes first, and the parameters that the run fills in are hidden."""
    function = tool.function
    signature = inspect.signature(function)
    hints = _hints(function, signature)
    visible_parameters, optional = [], set(tool.fields)
    for parameter in signature.parameters.values():
        if parameter.name in tool.injected:
            continue
        hint = hints[parameter.name]
        if parameter.name in tool.fields or not _is_json(parameter.default):
            # A person fills it in, or the function's own default has no JSON form: the model may omit it.
            optional.add(parameter.name)
            parameter = parameter.replace(default=None)  # noqa: PLW2901
            hint = hint | None if hint is not Any else Any
        visible_parameters.append(parameter.replace(annotation=hint))
    model_signature = signature.replace(parameters=visible_parameters)

    def bind(ctx: PydanticContext[RunContext], args: tuple[Any, ...], kwargs: dict[str, Any]) -> BoundArguments:
        run = replace(ctx.deps, tool_call_id=ctx.tool_call_id)
        values = run.injectable_values()
        injected = {name: values[key] for name, key in tool.injected.items()}
        arguments = model_signature.bind(*args, **kwargs).arguments | injected
        empty = [name for name in optional if arguments.get(name) is None]
        if required := [name for name in tool.required_fields if name in empty]:
            raise ToolFailed(f"{tool.name} needs a value for {', '.join(required)}.")
        names = [name for name in signature.parameters if name in arguments and name not in empty]
        bound = BoundArguments(signature, {name: arguments[name] for name in names})
        bound.apply_defaults()
        return bound

    async def call_async(ctx: PydanticContext[RunContext], /, *args: Any, **kwargs: Any) -> Any:
        bound = bind(ctx, args, kwargs)
        return await _resolve(function(*bound.args, **bound.kwargs))

    def call_sync(ctx: PydanticContext[RunContext], /, *args: Any, **kwargs: Any) -> Any:
        bound = bind(ctx, args, kwargs)
        result = function(*bound.args, **bound.kwargs)
        # pydantic-ai awaits a coroutine on the loop, within the tool's time limit.
        return _resolve(result) if is_pending(result) else result

    wrapper: Any = call_async if inspect.iscoroutinefunction(function) else call_sync
    first = Parameter(_CONTEXT, Parameter.POSITIONAL_ONLY, annotation=PydanticContext[Any])
    wrapper.__signature__ = model_signature.replace(parameters=[first, *_valid_order(visible_parameters)])
    wrapper.__annotations__ = {_CONTEXT: PydanticContext[Any]} | {p.name: p.annotation for p in visible_parameters}
    wrapper.__name__, wrapper.__doc__, wrapper.__module__ = tool.name, inspect.getdoc(function), __name__
    return wrapper  # type: ignore[no-any-return]


def _injected(function: Callable[..., Any], signature: inspect.Signature) -> dict[str, str]:
    """Return the parameters that the run fills in, by name or type, with the value that each gets."""
    injected = {name: name for name in INJECTABLE if name in signature.parameters}
    for name, hint in _hints(function, signature).items():
        if hint is RunContext:
            injected[name] = "run_context"
        elif name not in injected and PydanticContext in (hint, typing.get_origin(hint)):
            message = f"Parameter {name!r} has the RunContext of pydantic-ai, which is not available here."
            raise BadUsage(message, "Use that of kern_nb: from kern_nb.agent import RunContext")
    return injected


def _hints(function: Callable[..., Any], signature: inspect.Signature) -> dict[str, Any]:
    """Return the type of each parameter; Any where it cannot be resolved."""
    try:
        resolved = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):
        resolved = {}
    hints = {}
    for name, parameter in signature.parameters.items():
        raw = parameter.annotation
        hints[name] = resolved.get(name, Any if raw is Parameter.empty or isinstance(raw, str) else raw)
    return hints


def _is_json(default: Any) -> bool:
    """Whether a JSON schema can state a default; true without one."""
    if default is Parameter.empty:
        return True
    try:
        to_jsonable_python(default)
    except (ValueError, TypeError, PydanticSerializationError):
        return False
    return True


def _valid_order(parameters: Sequence[Parameter]) -> list[Parameter]:
    """Make parameters keyword-only where one has a default, so that any order is a valid signature."""
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    if not any(p.kind in kinds and p.default is None for p in parameters):
        return list(parameters)
    return [p.replace(kind=Parameter.KEYWORD_ONLY) if p.kind in kinds else p for p in parameters]


def _defer(tool: Tool, _ctx: PydanticContext[RunContext], definition: ToolDefinition) -> ToolDefinition:
    """Mark the definition of a tool with a requirement; pydantic-ai then defers its calls."""
    schema = definition.parameters_json_schema
    if tool.fields:
        properties = {key: value for key, value in schema.get("properties", {}).items() if key not in tool.fields}
        required = [key for key in schema.get("required", []) if key not in tool.fields]
        schema = {**schema, "properties": properties, "required": required}
    kind: Any = "unapproved" if tool.kind in ("confirmation", "user_input") else "external"
    return replace(definition, kind=kind, parameters_json_schema=schema)


async def _resolve(result: Any) -> Any:
    """Resolve a result. If a generator raises, its error for the model includes the values before that."""
    try:
        return await resolve(result, _unwrap_run)
    except IterationFailed as failed:
        error, items = failed.cause, failed.items
        if isinstance(error, _SIGNALS):
            raise error from None
        text = _error_text(error)
        if items:
            text += f" (after {len(items)} value{'' if len(items) == 1 else 's'}: {media.as_text(items)})"
        raise ToolFailed(text) from error


def _error_text(error: BaseException) -> str:
    if isinstance(error, ToolFailed):
        return error.message
    hint = f" {error.hint}" if isinstance(error, KernError) and error.hint else ""
    return f"{type(error).__name__}: {error}{hint}"


def _unwrap_run(result: Any) -> Any:
    """Return a tool's result; of a `Run`, its output. Nothing would resume a run that is not completed."""
    if not isinstance(result, Run):
        return result
    if result.status != "COMPLETED":
        raise ToolFailed(f"Run {result.session_id}/{result.run_index} is {result.status} and has no output.")
    return result.output


@dataclass
class _RecordingToolset(WrapperToolset[RunContext]):
    """Stores the end of each call when it ends. An error of a tool is sent to the model, and the run continues."""

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: PydanticContext[RunContext], tool: ToolsetTool[RunContext]
    ) -> Any:
        recorder, call_id = ctx.deps.recorder, ctx.tool_call_id or ""
        recorder.call_started(call_id, name, tool_args)
        await recorder.events.caught_up()  # a consumer that stops here has stopped the call
        try:
            result = _unwrap_run(await _resolve(await super().call_tool(name, tool_args, ctx, tool)))
        except _SIGNALS:
            raise
        except (Exception, SystemExit, KeyboardInterrupt, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
                raise  # the run is cancelled; otherwise the tool raised it itself
            text = _error_text(error)
            await recorder.call_ended(call_id, name, tool_args, media.ToolOutput(text, text), is_error=True)
            raise ToolFailed(text) from error
        value = result.return_value if isinstance(result, ToolReturn) else result
        output = await in_thread(lambda: media.store_result(value, recorder.keep_result))
        await recorder.call_ended(call_id, name, tool_args, output, is_error=False)
        # A ToolReturn has its own content for the model.
        return result if isinstance(result, ToolReturn) else output.content

"""Calls of a workflow's functions: parameters by name, generators, and what a function returns."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import aclosing, closing
from typing import Any

from kern_nb.errors import BadUsage, RunFailed
from kern_nb.events.base import BaseRunOutputEvent
from kern_nb.interop.media import plain_value
from kern_nb.records import Run
from kern_nb.runtime.event_loop import in_thread
from kern_nb.runtime.events import Event
from kern_nb.runtime.iteration import IterationFailed, is_pending, resolve
from kern_nb.runtime.workflow_types import StepOutput


async def call_function(function: Callable[..., Any], argument: Any, values: dict[str, Any], name: str) -> Any:
    """Call a function that decides something, and return its result.

    Args:
        function: The function.
        argument: Its argument.
        values: The values of parameters that are filled in by name.
        name: The name of the function in errors.

    Raises:
        BadUsage: it is a generator, which is true whatever it yields.
    """
    result = await _call(function, argument, values)
    if is_pending(result):
        raise BadUsage(f"{name!r} must return a value, got a generator.", "Use return instead of yield.")
    return _unwrap_run(name, result)


async def call_step(
    function: Callable[..., Any], argument: Any, values: dict[str, Any], name: str, forward: Callable[[Event], None]
) -> StepOutput:
    """Call a function that is a step, and return its output as plain values.

    The output of a generator function is its texts together; of other values, their list. A `StepOutput` or a `Run`
    that it yields is its output instead, and events of an agent's run are passed on as they come. An iterator that a
    function returns is its output as a list.
    """
    try:
        result = await _call(function, argument, values)
        is_generator = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
        if inspect.isgenerator(result) and is_generator:
            result = _with_result(result, forward)
        elif is_generator:
            result = _forwarding(result, forward)
        result = await resolve(result, lambda item: item if is_generator else _unwrap_run(name, item))
    except (IterationFailed, SystemExit, KeyboardInterrupt) as failed:
        error = failed.cause if isinstance(failed, IterationFailed) else failed
        if isinstance(error, (SystemExit, KeyboardInterrupt)):  # asyncio would end its loop, and every run with it
            raise RunFailed(f"{type(error).__name__}: {error}") from error
        raise error from None
    output = _unwrap_run(name, _join(result) if is_generator else result)
    output = output if isinstance(output, StepOutput) else StepOutput(output)
    output.content = plain_value(_unwrap_run(name, output.content))
    return output


async def _call(function: Callable[..., Any], argument: Any, values: dict[str, Any]) -> Any:
    """Call a function, in a thread unless it is async, and await its result."""
    positional, keywords = _arguments(function, argument, values)
    try:
        is_async = inspect.iscoroutinefunction(function)
        result = (
            function(*positional, **keywords)
            if is_async
            else await in_thread(lambda: function(*positional, **keywords))
        )
        while inspect.isawaitable(result):
            result = await result
    except (SystemExit, KeyboardInterrupt) as error:
        raise RunFailed(f"{type(error).__name__}: {error}") from error
    return result


def _arguments(function: Callable[..., Any], argument: Any, values: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of a call: the values by name, and the argument as the first other parameter."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of some built-in functions
        return [argument], {}
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    has_argument = False
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            positional += [] if has_argument else [argument]
            has_argument = True
        elif parameter.name in values and parameter.kind is not parameter.POSITIONAL_ONLY:
            keywords[parameter.name] = values[parameter.name]
        elif not has_argument and not (
            parameter.kind is parameter.KEYWORD_ONLY and parameter.default is not parameter.empty
        ):
            has_argument = True
            if keywords or parameter.kind is parameter.KEYWORD_ONLY:
                keywords[parameter.name] = argument
            else:
                positional.append(argument)
    return positional, keywords


def _with_result(items: Generator[Any, Any, Any], forward: Callable[[Event], None]) -> Iterator[Any]:
    """Iterate over a generator; a `StepOutput` that it returns is its last item."""
    result = yield from _each(items, forward)
    if isinstance(result, StepOutput):
        yield result


def _each(items: Generator[Any, Any, Any], forward: Callable[[Event], None]) -> Generator[Any, Any, Any]:
    with closing(items):
        while True:
            try:
                item = next(items)
            except StopIteration as end:
                return end.value
            if isinstance(item, BaseRunOutputEvent):
                forward(item)
            yield item


async def _forwarding(items: AsyncGenerator[Any, Any], forward: Callable[[Event], None]) -> AsyncIterator[Any]:
    async with aclosing(items):
        async for item in items:
            if isinstance(item, BaseRunOutputEvent):
                forward(item)
            yield item


def _text(item: Any) -> str | None:
    """Return the text of a yielded item: itself, or that of an event with a part of an agent's answer."""
    if isinstance(item, str):
        return item
    if not isinstance(item, BaseRunOutputEvent) or not item.event.endswith("RunContent"):
        return None
    content = getattr(item, "content", None)
    return content if isinstance(content, str) else None


def _join(items: Any) -> Any:
    """Return the output of a generator function."""
    if not isinstance(items, list):
        return items
    results = [item for item in items if isinstance(item, (StepOutput, Run))]
    if results:
        return results[-1]
    values = [text if (text := _text(item)) is not None else item for item in items if not _is_event(item)]
    return "".join(values) if values and all(isinstance(value, str) for value in values) else values


def _is_event(item: Any) -> bool:
    """Whether an item is an event of an agent's run other than a part of its answer."""
    return isinstance(item, BaseRunOutputEvent) and _text(item) is None


def _unwrap_run(name: str, result: Any) -> Any:
    """Return a function's result; of a `Run`, its output. Nothing would resume a run that is not completed."""
    if not isinstance(result, Run):
        return result
    if result.status != "COMPLETED":
        message = f"Step {name} returned a run with status {result.status}."
        raise BadUsage(message, "Use the agent itself as the step.")
    return result.output

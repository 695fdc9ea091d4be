"""`Toolkit`: several tools of one object, with what must happen before some of them run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from kern_nb.errors import BadUsage, did_you_mean


class Toolkit:
    """Tools that belong together; a base class, or a list with a name. An agent takes it like its tools.

    Example:
        >>> class Calculator(Toolkit):
        ...     def __init__(self) -> None:
        ...         super().__init__(name="calculator", tools=[self.add, self.clear], exclude_tools=["clear"])
        ...     def add(self, a: int, b: int) -> int:
        ...         return a + b
        ...     def clear(self) -> None: ...
        >>> Calculator()
        <Toolkit calculator: add>

    Args:
        name: Its name.
        tools: Functions, or results of `tool`.
        include_tools: The names of the tools to offer; all where None.
        exclude_tools: The names of tools not to offer.
        requires_confirmation_tools: The names of tools that run only once a person has approved.
        external_execution_required_tools: The names of tools whose results are supplied from outside.

    Raises:
        BadUsage: there is no tool of a name.
    """

    def __init__(
        self,
        name: str = "toolkit",
        tools: Sequence[Callable[..., Any]] = (),
        *,
        include_tools: Collection[str] | None = None,
        exclude_tools: Collection[str] | None = None,
        requires_confirmation_tools: Collection[str] | None = None,
        external_execution_required_tools: Collection[str] | None = None,
    ) -> None:
        self.name = name
        self.tools = list(tools)
        self._included, self._excluded = include_tools, set(exclude_tools or ())
        self._confirmed = set(requires_confirmation_tools or ())
        self._external = set(external_execution_required_tools or ())
        known = [_name(item) for item in self.tools]
        named = {*(include_tools or ()), *self._excluded, *self._confirmed, *self._external}
        if unknown := sorted(named - set(known)):
            hint = did_you_mean(unknown[0], known, f"Its tools are {', '.join(known) or 'none'}.")
            raise BadUsage(f"Toolkit {name!r} has no tool {unknown[0]!r}.", hint)

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        """Iterate over the tools to offer."""
        from kern_nb.runtime.tools import Tool

        for item in self.tools:
            name = _name(item)
            if name in self._excluded or (self._included is not None and name not in self._included):
                continue
            options: dict[str, Any] = {
                "requires_confirmation": name in self._confirmed,
                "external_execution": name in self._external,
            }
            if not any(options.values()):
                yield item
            elif isinstance(item, Tool):
                raise BadUsage(f"Tool {name!r} states itself what it requires.", "Pass the function to the toolkit.")
            else:
                yield Tool(item, **options)

    def __repr__(self) -> str:
        return f"<Toolkit {self.name}: {', '.join(_name(item) for item in self)}>"


def _name(item: Any) -> str:
    return str(getattr(item, "name", None) or getattr(item, "__name__", type(item).__name__))

"""A tool call under Agno's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any


class ToolCallMethods:
    """A tool call under Agno's names."""

    if TYPE_CHECKING:
        args: Any

        @property
        def is_error(self) -> bool | None:
            """Whether the tool failed; None if that is unknown."""

    @property
    def tool_args(self) -> Any:
        """The arguments."""
        return self.args

    @property
    def tool_call_error(self) -> bool | None:
        """Whether the tool failed; None if that is unknown."""
        return self.is_error

"""`AgentRuns`: how agents and teams are run: with files beside the input."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from kern_nb.runtime.session_owner import SessionOwner

if TYPE_CHECKING:
    from kern_nb.records import Run
    from kern_nb.runtime.run_options import AgentRunOptions, AsyncStream, Stream


class AgentRuns(SessionOwner):
    """Runs of an agent or a team."""

    @overload
    def run(self, input: Any, *, stream: Literal[False] | None = None, **options: Unpack[AgentRunOptions]) -> Run: ...
    @overload
    def run(self, input: Any, *, stream: Literal[True], **options: Unpack[AgentRunOptions]) -> Stream: ...
    def run(
        self,
        input: Any,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        session_state: dict[str, Any] | None = None,
        images: Any = None,
        audio: Any = None,
        videos: Any = None,
        files: Any = None,
        stream: bool | None = None,
        stream_events: bool | None = None,
        yield_run_output: bool = False,
    ) -> Run | Stream:
        """Run synchronously; see `arun`. Also works inside a running event loop, like that of a notebook's cell.

        With ``stream``, returns a plain iterator of the events, which works in scripts, cells and threads.

        Example:
            >>> from kern_nb import Agent, InMemoryDb
            >>> from kern_nb.models.scripted import ScriptedModel
            >>> from kern_nb.run.agent import RunEvent
            >>> agent = Agent(ScriptedModel("Hello Alice."), db=InMemoryDb())
            >>> for chunk in agent.run("I am Alice", stream=True):
            ...     print(chunk.event, repr(chunk.content) if chunk.event == RunEvent.run_content else "")
            RunStarted
            RunContent 'Hello '
            RunContent 'Alice.'
            RunCompleted
        """
        media = {"images": images, "audio": audio, "videos": videos, "files": files}
        work = self._start(input, session_id, user_id, session_state, **media)
        return self._run_sync(work, self._options(stream=stream, details=stream_events, yield_run=yield_run_output))

    @overload
    def arun(
        self, input: Any, *, stream: Literal[False] | None = None, **options: Unpack[AgentRunOptions]
    ) -> Coroutine[Any, Any, Run]: ...
    @overload
    def arun(self, input: Any, *, stream: Literal[True], **options: Unpack[AgentRunOptions]) -> AsyncStream: ...
    def arun(
        self,
        input: Any,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        session_state: dict[str, Any] | None = None,
        images: Any = None,
        audio: Any = None,
        videos: Any = None,
        files: Any = None,
        stream: bool | None = None,
        stream_events: bool | None = None,
        yield_run_output: bool = False,
    ) -> Coroutine[Any, Any, Run] | AsyncStream:
        """Run on an input: ``await agent.arun(...)``. Every message is stored as it comes.

        With ``stream``: ``async for event in agent.arun(..., stream=True)``. The run is at most one event ahead of who
        reads the stream: it waits before it calls the model or a tool. A stream that is closed before its end cancels
        the run, which is stored with the partial answer.

        Args:
            input: A text, a list of texts and files, or any other value, which becomes JSON.
            session_id: The session; the agent's own where None, and a new one where it has none.
            user_id: The owner of the session; the agent's default where None.
            session_state: State that takes precedence over the stored one, which takes precedence over the agent's.
            images: Images as bytes, paths or URLs, one or several; likewise the next three.
            audio: Audio.
            videos: Videos.
            files: Documents.
            stream: Return an iterator of events; the default of the constructor where None.
            stream_events: Also the finer events: model requests, reasoning, summaries.
            yield_run_output: Yield the run after the last event of a stream.

        Returns:
            The run as stored; its status is PAUSED if it has pending requirements.

        Raises:
            RunFailed: the run ended with an error, and is stored with it. A stream has the error's event before.
            OwnerMismatch: the session belongs to another user; nothing is stored.
        """
        media = {"images": images, "audio": audio, "videos": videos, "files": files}
        work = self._start(input, session_id, user_id, session_state, **media)
        return self._run_async(work, self._options(stream=stream, details=stream_events, yield_run=yield_run_output))

    def print_response(
        self,
        input: Any,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        session_state: dict[str, Any] | None = None,
        images: Any = None,
        audio: Any = None,
        videos: Any = None,
        files: Any = None,
        stream: bool | None = None,
    ) -> None:
        """Run, and print the response into the cell, or on the terminal. Parameters as for `arun`.

        It is printed as it comes, or with ``stream=False`` once at the end.
        """
        media = {"images": images, "audio": audio, "videos": videos, "files": files}
        self._print(self._start(input, session_id, user_id, session_state, **media), stream=stream)

    async def aprint_response(
        self,
        input: Any,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        session_state: dict[str, Any] | None = None,
        images: Any = None,
        audio: Any = None,
        videos: Any = None,
        files: Any = None,
        stream: bool | None = None,
    ) -> None:
        """Do `print_response` asynchronously."""
        media = {"images": images, "audio": audio, "videos": videos, "files": files}
        await self._aprint(self._start(input, session_id, user_id, session_state, **media), stream=stream)

    def _build_prompt(
        self, input: Any, images: Any = None, audio: Any = None, videos: Any = None, files: Any = None
    ) -> Any:
        from kern_nb.interop import media

        return media.build_prompt(input, {"image": images, "audio": audio, "video": videos, "document": files})

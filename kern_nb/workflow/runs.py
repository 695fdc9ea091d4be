"""`WorkflowRuns`: how workflows are run: with additional data beside the input, and continued at a step."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from kern_nb.extra_keys import ADDITIONAL_DATA
from kern_nb.runtime.parameters import require_dict
from kern_nb.runtime.session_owner import SessionOwner

if TYPE_CHECKING:
    from kern_nb.records import Requirement, Run
    from kern_nb.runtime.context import RunContext
    from kern_nb.runtime.run_modes import RunFunction
    from kern_nb.runtime.run_options import AsyncStream, Stream, WorkflowResumeOptions, WorkflowRunOptions


class WorkflowRuns(SessionOwner):
    """Runs of a workflow."""

    @overload
    def run(
        self, input: Any = None, *, stream: Literal[False] | None = None, **options: Unpack[WorkflowRunOptions]
    ) -> Run: ...
    @overload
    def run(self, input: Any = None, *, stream: Literal[True], **options: Unpack[WorkflowRunOptions]) -> Stream: ...
    def run(
        self,
        input: Any = None,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        session_state: dict[str, Any] | None = None,
        additional_data: dict[str, Any] | None = None,
        stream: bool | None = None,
        stream_events: bool | None = None,
        yield_run_output: bool = False,
    ) -> Run | Stream:
        """Run synchronously; see `arun`. Also works inside a running event loop, like that of a notebook's cell."""
        work = self._start(input, session_id, user_id, session_state, additional_data=additional_data)
        return self._run_sync(work, self._options(stream=stream, details=stream_events, yield_run=yield_run_output))

    @overload
    def arun(
        self, input: Any = None, *, stream: Literal[False] | None = None, **options: Unpack[WorkflowRunOptions]
    ) -> Coroutine[Any, Any, Run]: ...
    @overload
    def arun(
        self, input: Any = None, *, stream: Literal[True], **options: Unpack[WorkflowRunOptions]
    ) -> AsyncStream: ...
    def arun(
        self,
        input: Any = None,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        session_state: dict[str, Any] | None = None,
        additional_data: dict[str, Any] | None = None,
        stream: bool | None = None,
        stream_events: bool | None = None,
        yield_run_output: bool = False,
    ) -> Coroutine[Any, Any, Run] | AsyncStream:
        """Run on an input. Every step is stored as it ends.

        Args:
            input: A text, or any other value, which becomes JSON; with ``input_schema``, what fits it.
            session_id: The session; the workflow's own where None, and a new one where it has none.
            user_id: The owner of the session; the workflow's default where None.
            session_state: State that takes precedence over the stored one.
            additional_data: What functions find in `StepInput.additional_data`, stored with the run.
            stream: Return an iterator of events; the default of the constructor where None.
            stream_events: Also the finer events, those of steps among them.
            yield_run_output: Yield the run after the last event.

        Returns:
            The run as stored; its status is PAUSED if it has pending requirements.

        Raises:
            BadUsage: the input does not fit the ``input_schema``; nothing is stored.
            RunFailed: the run ended with an error, and is stored with it.
            OwnerMismatch: the session belongs to another user; nothing is stored.
        """
        work = self._start(input, session_id, user_id, session_state, additional_data=additional_data)
        return self._run_async(work, self._options(stream=stream, details=stream_events, yield_run=yield_run_output))

    def print_response(
        self,
        input: Any = None,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        session_state: dict[str, Any] | None = None,
        additional_data: dict[str, Any] | None = None,
        stream: bool | None = None,
    ) -> None:
        """Run, and print the response into the cell, or on the terminal. Parameters as for `arun`."""
        work = self._start(input, session_id, user_id, session_state, additional_data=additional_data)
        self._print(work, stream=stream)

    async def aprint_response(
        self,
        input: Any = None,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        session_state: dict[str, Any] | None = None,
        additional_data: dict[str, Any] | None = None,
        stream: bool | None = None,
    ) -> None:
        """Do `print_response` asynchronously."""
        work = self._start(input, session_id, user_id, session_state, additional_data=additional_data)
        await self._aprint(work, stream=stream)

    @overload  # type: ignore[override] # a workflow is not continued in a branch
    def continue_run(
        self,
        run_id: str | int | Run | None = None,
        *,
        stream: Literal[False] | None = None,
        **options: Unpack[WorkflowResumeOptions],
    ) -> Run: ...
    @overload
    def continue_run(
        self, run_id: str | int | Run | None = None, *, stream: Literal[True], **options: Unpack[WorkflowResumeOptions]
    ) -> Stream: ...
    def continue_run(
        self,
        run_id: str | int | Run | None = None,
        *,
        run_response: Run | None = None,
        requirements: Sequence[Requirement] | None = None,
        step_requirements: Sequence[Requirement] | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        rerun_interrupted: bool = False,
        stream: bool | None = None,
        stream_events: bool | None = None,
        yield_run_output: bool = False,
    ) -> Run | Stream:
        """Continue a run synchronously; see `acontinue_run`."""
        answers = {"requirements": [*(requirements or ()), *(step_requirements or ())]}
        options = {"rerun_interrupted": rerun_interrupted}
        work = self._prepare_continuation(run_id, run_response, session_id, user_id, answers, **options)
        return self._run_sync(work, self._options(stream=stream, details=stream_events, yield_run=yield_run_output))

    @overload  # type: ignore[override] # as above
    def acontinue_run(
        self,
        run_id: str | int | Run | None = None,
        *,
        stream: Literal[False] | None = None,
        **options: Unpack[WorkflowResumeOptions],
    ) -> Coroutine[Any, Any, Run]: ...
    @overload
    def acontinue_run(
        self, run_id: str | int | Run | None = None, *, stream: Literal[True], **options: Unpack[WorkflowResumeOptions]
    ) -> AsyncStream: ...
    def acontinue_run(
        self,
        run_id: str | int | Run | None = None,
        *,
        run_response: Run | None = None,
        requirements: Sequence[Requirement] | None = None,
        step_requirements: Sequence[Requirement] | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        rerun_interrupted: bool = False,
        stream: bool | None = None,
        stream_events: bool | None = None,
        yield_run_output: bool = False,
    ) -> Coroutine[Any, Any, Run] | AsyncStream:
        """Continue a run at the step where it paused, failed or was interrupted; completed steps do not run again.

        The steps must be those of its start: a completed step whose name has changed is refused.

        Args:
            run_id: The run, or its id; or ``chat/2``; or, with ``session_id``, its index or a unique prefix of its id.
            run_response: The run, as a workflow returned it.
            requirements: Requirements with answers to store first: all of them, or none if one has an answer by now.
                Those of a run that is passed as an object are among them.
            step_requirements: Another name of ``requirements``.
            session_id: Its session.
            user_id: The owner of the session; the workflow's own user where None.
            rerun_interrupted: Whether a function that was interrupted, and may have taken effect, runs again.
            stream: Return an iterator of events, as `arun` does; likewise the next two.
            stream_events: Also the finer events.
            yield_run_output: Yield the run after the last event.

        Raises:
            StillWaiting: requirements are pending.
            AlreadyResolved: a requirement has an answer already; none is stored.
            AlreadyClaimed: another caller continues it.
            RunClosed: it has ended.
            RunFailed: it ended with an error.
        """
        answers = {"requirements": [*(requirements or ()), *(step_requirements or ())]}
        options = {"rerun_interrupted": rerun_interrupted}
        work = self._prepare_continuation(run_id, run_response, session_id, user_id, answers, **options)
        return self._run_async(work, self._options(stream=stream, details=stream_events, yield_run=yield_run_output))

    def _prepare_run(
        self,
        input: Any,
        session_id: str,
        user_id: str | None,
        extra: dict[str, Any],
        session_state: dict[str, Any] | None = None,
        parent: RunContext | None = None,
        **options: Any,
    ) -> RunFunction:
        additional = require_dict("additional_data", options.pop("additional_data", None))
        if additional:
            from kern_nb.interop.media import plain_value

            extra = extra | {ADDITIONAL_DATA: plain_value(additional)}
        return super()._prepare_run(input, session_id, user_id, extra, session_state, parent, **options)

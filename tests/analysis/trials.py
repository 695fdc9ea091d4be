"""Sessions that are trials of tasks: what a benchmark leaves, in a few rows."""

from __future__ import annotations

from kern_nb.records import Run, Session, Usage


def save_trial(store, session_id, model, task, reward=None, *, tokens=10, cost=0.5, time=2.0, runs=None, **fields):
    """One session: a task tried by a model, and what it was given for it."""
    usage = Usage(input_tokens=tokens, output_tokens=0, cost=cost)
    store.save_session(
        Session(
            session_id=session_id,
            metadata={"task_id": task} if task is not None else {},
            runs=runs if runs is not None else [Run(model=model, usage=usage, duration_s=time)],
            **fields,
        )
    )
    if reward is not None:
        store.add_score(session_id, "reward", reward)


def save_trials(store, model, rewards, **more):
    """Sessions of a model: for each task its rewards, one a trial."""
    for task, given in rewards.items():
        for n, reward in enumerate(given):
            save_trial(store, f"{model}-{task}-{n}", model, task, reward, **more)


def table(frame):
    """The rows of a frame as tuples, None where a value is missing."""
    return [tuple(row) for row in frame.astype(object).where(frame.notna(), None).to_numpy()]


def row(frame, **values):
    """The one row of a frame that has these values, as a dict."""
    for name, value in values.items():
        frame = frame[frame[name] == value]
    assert len(frame) == 1
    return dict(zip(frame.columns, table(frame)[0], strict=True))

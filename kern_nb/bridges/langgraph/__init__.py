"""LangGraph on our store: a checkpointer, and compiled graphs that are attached to a store.

A thread is a session, each input of it a run with its messages, calls, state and status; an interrupt pauses the run;
a fork is a branch. The checkpoints lie in optional tables (`kern_nb.db.checkpoint_tables`), from which LangGraph
resumes.

| file | contents |
|---|---|
| `saver.py`, `attached.py` | `KernSaver`, the checkpointer; `attach`, and what it learns of an invocation |
| `rows.py`, `queries.py` | checkpoints as rows; the prepared statements |
| `values.py` | values as parts that consecutive states share |
| `recorder.py`, `steps.py`, `runs.py` | where a checkpoint belongs; what it adds; its run |
| `edits.py`, `pauses.py` | edited messages; interrupts |
| `invocations.py` | with what a thread was invoked last |
| `channels.py` | the channels of a state in our terms |
| `resume.py` | `resume`, `resume_run`: going on with stored answers |
| `threads.py` | deleting, copying and pruning threads; going on from a branch |
"""

from kern_nb.errors import MissingExtra

try:
    from kern_nb.bridges.langgraph.attached import attach
    from kern_nb.bridges.langgraph.resume import owner_names, resume, resume_run
    from kern_nb.bridges.langgraph.saver import KernSaver
except ImportError as error:
    raise MissingExtra(f"LangGraph cannot be imported: {error}.", 'Run pip install -U "kern_nb[langgraph]".') from error

__all__ = ["KernSaver", "attach", "owner_names", "resume", "resume_run"]

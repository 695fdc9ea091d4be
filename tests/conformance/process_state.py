"""Compare the global state of a process before and after all of kern_nb is used; run by test_process_state.py.

Arguments: a folder to work in and the URL of a PostgreSQL database. Writes JSON: for each part of the state that
changed, the values before and after.
"""

from __future__ import annotations

import asyncio
import builtins
import codecs
import copyreg
import decimal
import faulthandler
import gc
import json
import locale
import logging
import mimetypes
import os
import random
import resource
import signal
import socket
import sqlite3
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import altair
import duckdb
import httpx  # noqa: F401 - where rich is installed, httpx imports it, which draws a random number once
import IPython
import numpy as np
import psycopg
import pyarrow as pa
from IPython.core.interactiveshell import InteractiveShell
from sqlalchemy.event import registry
from traitlets.config import Config


def _logging() -> dict[str, Any]:
    loggers = {"": logging.getLogger()} | {
        name: logger for name, logger in logging.root.manager.loggerDict.items() if isinstance(logger, logging.Logger)
    }
    return {
        name: (logger.level, logger.disabled, logger.propagate, list(map(repr, logger.handlers)), len(logger.filters))
        for name, logger in loggers.items()
        if not name or logger.handlers or logger.level or logger.disabled or not logger.propagate
    }


def _umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


def _pandas() -> str:
    from pandas._config import config

    return repr(config._global_config)


def _limits() -> dict[str, Any]:
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    return {name: resource.getrlimit(getattr(resource, name)) for name in names}


def _hooks_of_shell(shell: InteractiveShell) -> dict[str, Any]:
    formats = {
        name: {kind.__qualname__ for kind in formatter.type_printers}
        for name, formatter in shell.display_formatter.formatters.items()
    }
    return {
        "exceptions": (shell.custom_exceptions, shell._showtraceback.__qualname__, shell.InteractiveTB.mode),
        "events": {name: len(callbacks) for name, callbacks in shell.events.callbacks.items()},
        "transformers": (
            list(shell.input_transformers_cleanup),
            list(shell.input_transformers_post),
            shell.ast_transformers,
        ),
        "formatters": {name: sorted(kinds) for name, kinds in formats.items()},
        "display": (type(shell.displayhook).__name__, type(shell.display_pub).__name__),
        "line magics": sorted(shell.magics_manager.magics["line"]),
        "cell magics": sorted(shell.magics_manager.magics["cell"]),
        "hooks": sorted(name for name, hook in vars(shell.hooks).items() if hook),
        "aliases": len(shell.alias_manager.aliases),
    }


def snapshot(shell: InteractiveShell) -> dict[str, Any]:
    """The state that a library could change for all others."""
    return {
        "locale": [locale.setlocale(getattr(locale, name)) for name in dir(locale) if name.startswith("LC_")],
        "warnings": ([repr(rule) for rule in warnings.filters], repr(warnings.showwarning), repr(warnings.formatwarning)),
        "logging": _logging(),
        "logging module": (logging.root.manager.disable, logging.raiseExceptions, repr(logging.getLoggerClass())),
        "signals": {number.name: repr(signal.getsignal(number)) for number in signal.valid_signals() if isinstance(number, signal.Signals)},
        "blocked signals": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))),
        "wakeup": signal.getitimer(signal.ITIMER_REAL),
        "event loop": (repr(asyncio.events._event_loop_policy), repr(asyncio._get_running_loop()), repr(asyncio.events._get_running_loop)),
        "asyncio classes": (repr(asyncio.run), repr(asyncio.Task), repr(asyncio.Future)),
        "random": repr(random.getstate()),
        "numpy.random": [repr(part) if np.isscalar(part) else part.tolist() for part in np.random.get_state()],  # noqa: NPY002 - of everybody
        "numpy": (repr(np.geterr()), repr(np.get_printoptions())),
        "recursion": sys.getrecursionlimit(),
        "integers": sys.get_int_max_str_digits(),
        "switches": sys.getswitchinterval(),
        "environment": dict(os.environ),
        "umask": _umask(),
        "folder": str(Path.cwd()),
        "path": (list(sys.path), [repr(one) for one in sys.meta_path], [repr(one) for one in sys.path_hooks]),
        "exceptions": (repr(sys.excepthook), repr(sys.unraisablehook), repr(threading.excepthook), repr(sys.displayhook)),
        "async hooks": repr(sys.get_asyncgen_hooks()),
        "streams": (repr(sys.stdout), repr(sys.stderr), repr(sys.stdin)),
        "tracing": (repr(sys.gettrace()), repr(sys.getprofile()), repr(threading._trace_hook), repr(threading._profile_hook)),
        "garbage": (gc.isenabled(), gc.get_threshold(), gc.get_debug(), list(map(repr, gc.callbacks)), gc.get_freeze_count()),
        "faults": faulthandler.is_enabled(),
        "decimal": repr(decimal.getcontext()),
        "pandas": _pandas(),
        "sqlite3": (sorted(map(repr, sqlite3.adapters)), sorted(map(repr, sqlite3.converters))),
        "json": (repr(json._default_encoder.__dict__), repr(json.JSONEncoder.default), repr(json.dumps), repr(json._default_decoder.__dict__.keys())),
        "codecs": [repr(codecs.lookup_error(name)) for name in ("strict", "ignore", "replace", "surrogateescape", "surrogatepass")],
        "pickles": sorted(map(repr, copyreg.dispatch_table)),
        "builtins": sorted(set(dir(builtins)) - {"_"}),
        "sockets": socket.getdefaulttimeout(),
        "threads": threading.stack_size(),
        "time zone": (time.tzname, time.timezone),
        "limits": _limits(),
        "types of files": (mimetypes.guess_type("a.txt"), mimetypes.guess_type("a.parquet")),
        "duckdb": repr(duckdb.sql("FROM duckdb_settings() SELECT name, value ORDER BY name").fetchall()),
        "duckdb tables": repr(duckdb.sql("FROM duckdb_databases() SELECT database_name, path").fetchall()),
        "psycopg": {str(form): sorted(map(repr, known)) for form, known in psycopg.adapters._dumpers.items()},
        "pyarrow": (pa.cpu_count(), pa.io_thread_count(), pa.default_memory_pool().backend_name),
        "sqlalchemy": sorted({repr(key[:2]) for key in registry._key_to_collection if isinstance(key[0], type)}),
        "altair": (altair.theme.active, altair.renderers.active, altair.data_transformers.active),
        "shell": _hooks_of_shell(shell),
    }  # fmt: skip


def use_everything(shell: InteractiveShell, url: str) -> None:
    """Use agents, frames, comparisons, plots, summaries, imports, exports, magics and widgets on every engine."""
    shell.user_ns["url"] = url
    run(shell, "%load_ext kern_nb")
    run(shell, PREPARATION)
    for target in ("s.duckdb", "s.db", url, ":memory:"):
        run(shell, f"%kern attach {target} --as current")
        run(shell, USE)
        if target == "s.duckdb":
            run(shell, USE_ONCE)
        shell.run_cell("%kern show nothing", store_history=False)
        run(shell, "%kern detach current")
    run(shell, "%unload_ext kern_nb")


def run(shell: InteractiveShell, cell: str) -> None:
    """Run a cell, which must not fail."""
    shell.run_cell(cell, store_history=False).raise_error()


PREPARATION = """
import contextlib, json, signal, threading, time
from pathlib import Path
import kern_nb
from kern_nb import Agent, Team, Workflow, compare, compare_groups, rerun, summarize, browse, chat, plot
from kern_nb.agent import tool
from kern_nb.models.scripted import ScriptedModel, call

def look(city: str) -> str:
    return "sunny in " + city

def answer(messages):
    own = messages[max(i for i, m in enumerate(messages) if m.role == "user"):]
    return "done" if any(m.role == "tool" for m in own) else call("look", city="Oslo")

def interrupted(messages):
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    time.sleep(2)  # in a thread that continues after the run is cancelled

records = [{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}] * 3
Path("chats.jsonl").write_text("".join(json.dumps(record) + chr(10) for record in records))
"""

USE = """
store = kern_nb.current_store()
agent = Agent(ScriptedModel(answer), session_id="a", tools=[look], enable_session_summaries=True, id="clerk")
agent.run("one")
await agent.arun("two")
agent.print_response("three")
agent.get_session_summary()
Team([Agent(ScriptedModel(["member"]), id="m")], ScriptedModel(["led"]), session_id="t").run("x")
Workflow([lambda step: "f", Agent(ScriptedModel(["step"]))], session_id="w").run("x")
paused = Agent(ScriptedModel(answer), session_id="p", tools=[tool(look, requires_confirmation=True)], id="asks")
waiting = paused.run("x")
kern_nb.inbox()
store.resolve(waiting.requirements[0].requirement_id, approve=True)
paused.continue_run(waiting.run_id)

with contextlib.suppress(KeyboardInterrupt):
    Agent(ScriptedModel(interrupted), session_id="i").run("x")

store.ingest("chats.jsonl")
frames = [store.sessions_df(), store.runs_df(), store.messages_df(), store.tool_calls_df(), store.scores_df()]
store.sql("SELECT count(*) FROM messages")
store.check()
get_ipython().run_line_magic("kern", "sessions")
get_ipython().run_line_magic("kern", "show a")
get_ipython().run_cell_magic("kern_sql", "", "SELECT 1")
get_ipython().complete("%kern show ")
"""

USE_ONCE = """
store.branch("a", after=0, new_session_id="b")
agent.run("elsewhere", session_id="b")
store.add_score("a", "reward", 1.0), store.add_score("b", "reward", 0.0)
both = compare("a", "b")
repr(both), both._repr_html_(), both.plot()._repr_mimebundle_()
groups = compare_groups(store, by="agent_id", key="session_id", score="reward")
repr(groups), groups._repr_html_()
plot("a")._repr_mimebundle_()
digest = summarize("a")
repr(digest), digest._repr_html_(), summarize("a", model=ScriptedModel(["a summary"]))
rerun("a/0", agent=agent)
browse(), chat(agent)
get_ipython().run_line_magic("kern", "export a out.json")
get_ipython().run_line_magic("kern", "export a out.html")
Path("out.json").unlink(), Path("out.html").unlink()
"""


def main() -> None:
    """Compare the state before with the state after."""
    os.chdir(sys.argv[1])
    os.environ["IPYTHONDIR"] = sys.argv[1]
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config)
    run(shell, "import asyncio; await asyncio.sleep(0)")
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - the state of everybody
    before = snapshot(shell)
    again = snapshot(shell)
    use_everything(shell, sys.argv[2])
    IPython.display.clear_output()
    after = snapshot(shell)
    changed = {
        name: (repr(value), repr(after[name]))
        for name, value in before.items()
        if value != after[name] and again[name] == value
    }
    sys.stdout.write("\n" + json.dumps({"changed": changed, "unsteady": [n for n in before if again[n] != before[n]]}))


if __name__ == "__main__":
    main()

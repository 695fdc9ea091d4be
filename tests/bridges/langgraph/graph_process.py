"""A process that invokes an attached graph on one thread: ``python graph_process.py TARGET NAME RUNS``."""

import sys

from graphs import chat_graph

from kern_nb.bridges.langgraph import KernSaver
from kern_nb.db import open_store

target, name, runs = sys.argv[1:]
with open_store(target) as store:
    graph = chat_graph().compile(checkpointer=KernSaver(store))
    for n in range(int(runs)):
        graph.invoke({"messages": [("user", f"{name} {n}")]}, {"configurable": {"thread_id": "chat"}})

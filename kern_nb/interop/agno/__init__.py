"""Conversion between runs and what Agno 3 stores of them: the dicts of its runs. Does not import Agno.

What has a column in a store is in that column. Everything else that Agno states is in ``extra``, under Agno's names, so
that `to_agno` returns what `from_agno` was passed. It also converts runs of other sources, which Agno then continues.
"""

from kern_nb.interop.agno.inherited import REPLACES, as_copy, continue_inherited, in_agnos_order, inherited_id, is_copy
from kern_nb.interop.agno.messages import AGNO
from kern_nb.interop.agno.requirements import answer_of, answers_of_step
from kern_nb.interop.agno.runs import from_agno, has_runs, is_nested, to_agno
from kern_nb.interop.agno.values import json_value

__all__ = [
    "AGNO",
    "REPLACES",
    "answer_of",
    "answers_of_step",
    "as_copy",
    "continue_inherited",
    "from_agno",
    "has_runs",
    "in_agnos_order",
    "inherited_id",
    "is_copy",
    "is_nested",
    "json_value",
    "to_agno",
]

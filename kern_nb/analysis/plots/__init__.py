"""Plots: functions that turn DataFrames into a `Plot`, and `plot`, which reads the frames from a store.

A plot displays in JupyterLab, in nbconvert's output and on GitHub, without a network. Drawing needs the extra
``plots``; without it, a plot displays as the table of its data.
"""

from kern_nb.analysis.plots.api import KINDS, plot
from kern_nb.analysis.plots.differences import comparison, groups
from kern_nb.analysis.plots.figure import Plot
from kern_nb.analysis.plots.runs import over_runs
from kern_nb.analysis.plots.tools import tool_use
from kern_nb.analysis.plots.tree import branch_tree

__all__ = ["KINDS", "Plot", "branch_tree", "comparison", "groups", "over_runs", "plot", "tool_use"]

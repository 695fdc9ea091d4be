"""Plots: DataFrames in, a `Plot` out; and `plot`, which gets the frames from a store.

A plot shows itself in JupyterLab, in what nbconvert makes and on GitHub, without a network. Drawing needs the extra
``plots``; without it, a plot is the table of its data.
"""

from kern_nb.analysis.plots.api import KINDS, plot
from kern_nb.analysis.plots.figure import Plot
from kern_nb.analysis.plots.group_differences import groups
from kern_nb.analysis.plots.metric_differences import comparison
from kern_nb.analysis.plots.runs import over_runs
from kern_nb.analysis.plots.tools import tool_use
from kern_nb.analysis.plots.tree import branch_tree

__all__ = ["KINDS", "Plot", "branch_tree", "comparison", "groups", "over_runs", "plot", "tool_use"]

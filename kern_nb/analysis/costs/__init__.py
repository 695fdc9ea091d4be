"""`cost`: what model responses cost, stated by their source or estimated, by model, day, session or metadata."""

from kern_nb.analysis.costs.report import Costs, cost

__all__ = ["Costs", "cost"]

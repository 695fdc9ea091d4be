"""Running agents: pydantic-ai calls the model and the tools, this package stores the session.

`engine` drives one run and `recorder` writes it as it happens; `history` and `summaries` build the model's context;
`tools` and `context` are the side of the tools; `resume` continues a run that paused or was interrupted.
"""

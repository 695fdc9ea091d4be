"""What runs an agent: pydantic-ai does the model and the tools, this does the session.

`engine` drives one run and `recorder` writes it as it happens; `history`, `summaries` and `media` decide what the model
is told; `tools` and `context` are what a tool sees; `resume` goes on with a run that paused or was interrupted.
"""

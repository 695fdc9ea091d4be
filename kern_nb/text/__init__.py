"""Primitives of output: formatting, HTML, tables, Markdown. They know nothing of sessions."""

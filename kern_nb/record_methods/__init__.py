"""What users of Agno call on a run, a requirement and a session: read-only aliases, answers, and filters of messages.

The fields are in `kern_nb.records`, whose classes inherit these; docs/agno.md lists the names. Nothing here reads a
store.
"""

"""What parameters, methods and fields of Agno are called in kern_nb, and why others are missing; see agno_table.py.

Keys are names of Agno: ``name`` for every class, ``Class.name`` for one, ``(name)`` for a parameter of methods,
``method(name)`` for that of one. Constructors' parameters that are refused are in `kern_nb.runtime.unsupported`.
"""

from __future__ import annotations

_VARIANT = "`agent.variant({}=...).run(...)`"

OTHER_NAMES = {
    # Methods.
    "add_tool": "`agent.variant(tools=[...])`",
    "set_tools": "`agent.variant(tools=[...])`",
    "deep_copy": "`agent.variant()`",
    "rename": "`agent.name = ...`; a session: `set_session_name`",
    "set_id": "`id=...` of the constructor",
    "as_tool": "a tool that calls `agent.run`, or a `Team`",
    "cached_session": "`get_session`, with `cache_session=True`",
    "get_member_information": "`team.members`",
    "get_run": "`get_run_output`",
    "aget_run": "`aget_run_output`",
    "read_or_create_session": "`get_session`; a run creates a session",
    "aread_or_create_session": "`aget_session`; a run creates a session",
    "save_run": "`store.append_run`; runs store themselves",
    "asave_run": "`store.append_run`; runs store themselves",
    "run_parameters": "`run.input`, `.session_state`",
    "from_dict": "`Session.model_validate`, `Run.model_validate`",
    "to_json": "`run.model_dump_json()`",
    "upsert_run": "`store.append_run`, `.put_run`",
    "save_run_response_to_file": "`run.get_content_as_string()`, written to the file",
    "get_team_history": "`session.get_chat_history()`",
    "get_workflow_history": "`session.get_chat_history()`",
    "get_team_history_context": "`session.get_chat_history()`; `add_team_history_to_members` sends it",
    "get_workflow_history_context": "`session.get_chat_history()`; `add_workflow_history_to_steps` sends it",
    "get_messages_from_agent_runs": "`session.get_messages(agent_id=...)`",
    "get_messages_from_team_runs": "`session.get_messages(team_id=...)`",
    "add_member_run": "`store.append_run`; runs of members store themselves",
    "has_completed": '`run.status == "COMPLETED"`',
    "steps_requiring_executor_resolution": "`run.active_requirements`: those of a step's agent are the workflow's",
    # Parameters of methods.
    "(add_history_to_context)": _VARIANT.format("add_history_to_context"),
    "(add_session_state_to_context)": _VARIANT.format("add_session_state_to_context"),
    "(metadata)": _VARIANT.format("metadata"),
    "(output_schema)": _VARIANT.format("output_schema"),
    "(markdown)": _VARIANT.format("markdown"),
    "(additional_instructions)": "`input=...` of `continue_run`, or `agent.variant(instructions=...)`",
    "(replace_original)": "the new run is in a branch; `store.delete_run` deletes the original",
    # Fields.
    "agent_name": "`run.agent_id`; the name is in the session's `agent_data`",
    "team_name": "`run.team_id`; the name is in the session's `team_data`",
    "workflow_name": "`workflow_id`; the name is in the session's `workflow_data`",
    "content_type": "`type(run.output)`",
    "reasoning_content": "`run.messages`, in the `extra` of a message",
    "images": "`run.messages`: media are parts of messages",
    "videos": "`run.messages`: media are parts of messages",
    "audio": "`run.messages`: media are parts of messages",
    "files": "`run.messages`: media are parts of messages",
    "response_audio": "`run.messages`: media are parts of messages",
    "metadata": '`run.extra["metadata"]`',
    "model_provider_data": "`run.messages`, in the `extra` of a message",
    "citations": "`run.messages`, in the `extra` of a message",
    "step_results": "`workflow.steps_of(run.run_id)`: the runs of the steps",
    "step_executor_runs": "`workflow.steps_of(run.run_id)`: the runs of the steps",
    "workflow_step_id": '`run.parent_run_id`, `run.extra["step"]`',
    "paused_step_index": "`requirement.step_name` of `run.active_step_requirements`",
    "paused_step_name": "`requirement.step_name` of `run.active_step_requirements`",
    "pause_kind": "`requirement.kind` of `run.active_requirements`",
    "forked_from_run_id": "`session.parent_session_id`, `.fork_run_index`",
    "forked_from_message_index": "`session.fork_message_index`",
    "forked_from_session_id": "`session.parent_session_id`",
    "regenerated_from": "`session.parent_session_id`, `.fork_run_index`",
    "last_checkpoint_at_message_index": "`run.messages`: every message is stored as it comes",
    "cancellation_stage": '`run.status == "CANCELLED"`',
}

_BY_REASON = {
    "knowledge bases and retrieval are not a part of kern_nb": (
        "add_to_knowledge", "get_relevant_docs_from_knowledge", "aget_relevant_docs_from_knowledge", "references",
        "(knowledge_filters)",
    ),
    "memories beyond a session are not a part of kern_nb": (
        "get_user_memories", "aget_user_memories", "learning_machine",
    ),
    "reasoning loops are not a part of kern_nb": (
        "reasoning_steps", "reasoning_messages", "(show_reasoning)", "(show_full_reasoning)",
    ),
    "compaction of the context is not a part of kern_nb": ("compact", "acompact", "compaction", "result_store"),
    "file systems of an agent are not a part of kern_nb; a session has a workspace": (
        "filesystems", "filesystem_instance",
    ),
    "a second model that extends answers is not a part of kern_nb": ("followups",),
    "dependencies of tools and prompts are not a part of kern_nb": (
        "(dependencies)", "(add_dependencies_to_context)",
    ),
    "there are no functions that return tools, whose results would be cached": (
        "clear_callable_cache", "aclear_callable_cache",
    ),
    "definitions of agents are code, and are not stored": (
        "save", "load", "delete", "to_dict", "from_dict", "to_dict_for_steps",
    ),
    "what the model is told is in the messages of the run": (
        "get_system_message", "aget_system_message", "get_members_system_message_content", "additional_input",
    ),
    "a chat in the terminal: use `print_response`, or in a notebook `kern_nb.chat`": ("cli_app", "acli_app"),
    "a part of Agno's own engine": (
        "background_executor", "initialize_agent", "initialize_team", "initialize_workflow", "get_tools", "aget_tools",
        "propagate_run_hooks_in_background", "scrub_run_output_for_storage", "update_agents_and_teams_session_info",
        "(run_context)", "(websocket)", "(enable_websocket)", "(background_tasks)",
    ),
    "runs in the background of a server: use `arun` in a task of your own": ("(background)",),
    "a run's id is assigned when it starts": ("(run_id)",),
    "a queue of Agno's server": ("queue_attempt",),
    "an agent that decides whether a workflow runs is not a part of kern_nb": ("workflow_agent_run",),
    "steps take files from a tool, or from the session's workspace": (
        "(images)", "(videos)", "(audio)", "(files)",
    ),
    "a file is stored once, by its hash, for all sessions": ("(delete_media)",),
    "`print_response` prints the response, as it comes": (
        "(console)", "(show_message)", "(tags_to_include_in_markdown)", "(show_time)", "(show_step_details)",
        "(show_member_responses)",
    ),
    "debug logs of agents are not a part of kern_nb": ("(debug_mode)",),
}  # fmt: skip

NOT_OURS = {name: reason for reason, names in _BY_REASON.items() for name in names}
# In records, `from_dict` has another name.
for _class in ("Agent", "Team", "Workflow"):
    NOT_OURS[f"{_class}.from_dict"] = NOT_OURS["from_dict"]
del NOT_OURS["from_dict"]

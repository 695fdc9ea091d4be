"""What chat logs of many programs add to OpenAI's layout is read: ids or none, times, usage, errors, refusals."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from mutations import mistyped, torn, truncated

from kern_nb.db import InMemoryDb, SqliteDb
from kern_nb.errors import UnknownFormat
from kern_nb.ingest.importers.chat import Chat
from kern_nb.ingest.parsing.times import parse_time
from kern_nb.ingest.parsing.usage import parse_usage
from kern_nb.ingest.source import Source
from kern_nb.records import text_of

ASK = {"role": "user", "content": "Is it open?"}
ANSWER = {"role": "assistant", "content": "It is."}


def call(name, call_id=..., **arguments):
    """A call; without an id by default."""
    record = {"function": {"name": name, "arguments": arguments}}
    return record if call_id is ... else record | {"id": call_id}


def result(content, **fields):
    """A tool's message."""
    return {"role": "tool", "content": content} | fields


@pytest.fixture
def store():
    """A store in memory."""
    return InMemoryDb()


@pytest.fixture
def ingest(store, tmp_path):
    """Import records as lines of a file."""

    def write(*records, name="log.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return store.ingest(path, progress=False)

    return write


def results(store):
    """Name, result and status of each call."""
    frame = store.tool_calls_df().astype(object)
    return list(
        zip(frame["tool_name"], frame["result"].where(frame["result"].notna(), None), frame["status"], strict=True)
    )


def test_calls_without_ids_are_joined_by_name_and_order(store, ingest):
    """Results of one tool come in the order of its calls; those of different tools in any order."""
    calls = [call("weather"), call("weather"), call("time")]
    answers = [result("12:00", tool_name="time"), result("rain", name="weather"), result("sun", tool_name="weather")]
    ingest([ASK, {"role": "assistant", "tool_calls": calls}, *answers, ANSWER])

    assert results(store) == [
        ("weather", "rain", "completed"),
        ("weather", "sun", "completed"),
        ("time", "12:00", "completed"),
    ]


@pytest.mark.parametrize("empty", ["", None])
def test_empty_ids_are_no_ids(store, ingest, empty):
    """Calls and nameless results are joined in order, and a call without a result stays without one."""
    calls = [call("alpha", empty), call("beta", empty), call("gamma", empty)]
    answers = [result("a", tool_call_id=empty), result("b", tool_call_id=empty)]
    ingest([ASK, {"role": "assistant", "tool_calls": calls}, *answers, ANSWER])

    assert results(store) == [("alpha", "a", "completed"), ("beta", "b", "completed"), ("gamma", None, "unknown")]
    assert store.tool_calls_df()["tool_call_id"].is_unique


def test_a_result_with_an_id_never_answers_a_call_with_another(store, ingest):
    """It is a stray message; a result without an id answers the next call of its tool."""
    calls = [call("look", "c1"), call("look", "c2")]
    ingest(
        [ASK, {"role": "assistant", "tool_calls": calls}, result("stray", tool_call_id="c9"), result("x", name="look")]
    )

    assert results(store) == [("look", "x", "completed"), ("look", None, "unknown")]


def test_a_result_whose_id_its_call_lacks(store, ingest):
    """It answers a call without an id, which takes the id."""
    ingest([ASK, {"role": "assistant", "tool_calls": [call("look")]}, result("x", tool_call_id="r7"), ANSWER])

    assert results(store) == [("look", "x", "completed")]
    assert list(store.tool_calls_df()["tool_call_id"]) == ["r7"]


def test_ids_that_are_numbers_are_text(store, ingest):
    """Ids of sessions, calls and results."""
    ingest(
        {"id": 7, "messages": [ASK, {"role": "assistant", "tool_calls": [call("x", 1)]}, result("r", tool_call_id=1)]}
    )

    assert results(store) == [("x", "r", "completed")]
    assert store.get_session("7") is not None


def test_the_id_of_a_result_may_be_that_of_its_call(store, ingest):
    """Some programs have no ``tool_call_id``."""
    ingest([ASK, {"role": "assistant", "tool_calls": [call("x", "c1"), call("x", "c2")]}, result("two", id="c2")])

    assert results(store) == [("x", None, "unknown"), ("x", "two", "completed")]


def test_single_messages_are_sessions_by_their_session_id(store, ingest):
    """Sessions may be interleaved; messages without an id of a session are one named after the file."""
    ingest(
        ASK | {"session_id": "ann", "timestamp": "2026-09-01T10:00:00Z"},
        ASK | {"session_id": 5},
        ANSWER | {"session_id": "ann", "timestamp": "2026-09-01T10:00:03Z"},
        ASK,
    )

    assert sorted(store.sessions_df()["session_id"]) == ["5", "ann", "log"]
    [run] = store.get_session("ann").runs
    assert ([m.role for m in run.messages], run.duration_s) == (["user", "assistant"], 3.0)


def test_lines_of_one_session_are_drafts_of_it(tmp_path):
    """A line that repeats and continues an earlier one has the same id; the writer continues the session."""
    path = tmp_path / "proxy.jsonl"
    talk = [ASK, ANSWER, ASK, ANSWER]
    path.write_text("\n".join(json.dumps({"id": "s", "messages": talk[:n]}) for n in (2, 4)))
    drafts = list(Chat().read(Source(path, path.name)))

    assert [(draft.session_id, len(draft.runs)) for draft in drafts] == [("s", 1), ("s", 2)]
    assert drafts[1].keys[0] == drafts[0].keys[0]
    assert drafts[1].hashes[0] == drafts[0].hashes[0]


@pytest.mark.parametrize(
    "answer",
    [
        {"content": None, "refusal": "No."},
        {"content": [{"type": "refusal", "refusal": "No."}]},
        {"content": None, "audio": {"id": "a", "transcript": "No."}},
        {"content": [{"type": "output_audio", "transcript": "No."}]},
    ],
)
def test_refusals_and_transcripts_are_the_answer(store, ingest, answer):
    """The output of the run shows what the model said."""
    ingest([ASK, {"role": "assistant"} | answer])

    assert list(store.runs_df()["output"]) == ["No."]


def test_reasoning_is_a_part_beside_the_text(store, ingest):
    """The text of the answer stays its text."""
    ingest([ASK, ANSWER | {"reasoning_content": "Look at the sign."}])
    [run] = store.get_session("log-1").runs

    assert run.messages[1].content[0] == {"type": "thinking", "thinking": "Look at the sign."}
    assert list(store.runs_df()["output"]) == ["It is."]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"is_error": True}, "failed"),
        ({"is_error": False}, "completed"),
        ({"status": "error"}, "failed"),
        ({"status": "success"}, "completed"),
        ({"error": "no card"}, "failed"),
        ({"error": None}, "completed"),
        ({"success": False}, "failed"),
        ({"status": "queued"}, "completed"),
    ],
)
def test_stated_errors(store, ingest, fields, status):
    """The message of a tool says whether the call failed."""
    ingest([ASK, {"role": "assistant", "tool_calls": [call("pay", "c1")]}, result("x", tool_call_id="c1", **fields)])

    assert results(store) == [("pay", "x", status)]
    assert store.get_session("log-1").runs[0].messages[2].is_error in (None, status == "failed")


def test_times_usage_cost_and_model_have_their_columns(store, ingest):
    """The source's own usage stays in ``extra``."""
    usage = {"prompt_tokens": 120, "completion_tokens": 42, "prompt_tokens_details": {"cached_tokens": 80}}
    answer = ANSWER | {"created_at": 1_790_000_000, "usage": usage, "cost": 0.0012, "model": "m-2"}
    ingest({"messages": [ASK | {"timestamp": "2026-09-01T10:00:00"}, answer], "model": "m-1", "title": "Hours"})
    session = store.get_session("log-1")
    message = session.runs[0].messages[1]

    assert session.session_name == "Hours"
    assert session.metadata["time_zone"] == "unknown"
    assert session.runs[0].messages[0].created_at == datetime(2026, 9, 1, 10, tzinfo=UTC)
    assert (message.usage.input_tokens, message.usage.cache_read_tokens, message.usage.cost) == (120, 80, 0.0012)
    assert (message.model, message.created_at) == ("m-2", datetime.fromtimestamp(1_790_000_000, UTC))
    assert message.extra["usage"] == usage


def test_usage_of_a_record_with_one_run(store, ingest):
    """It is counted once, for the run."""
    ingest({"messages": [ASK, ANSWER], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})

    assert list(store.runs_df()["input_tokens"]) == [5]


def test_usage_of_records_that_repeat_the_history(store, ingest):
    """Each record states the usage of its answer: none is lost or counted twice."""
    talk = [ASK, ANSWER, ASK | {"content": "Sure?"}, {"role": "assistant", "content": "Yes."}]
    records = [{"id": "s", "messages": talk[:n], "usage": {"prompt_tokens": 10 * n}} for n in (2, 4)]
    first, second = (ingest(*records) for _ in range(2))

    assert (first.sessions, second.sessions, second.runs, second.errors) == (1, 0, 0, [])
    assert list(store.runs_df()["input_tokens"]) == [20, 40]


def test_usage_in_the_metadata_of_a_message(store, ingest):
    """As some agents log it, with model and cost."""
    usage = {"input_tokens": 5, "output_tokens": 3, "cache_read_tokens": 10}
    ingest(ASK, ANSWER | {"metadata": {"model": "m", "cost": 0.1, "usage": usage}})
    row = store.runs_df().iloc[0]

    assert (row["input_tokens"], row["cost"], row["model"]) == (15, 0.1, "m")


def test_a_page_of_messages(store, ingest):
    """As an API lists the messages of a stored completion."""
    ingest({"object": "list", "data": [ASK | {"id": "c-0"}, ANSWER], "has_more": False})

    assert list(store.runs_df()["output"]) == ["It is."]


def test_an_answer_beside_the_messages(store, ingest):
    """It follows them."""
    ingest({"messages": [ASK], "response": "It is."})

    assert list(store.runs_df()["output"]) == ["It is."]


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"input_tokens": 10, "cache_read_input_tokens": 80, "cache_creation_input_tokens": 5}, (95, 80, 5)),
        ({"input_tokens": 90, "input_tokens_details": {"cached_tokens": 80}}, (90, 80, None)),
        ({"prompt_tokens": 90, "cache_read_input_tokens": 80}, (90, 80, None)),
        ({"prompt_tokens": 10, "cache_read_input_tokens": 80}, (90, 80, None)),
        ({"input_tokens": 90, "output_tokens": 3, "total_tokens": 93, "cache_read_tokens": 80}, (90, 80, None)),
        ({"input_tokens": 90, "output_tokens": 3, "total_tokens": 173, "cache_read_tokens": 80}, (170, 80, None)),
        ({"prompt_eval_count": 9}, (9, None, None)),
        ({"prompt_tokens": 9.0}, (9, None, None)),
    ],
)
def test_input_tokens_include_cached_ones(usage, expected):
    """Whatever the source does."""
    parsed = parse_usage(usage)

    assert (parsed.input_tokens, parsed.cache_read_tokens, parsed.cache_write_tokens) == expected


@pytest.mark.parametrize(
    "usage", [None, 7, [], {}, {"prompt_tokens": "many"}, {"prompt_tokens": -1}, {"prompt_tokens": 1e300}]
)
def test_usage_without_counts_is_none(usage):
    """Never 0."""
    assert parse_usage(usage) is None


@pytest.mark.parametrize(
    "value",
    ["2026-09-01T10:00:00Z", "2026-09-01 12:00:00+02:00", 1788256800, 1788256800.0, 1788256800000, "1788256800"],
)
def test_times_of_all_units(value):
    """ISO text and unix times."""
    assert parse_time(value) == datetime(2026, 9, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize("value", [None, True, 3, 0, -1, "yesterday", "", "2026-13-01", 10**400, float("nan"), [], {}])
def test_values_that_are_no_times(value):
    """A small number is an offset or a duration."""
    assert parse_time(value) is None


def test_trajectories_of_datasets(store, ingest):
    """Messages in another field or as JSON text, null fields of a column of structs, several attempts at a task."""
    nulls = {"name": None, "tool_call_id": None, "tool_calls": None, "content": None}
    talk = [nulls | ASK, nulls | {"role": "ai", "text": "It is."}]
    report = ingest(
        {"instance_id": "t-1", "trajectory": talk, "resolved": True, "model": "m"},
        {"instance_id": "t-1", "trajectory": None, "messages": json.dumps(talk), "resolved": False},
    )

    assert not report.errors
    assert sorted(store.sessions_df()["session_id"]) == ["log-t-1", "log-t-1-2"]
    assert list(store.runs_df()["output"]) == ["It is.", "It is."]
    assert sorted(store.scores_df()["value"]) == [0.0, 1.0]


@pytest.mark.parametrize(
    ("document", "ids"),
    [
        ({"conversations": [{"id": "a", "messages": [ASK, ANSWER]}, {"id": "b", "messages": [ASK]}]}, ["a", "b"]),
        ({"data": [{"id": "a", "messages": [ASK, ANSWER]}, {"id": "b", "traj": [ASK]}], "total": 2}, ["a", "b"]),
        ([[ASK, ANSWER], [ASK]], ["log-1", "log-1.2"]),
    ],
)
def test_documents_with_several_conversations(store, ingest, document, ids):
    """In a field of an object, or as lists of messages in a list."""
    report = ingest(document)

    assert report.errors == []
    assert sorted(store.sessions_df()["session_id"]) == ids
    assert len(store.messages_df()) == 3


def test_objects_beside_the_messages(store, ingest):
    """Parameters and results of an evaluation are metadata; an answer there is another layout."""
    ingest({"messages": [ASK, ANSWER], "params": {"temperature": 0}, "result": {"passed": True}})
    assert json.loads(store.sessions_df()["metadata"][0])["params"] == {"temperature": 0}

    with pytest.raises(UnknownFormat):
        ingest({"messages": [ASK], "output": {"content": "It is."}}, name="other.jsonl")


def test_runs_of_docent(store, ingest):
    """Each transcript is a session with the metadata and the scores of its run; calls name their tool as text."""
    called = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "c", "function": "look", "arguments": {"n": 1}}],
    }
    talk = [ASK, called, result("9-17", tool_call_id="c", function="look"), ANSWER]
    run = {"name": "trial", "metadata": {"scores": {"solved": 1.0}, "seed": 3}, "transcript_groups": []}
    report = ingest(
        {"id": "r1", **run, "transcripts": [{"messages": talk, "metadata": {"part": "main"}}, {"messages": [ASK]}]},
        {"id": "r2", **run, "transcripts": {"t9": {"messages": talk}}},
    )

    assert report.errors == []
    sessions = store.sessions_df().set_index("session_id")["metadata"]
    assert sorted(sessions.index) == ["r1", "r1-2", "t9"]
    assert json.loads(sessions["r1"]).items() >= {"seed": 3, "part": "main", "agent_run_id": "r1"}.items()
    assert results(store) == [("look", "9-17", "completed")] * 2
    assert sorted(store.scores_df()["session_id"]) == ["r1", "r1-2", "t9"]


def test_scored_trials_that_say_the_same_are_sessions_each(store, ingest):
    """An equal record is a copy."""
    trial = {"id": "t", "messages": [ASK, ANSWER]}
    ingest(trial | {"reward": 1}, trial | {"reward": 0}, trial | {"reward": 1})

    assert sorted(zip(store.scores_df()["session_id"], store.scores_df()["value"], strict=True)) == [
        ("t", 1.0),
        ("t-2", 0.0),
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"input_tokens": 4, "output_tokens": 2, "max_tokens": 9},
        {"token_usage": {"prompt_tokens": 4, "completion_tokens": 2}},
        {"usage_metadata": {"input_tokens": 4, "output_tokens": 2}},
        {"metadata": {"prompt_tokens": 4, "completion_tokens": 2}},
    ],
)
def test_usage_under_other_names(store, ingest, fields):
    """In objects of other names, or as fields of an answer; those of a prompt are no usage."""
    ingest([ASK | {"max_tokens": 5, "input_tokens": 5}, ANSWER | fields])

    assert store.sessions_df()[["input_tokens", "output_tokens"]].to_numpy().tolist() == [[4, 2]]


def test_times_of_messages_are_those_of_the_session(store, ingest):
    """If it states none."""
    talk = [ASK | {"timestamp": 1_790_000_000}, ANSWER | {"timestamp": 1_790_000_009_000}]
    ingest(*({"session_id": "s", **message} for message in (*talk, ASK | {"sent_at": "2026-09-22T00:00:00Z"})))

    [session] = store.sessions_df().to_dict("records")
    assert session["created_at"].timestamp() == 1_790_000_000
    assert session["updated_at"].isoformat() == "2026-09-22T00:00:00+00:00"


def test_roles_in_capitals_and_a_user_in_the_metadata(store, ingest):
    """They are the same roles, in any case."""
    ingest({"messages": [{"role": "User", "content": "hi"}, {"role": "Chatbot", "content": "yes"}],
            "metadata": {"user_id": "ann"}})  # fmt: skip

    assert store.runs_df()[["input", "output"]].to_numpy().tolist() == [["hi", "yes"]]
    assert list(store.sessions_df()["user_id"]) == ["ann"]


@pytest.mark.parametrize(
    ("answer", "replies"),
    [
        (
            [{"text": "Let me look."}, {"toolUse": {"toolUseId": "1", "name": "look", "input": {"n": 1}}}],
            [{"role": "user", "content": [{"toolResult": {
                "toolUseId": "1", "content": [{"json": {"a": 1}}], "status": "error"}}, {"cachePoint": {}}]}],
        ),
        (
            [{"type": "text", "text": "Let me look."},
             {"type": "tool-call", "toolCallId": "1", "toolName": "look", "input": {"n": 1}}],
            [{"role": "tool", "content": [{"type": "tool-result", "toolCallId": "1", "toolName": "look",
                                           "output": {"type": "error-json", "value": {"a": 1}}}]}],
        ),
        (
            [{"type": "text", "text": "Let me look."},
             {"type": "tool-call", "toolCallId": "1", "toolName": "look", "args": {"n": 1}}],
            [{"role": "tool", "content": [{"type": "tool-result", "toolCallId": "1", "isError": True,
                                           "result": {"a": 1}}]}],
        ),
    ],
)  # fmt: skip
def test_blocks_of_other_apis(store, ingest, answer, replies):
    """Of Bedrock's Converse API and the AI SDK: a tool's reply is no turn of the user, calls and failures are seen."""
    ask = {"role": "user", "content": [{"text": "Is it open?"}]}
    ingest(
        [ask, {"role": "assistant", "content": answer}, *replies, {"role": "assistant", "content": [{"text": "No."}]}]
    )
    [run] = store.get_session("log-1").runs

    assert [message.role for message in run.messages] == ["user", "assistant", "tool", "assistant"]
    assert [text_of(message.content) for message in run.messages if message.role != "tool"] == [
        "Is it open?", "Let me look.", "No.",
    ]  # fmt: skip
    assert [(call.args, call.result, call.status) for call in run.tool_calls] == [({"n": 1}, {"a": 1}, "failed")]


@pytest.mark.parametrize("content", [{}, {"content": "No."}])
def test_parts_of_a_page(store, ingest, content):
    """Each call has its result beside it."""
    parts = [
        {"type": "step-start"},
        {"type": "tool-look", "toolCallId": "1", "state": "output-available", "input": {"n": 1}, "output": "9-17"},
        {"type": "tool-invocation", "toolInvocation": {
            "toolCallId": "2", "toolName": "ask", "args": {}, "state": "result", "result": 3}},
        {"type": "dynamic-tool", "toolName": "go", "toolCallId": "3", "state": "output-error", "errorText": "no"},
        {"type": "dynamic-tool", "toolName": "go", "toolCallId": "4", "state": "input-available", "input": {}},
        {"type": "text", "text": "No."},
    ]  # fmt: skip
    page = {"role": "user", "parts": [{"type": "text", "text": "hi"}]}
    ingest([page, {"role": "assistant", "parts": parts, **content}])
    [run] = store.get_session("log-1").runs

    assert (text_of(run.input), text_of(run.output)) == ("hi", "No.")
    assert [(call.tool_name, call.result, call.status) for call in run.tool_calls] == [
        ("look", "9-17", "completed"), ("ask", 3, "completed"), ("go", "no", "failed"), ("go", None, "unknown"),
    ]  # fmt: skip


def test_null_arguments_of_a_column_of_structs(store, ingest):
    """Each call has the arguments of all tools; a null that a model wrote stays."""
    unified = [call("f", "1", x=1, y=None), call("g", "2", x=None, y=2)]
    ingest([ASK, {"role": "assistant", "tool_calls": unified}], [ASK, {"role": "assistant", "tool_calls": unified[:1]}])

    assert [json.loads(a) for a in store.tool_calls_df()["args"]] == [{"x": 1}, {"y": 2}, {"x": 1, "y": None}]


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [{"role": "user"}, {"role": "assistant", "content": None}]},
        {"messages": [{"role": "user", "parts": [{"text": "hi"}]}]},
        {"messages": []},
        {"messages": [{"type": "user", "role": "user", "content": "hi"}]},
    ],
)
def test_messages_that_say_nothing_are_refused(ingest, record):
    """The error names the file: the texts are in fields of another layout."""
    with pytest.raises(UnknownFormat, match=r"log\.jsonl"):
        ingest(record)


RECORD = {
    "id": "s", "created_at": 1_790_000_000, "usage": {"prompt_tokens": 5}, "metadata": {"x": 1}, "user_id": "ann",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "hi"}], "timestamp": "2026-09-01T10:00:00Z", "id": 4},
        {"role": "assistant", "content": None, "refusal": "no", "audio": {"transcript": "no"}, "cost": 0.1,
         "usage": {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 2}},
         "tool_calls": [{"id": 1, "type": "function", "function": {"name": "look", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": 1, "content": "ok", "is_error": False, "status": "ok", "name": "look"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "x", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "y", "is_error": True}]},
        {"role": "assistant", "content": "done", "reasoning_content": "so"},
    ],
}  # fmt: skip


def test_damaged_files(tmp_path):
    """Nothing raises, and a good record beside a bad one is imported; the second import stores nothing."""
    good = {"id": "good", "messages": [ASK, ANSWER]}
    store = SqliteDb(str(tmp_path / "s.db"))
    for number, record in enumerate(mistyped(RECORD, 150)):
        path = tmp_path / f"typed{number}.jsonl"
        path.write_text("\n".join(json.dumps(r | {"session_id": f"{r.get('id')}{number}"}) for r in (record, good)))
        items = list(Chat().read(Source(path, path.name)))
        assert "good" in str([getattr(item, "session_id", "") for item in items])
        if number < 15:
            store.ingest(path, progress=False)
            again = store.ingest(path, progress=False)
            assert (again.sessions, again.runs) == (0, 0)
    data = "\n".join(json.dumps(r) for r in (good, RECORD, *RECORD["messages"])).encode()
    for number, part in enumerate([*truncated(data, 50), *torn(data, 50)]):
        path = tmp_path / f"torn{number}.jsonl"
        path.write_bytes(part)
        source = Source(path, path.name)
        Chat().recognizes(source)
        list(Chat().read(source))

"""Values and times of foreign records: odd ones are missing, never 0, never an error."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from kern_nb.ingest.parsing import parts, times, usage, values

ODD = [None, "", "x", True, False, [], {}, [1], {"a": 1}, math.nan, math.inf, 10**400, -(10**400), b"\xff", "\ud800"]
READERS = [
    values.to_id, values.to_text, values.to_count, values.to_number, values.to_duration, values.to_cost,
    values.to_object, values.to_list, values.to_args, values.decode_json, values.load_json,
    times.to_time, times.to_time_from_ms, times.to_time_from_ns, times.parse_time, times.is_local_time,
]  # fmt: skip


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
@pytest.mark.parametrize("value", ODD, ids=repr)
def test_odd_values_raise_nothing(read, value):
    """A reader returns something for every value."""
    read(value)


@pytest.mark.parametrize("read", [values.to_count, values.to_number, values.to_duration, values.to_cost])
@pytest.mark.parametrize("value", [None, "", "12", True, False, [], math.nan, math.inf, 10**400])
def test_what_is_no_number_is_missing(read, value):
    """Text, booleans and numbers without a finite value are no numbers."""
    assert read(value) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [("a", "a"), (7, "7"), (0, "0"), (7.0, "7"), (7.5, None), ("", None), (True, None), (None, None), (["a"], None)],
)
def test_ids(value, expected):
    """Ids are strings, and an empty id is none."""
    assert values.to_id(value) == expected


def test_a_value_that_cannot_be_an_id_stays_for_its_record_to_refuse():
    """`checked_id` differs from `to_id` only there."""
    assert [values.checked_id(v) for v in ("a", 7, "", None, ["a"], True)] == ["a", "7", None, None, ["a"], True]


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 0), (12, 12), (12.0, 12), (12.5, None), (-1, None), (10**15, 10**15), (10**16, None)]
)
def test_counts(value, expected):
    """Counts are whole numbers of at least 0; a column with gaps has them as floats."""
    assert values.to_count(value) == expected


def test_the_first_field_with_a_count_counts():
    """A field of another type is passed over, and 0 is a count."""
    assert values.first_count({"a": None, "b": "3", "c": 0, "d": 5}, "a", "b", "c", "d") == 0
    assert values.first_count({}, "a") is None


def test_durations():
    """Durations are not negative, and not longer than a computer runs."""
    assert [values.to_duration(v, 1000) for v in (1500, 0, -1, 1e300)] == [1.5, 0, None, None]


def test_a_cost_of_0_is_unknown():
    """It is that of a model whose price is not known."""
    assert [values.to_cost(v) for v in (0.25, 0, 0.0, -1)] == [0.25, None, None, None]


@pytest.mark.parametrize(
    ("value", "args", "notes"),
    [
        ('{"q": 1}', {"q": 1}, {}),
        ({"q": 1}, {"q": 1}, {}),
        ('{"q": ', '{"q": ', {"args_invalid": True}),
        ("", "", {"args_invalid": True}),
        ("[" * 100_000, "[" * 100_000, {"args_invalid": True}),
        (None, None, {}),
    ],
    ids=["text", "object", "torn", "empty", "deep", "missing"],
)
def test_arguments(value, args, notes):
    """Text that is no JSON stays, and is marked."""
    assert values.to_args(value) == (args, notes)


def test_sums_of_what_is_known():
    """Nothing known is no sum, not 0."""
    assert values.sum_present([None, 2, 3]) == 5
    assert values.sum_present([None, None]) is None


def test_scores_are_finite():
    """True is 1; text and infinite numbers are no scores."""
    assert values.finite_scores({"a": True, "b": 0.5, "c": "1", "d": math.inf}) == {"a": 1.0, "b": 0.5}
    with pytest.raises(OverflowError):
        values.finite_scores({"a": 10**400})


NOON = datetime(2025, 3, 4, 12, 0, 0, 500_000, UTC)


@pytest.mark.parametrize(
    "value",
    [
        "2025-03-04T12:00:00.5Z", "2025-03-04T12:00:00.500000", "2025-03-04T13:00:00.5+01:00",
        "2025-03-04 12:00:00.5 UTC", " 2025-03-04T12:00:00.5Z ",
    ],
)  # fmt: skip
def test_iso_text(value):
    """ISO text without a zone is in UTC."""
    assert times.to_time(value) == times.parse_time(value) == NOON


@pytest.mark.parametrize("per_second", [1, 10**3, 10**6, 10**9])
def test_the_size_of_a_unix_time_tells_its_unit(per_second):
    """Seconds to nanoseconds, as a number or its text."""
    number = int(NOON.timestamp() * 2) * per_second // 2 if per_second > 1 else NOON.timestamp()
    assert times.parse_time(number) == times.parse_time(str(number)) == NOON


@pytest.mark.parametrize("value", [0, 1, 12.5, -1, "12", 10**25, "2025-13-01", "noon", "0001-01-01T00:00:00+01:00"])
def test_what_is_no_time(value):
    """Offsets and durations are none, nor is what is outside the years 1 to 9999."""
    assert times.parse_time(value) is None


def test_milliseconds_and_nanoseconds():
    """Where a format states its unit, the size does not matter; 0 is how programs write none."""
    assert times.to_time_from_ms(NOON.timestamp() * 1000) == NOON
    assert times.to_time_from_ms(1500) == datetime(1970, 1, 1, 0, 0, 1, 500_000, UTC)
    assert times.to_time_from_ms(0) is times.to_time_from_ms(-1) is None
    assert times.to_time_from_ns(int(NOON.timestamp() * 2) * 10**9 // 2) == NOON
    assert times.to_time_from_ns("1500000000") == datetime(1970, 1, 1, 0, 0, 1, 500_000, UTC)
    assert times.to_time_from_ns(0) is times.to_time_from_ns("0") is None


def test_times_in_unix_seconds():
    """They are rounded down, before 1970 too."""
    assert times.to_unix_seconds(NOON) == int(NOON.timestamp())
    assert times.to_unix_seconds(datetime(1969, 12, 31, 23, 59, 59, 500_000, UTC)) == -1
    assert times.to_unix_seconds(None) is None


def test_flags_and_texts():
    """Only true and false are flags; the first text that is not empty counts."""
    assert [values.to_flag(v) for v in (True, False, 1, 0, "true", None)] == [True, False, None, None, None, None]
    assert values.first_text([None, "", 3, "a", "b"]) == "a"
    assert values.first_text([]) is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([{"type": "text", "text": "a"}], "a"),
        (["a"], "a"),
        ("a", "a"),
        (None, None),
        ([], []),
        ([{"type": "text", "text": None}], [{"type": "text", "text": None}]),
        ([{"type": "text", "text": "a", "citations": []}], [{"type": "text", "text": "a", "citations": []}]),
        ([{"type": "thinking", "text": "a"}], [{"type": "thinking", "text": "a"}]),
        (["a", "b"], ["a", "b"]),
    ],
)
def test_a_single_text_is_that_text(content, expected):
    """Nothing that a part has besides its text is lost."""
    assert parts.simplify(content) == expected


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 4}}, (10, 4, None)),
        ({"input_tokens": 10, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 2}, (16, 4, 2)),
        ({"input_tokens": 10, "input_token_details": {"cache_read": 4, "cache_creation": 2}}, (10, 4, 2)),
        ({"input_tokens": 10.0}, (10, None, None)),
    ],
    ids=["OpenAI", "Anthropic", "LangChain", "column with gaps"],
)
def test_input_tokens_include_cached_ones(counts, expected):
    """Whether the source's own count does, or names them beside it."""
    stated = usage.parse_usage(counts)
    assert (stated.input_tokens, stated.cache_read_tokens, stated.cache_write_tokens) == expected


@pytest.mark.parametrize("counts", [None, [], "10", {}, {"input_tokens": "10"}, {"input_tokens": True}])
def test_no_usage(counts):
    """What states no count is no usage, not one of 0."""
    assert usage.parse_usage(counts) is None

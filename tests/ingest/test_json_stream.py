"""JSON in any arrangement is read value by value, and a damaged value loses nothing after it."""

from __future__ import annotations

import io
import json
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kern_nb.ingest import json_stream
from kern_nb.ingest.json_stream import JsonStream, Value, collect
from kern_nb.ingest_report import Problem

RECORDS = [{"id": n, "text": f"line {n}\u2028é", "list": [{"n": n}, [], "}{"], "none": None} for n in range(5)]

ARRANGEMENTS = {
    "lines": "\n".join(map(json.dumps, RECORDS)),
    "lines, then a blank": "\n\n".join(map(json.dumps, RECORDS)) + "\n\n",
    "windows line ends": "\r\n".join(map(json.dumps, RECORDS)),
    "commas": ",\n".join(map(json.dumps, RECORDS)) + ",\n",
    "one line": "".join(map(json.dumps, RECORDS)),
    "one line, spaces and commas": " , ".join(map(json.dumps, RECORDS)),
    "several lines": "\n".join(json.dumps(record, indent=2) for record in RECORDS),
    "several lines and commas": ",\n".join(json.dumps(record, indent=2) for record in RECORDS),
    "several lines without indentation": "\n".join(json.dumps(record, indent=0) for record in RECORDS),
    "mixed": "\n".join(json.dumps(record, indent=record["id"] % 3 or None) for record in RECORDS),
    "json text sequences": "".join(f"\x1e{json.dumps(record)}\n" for record in RECORDS),
    "byte order marks": "".join(f"\ufeff{json.dumps(record)}\n" for record in RECORDS),
}


@pytest.fixture(autouse=True, params=[json_stream._CHUNK, 7])
def chunk(request, monkeypatch):
    """Files are read in chunks: values lie across their borders."""
    monkeypatch.setattr(json_stream, "_CHUNK", request.param)
    monkeypatch.setattr(json_stream, "_WHOLE", request.param)


def read(text):
    """The values of a text, and the lines of its problems."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    items = list(JsonStream(io.BytesIO(data), "file").values())
    values = [item for item in items if isinstance(item, Value)]
    return [value.value for value in values], [item.line for item in items if isinstance(item, Problem)]


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_values_in_any_arrangement(arrangement):
    """Line breaks and commas between values, and within them, make no difference."""
    assert read(ARRANGEMENTS[arrangement]) == (RECORDS, [])


def test_the_line_of_a_value_is_where_it_starts():
    text = "\n\n" + json.dumps(RECORDS[0], indent=1) + "\n" + json.dumps(RECORDS[1])
    items = list(JsonStream(io.BytesIO(text.encode()), "file").values())

    assert [item.line for item in items] == [3, text.count("\n") + 1]


DAMAGE = {
    "lines": [(2, '{"id": 2, "te'), (2, "not json"), (2, '{"id": 2'), (2, '{"id": [1,'), (2, "}"), (2, '{"id": tru}')],
    "commas": [(2, '{"id": 2, "te'), (2, "not json"), (2, '{"id": ]}')],
    "several lines": [(2, '{\n  "id": 2,\n  "text": "li\n}'), (2, '{\n  "id": 2\n  "text": 5,\n  "list": [\n    1')],
}


@pytest.mark.parametrize(("arrangement", "index", "damaged"), [(a, *d) for a, ds in DAMAGE.items() for d in ds])
def test_a_damaged_value_loses_no_other(arrangement, index, damaged):
    """It is reported at its line, and what comes after it is read."""
    parts = [json.dumps(record, indent=2 if arrangement == "several lines" else None) for record in RECORDS]
    parts[index] = damaged
    text = (",\n" if arrangement == "commas" else "\n").join(parts)
    values, problems = read(text)

    others = [record for n, record in enumerate(RECORDS) if n != index]
    assert [value for value in values if value in others] == others
    start = 1 + sum(part.count("\n") + 1 for part in parts[:index])
    assert problems
    assert all(start <= line <= start + damaged.count("\n") + 1 for line in problems)


@pytest.mark.parametrize("layout", [{}, {"indent": 2}, {"indent": 0}, "one a line"])
@pytest.mark.parametrize("damaged", ['{"id": 2, "text": "li', '{"id": 2 "x": 1}', '{"id": nul', "&&&"])
def test_a_damaged_item_of_a_document_loses_no_other(layout, damaged):
    """The items after it, and the members after its list, are read."""
    document = {"info": {"model": "m"}, "items": RECORDS, "end": 1}
    if layout == "one a line":
        lines = ",\n".join(map(json.dumps, RECORDS))
        text = f'{{"info": {{"model": "m"}}, "items": [\n{lines}\n], "end": 1\n}}\n'
    else:
        text = json.dumps(document, **layout)
    record = json.dumps(RECORDS[2], **(layout if layout != "one a line" else {}))
    if layout != "one a line" and layout.get("indent") == 2:
        record = record.replace("\n", "\n    ")
    assert record in text
    [value], problems = read(text.replace(record, damaged))

    assert len(problems) == 1
    assert value["info"] == {"model": "m"}
    assert value["items"] == [record for n, record in enumerate(RECORDS) if n != 2]
    assert value["end"] == 1


@pytest.mark.parametrize("layout", [{}, {"indent": 2}])
def test_the_intact_part_of_a_truncated_document(layout):
    """Its complete members and items are a value; what is cut is reported."""
    text = json.dumps({"info": 1, "items": RECORDS}, **layout)
    for end in range(len(text) - 1, 20, -7):
        [value], problems = read(text[:end])
        assert len(problems) == 1
        assert value["info"] == 1
        assert value.get("items", []) == RECORDS[: len(value.get("items", []))]
    assert len(value.get("items", [])) == 0


def test_bytes_that_are_no_utf8_are_reported():
    """The other values are read; an encoded surrogate is not damage."""
    lines = [json.dumps({"n": n, "text": "é"}, ensure_ascii=False).encode() for n in range(3)]
    lines[1] = lines[1].replace("é".encode(), b"\xe9")

    assert read(b"\n".join(lines)) == ([{"n": 0, "text": "é"}, {"n": 2, "text": "é"}], [2])


def test_scalars_are_values_on_a_line_of_their_own():
    assert read('5\n"text"\nnull\n1.5') == ([5, "text", None, 1.5], [])
    assert read('5 apples\n"a" {}\n{"b": 1}') == ([{"b": 1}], [1, 2])


def test_deep_nesting_is_reported():
    text = "[" * 5_000 + "]" * 5_000

    assert read(f"{text}\n{{}}") == ([{}], [1])


@given(st.integers(0, 10_000))
def test_any_damage_keeps_the_other_lines(seed):
    """Whatever is cut from a file of lines, at most the lines that it touches are lost."""
    rng = random.Random(seed)
    lines = [json.dumps(record) for record in RECORDS * 4]
    text = "\n".join(lines)
    start = rng.randrange(len(text))
    end = start + rng.randrange(1, 200)
    values, _ = read(text[:start] + text[end:])
    before, after = text[:start].count("\n"), text[end:].count("\n")
    intact = [json.loads(line) for line in lines[:before]]
    rest = [json.loads(line) for line in lines[len(lines) - after :]] if after else []

    assert values[:before] == intact
    assert values[len(values) - len(rest) :] == rest


@pytest.mark.parametrize("line", ["{", "[", '{"a":', "[1,", '{"a": [', "]", ",", '"', "{{", '{"a": "'])
def test_hostile_lines_take_linear_time(line, chunk):
    """Lines that open what nothing closes."""
    before = time.process_time()
    values, problems = read((line + "\n") * 20_000 + "{}")

    assert time.process_time() - before < 20
    assert len(values) + len(problems) > 0


def test_parts_of_a_document():
    """A document is read part by part; its lists can be cut short."""
    text = json.dumps({"info": 1, "items": RECORDS, "empty": []}, indent=1)
    stream = JsonStream(io.BytesIO(text.encode()), "file")
    stream.find_value()
    assert collect(stream.parts(), limit=2) == {"info": 1, "items": RECORDS[:2], "empty": []}

    stream = JsonStream(io.BytesIO(json.dumps(RECORDS).encode()), "file")
    stream.find_value()
    assert collect(stream.parts(), limit=2) == RECORDS[:2]

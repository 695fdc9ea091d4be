"""A column of JSON is encoded as each of its values is."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from kern_nb.db import codec
from kern_nb.errors import UnstorableValue

PLAIN: list[Any] = [{"a": 1}, [], {}, {"text": "naïve 数据 \x1b[31m"}, 1.5, True, {"deep": [{"er": None}]}]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "rare",
    [
        {"$type": "date", "value": "no date"},
        {"nul": "a\x00b"},
        {"half": "\ud800"},
        math.nan,
        (1, 2),
        {1: "one"},
        datetime(2026, 1, 1, tzinfo=UTC),
        nested(codec.MAX_DEPTH),
        {"$items": []},
        10**4000,
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_rare_value_changes_no_other_of_its_column(rare: Any) -> None:
    values = [*PLAIN, rare, *PLAIN]
    texts = codec.dumps_all(values)
    assert texts == [codec.dumps(value) for value in values]
    assert [codec.loads(text) for text in texts[: len(PLAIN)]] == PLAIN


@pytest.mark.parametrize("wrong", [nested(codec.MAX_DEPTH + 1), 10**5000, object()], ids=["deep", "long", "object"])
def test_a_value_that_cannot_be_stored_is_refused(wrong: Any) -> None:
    with pytest.raises(UnstorableValue):
        codec.dumps_all([*PLAIN, wrong])

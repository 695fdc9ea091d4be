"""The results of a test run, from its JUnit XML file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET


class Result(NamedTuple):
    """A test, as ``module::name``; whether it passed, None if it was skipped; what it recorded with `record_property`."""

    test: str
    has_passed: bool | None
    properties: dict[str, str]


def read(path: Path) -> Iterator[Result]:
    """The results of a file."""
    for case in ET.parse(path).getroot().iter("testcase"):
        children = {child.tag for child in case}
        has_passed = False if children & {"failure", "error"} else None if "skipped" in children else True
        properties = {p.attrib["name"]: p.attrib["value"] for p in case.iter("property")}
        yield Result(f"{case.attrib['classname']}::{case.attrib['name']}", has_passed, properties)


def by_test(path: Path) -> dict[str, bool]:
    """Whether each test passed that was not skipped; one that fails at its end, too, is listed twice in the file."""
    outcomes: dict[str, bool] = {}
    for result in read(path):
        if result.has_passed is not None:
            outcomes[result.test] = result.has_passed and outcomes.get(result.test, True)
    return outcomes


def using_store(path: Path) -> set[str]:
    """The tests that used our store."""
    return {result.test for result in read(path) if "store" in result.properties}

"""The verbs are complete, and consistent with the code and with their page in the docs."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from kern_nb.db.columns import FRAMES as FRAME_COLUMNS
from kern_nb.magics import help_pages
from kern_nb.magics import verb as verb_module
from kern_nb.magics.commands import SQL, VERBS
from kern_nb.magics.completion_sources import SOURCES
from kern_nb.magics.help_pages import reference
from kern_nb.magics.parser import parse, split
from kern_nb.records import RunStatus

PAGE = Path(__file__).resolve().parents[2] / "docs" / "magics.md"
every_verb = pytest.mark.parametrize("verb", [*VERBS, SQL], ids=lambda verb: verb.name)


@every_verb
def test_every_verb_has_complete_help(verb):
    """A summary, an example of itself, the same in Python, and help for each argument."""
    assert verb.summary.endswith(".")
    assert verb.command in verb.example
    assert verb.python
    for argument in verb.arguments:
        assert argument.help.endswith(".")
        assert argument.source in {"", *SOURCES}
        assert argument.usage in help_pages.verb_help(verb)


@every_verb
def test_every_example_parses(verb):
    """What the help shows is no error."""
    line = verb.example.splitlines()[0].partition(verb.command)[2]

    assert parse(verb, split(line, {}))


@every_verb
def test_every_verb_is_in_the_docs(verb):
    """With its usage, its arguments and its example."""
    page = PAGE.read_text(encoding="utf-8")

    for text in (f"## {verb.command.strip('%')}\n", verb.usage, verb.example, verb.python):
        assert text in page
    for argument in verb.arguments:
        assert argument.help in page


def test_the_docs_page_is_current():
    """`make docs` would change nothing."""
    assert PAGE.read_text(encoding="utf-8") == reference()


def test_names_are_unique_and_listed():
    """Each verb once, each in the list that `%kern` prints."""
    names = [verb.name for verb in VERBS]

    assert len(set(names)) == len(names)
    for verb in VERBS:
        assert f"{verb.command} " in help_pages.overview()


def test_written_out_choices_match_records_and_frames():
    """They are written out so that loading stays fast."""
    assert get_args(RunStatus) == verb_module.STATUSES
    assert [*verb_module.FRAMES, "requirements"] == list(FRAME_COLUMNS)

"""Markdown of models: it is parsed, other text is unchanged, nothing is active and nothing is lost."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from hostile import MARKDOWN
from hypothesis import example, given
from hypothesis import strategies as st
from markup import Markup as Read

from kern_nb.records import Message, Run, Session
from kern_nb.text import html, markdown
from kern_nb.text.markdown import Element, parse, render_markdown, split, text_length

NAMES = frozenset(
    "a blockquote br code del em hr li ol p pre strong table tbody td th thead tr ul".split()  # noqa: SIM905
)
SIGNS = [
    *(
        "*",
        "**",
        "_",
        "__",
        "~~",
        "`",
        "```\n",
        "[",
        "](",
        ")",
        "![",
        "](https://example.com ",
        "](javascript:",
        "<",
        ">",
    ),
    *(
        "> ",
        "- ",
        "1. ",
        "7) ",
        "# ",
        "\n",
        "\n\n",
        "  \n",
        "    ",
        "\t",
        "|",
        "|-|-|\n",
        "\n---\n",
        "\n===\n",
        "\\",
        "&",
    ),
    *("&#8238;", "&lt;", "<b>", "<!--", "]: http://x\n", "\u202e", "\x00", "\ud83d", "\r", "\u0645"),
]
WORDS = st.integers(0, 99).map(lambda n: f"word{n:02}x")
TEXTS = st.lists(st.sampled_from(SIGNS) | WORDS, max_size=40).map("".join)


def said(nodes) -> str:
    """The text that can be read of a tree, and the addresses of its links."""
    pieces = []
    for node in nodes:
        pieces += [node] if isinstance(node, str) else [said(node.children), node.attributes.get("href", "")]
        pieces += [] if isinstance(node, str) else [node.attributes.get("title", "")]
    return "".join(pieces)


def elements(nodes):
    for node in nodes:
        if isinstance(node, Element):
            yield node
            yield from elements(node.children)


def test_markdown_becomes_elements():
    """Words, lists, quotes, tables, code and links become their elements."""
    found = Read(str(render_markdown(MARKDOWN["all"])))

    assert found.problems == []
    for name in ("strong", "em", "del", "code", "ol", "ul", "blockquote", "table", "th", "pre", "hr"):
        assert name in found.elements, name
    assert "words,\nwhose lines break where they were broken,\n\u00a0\u00a0and keep" in found.text
    assert "def f(**kwargs):  # *not* emphasized\n    return" in found.text


@pytest.mark.parametrize(
    "text",
    [
        MARKDOWN["plain"],
        "Nothing special.",
        "two  spaces\n   an indent\n\n\n\nand lines",
        "2 * 3 * 4, 2**8, a_b_c, __init__",
        "C:\\new\\*",
        "&lt;b&gt; &amp;",
        "<https://example.com> and https://example.com",
        "[not a link] (at all)",
        "",
    ],
)
def test_text_without_markdown_is_unchanged(text):
    """No element is added and no lines are joined."""
    assert parse(text) is None
    assert render_markdown(text) == html.render_text(text)


def test_text_that_is_too_long_is_not_parsed():
    """A text of megabytes is shown without parsing."""
    text = "**bold** " * markdown.MAX_PARSED_LENGTH

    assert parse(text) is None
    assert len(render_markdown(text)) < 3 * html.MAX_LENGTH


@given(TEXTS)
@example("\n".join(MARKDOWN.values()))
def test_no_text_is_active_and_no_word_is_lost(text):
    """Only allowed elements and links appear, and no invisible character."""
    nodes = parse(text)
    if nodes is None:
        return

    for element in elements(nodes):
        assert element.name in NAMES
        assert set(element.attributes) <= {"href", "title", "start", "align", "role", "aria-level"}
        assert element.name != "a" or re.match("(https?://|mailto:)[!-~]+$", element.attributes["href"])
    text_of = said(nodes)
    for word in set(re.findall(r"word\d\dx", text)):
        assert text_of.count(word) >= text.count(word)
    assert all(c in "\n\t" or c.isprintable() or c == "\u00a0" for c in text_of)
    json.dumps(nodes, ensure_ascii=False).encode()
    assert Read(str(render_markdown(text))).problems == []


@example("> word00xword00x" * 4, 15)
@given(TEXTS.map(lambda text: text * 4), st.integers(0, 300))
def test_split_loses_nothing(text, room):
    """The first part has at most the given length, and both parts are trees that contain the whole text."""
    nodes = parse(text)
    if nodes is None:
        return
    first, rest = split(nodes, room)

    assert text_length(first) <= room
    assert text_length(first) + text_length(rest) == text_length(nodes)
    plain = [re.sub("<[^>]*>", "", str(markdown.markup(part))) for part in ((*first, *rest), nodes)]
    # A space on which the second part begins is kept as one that no line swallows; it reads the same.
    assert plain[0].replace("\u00a0", " ") == plain[1].replace("\u00a0", " ")
    assert Read(str(markdown.markup(first))).problems == Read(str(markdown.markup(rest))).problems == []


def test_split_numbered_list_continues_counting():
    """The second part starts with the next number; a table row is not split."""
    numbered = "\n".join(f"{n}. {'word ' * 20}" for n in range(3, 30))
    rows = "| a | b |\n|--|--|\n" + f"| {'x' * 50} | {'y' * 50} |\n" * 30
    first, second = split(parse(numbered), 1_000)
    upper, lower = split(parse(rows), 1_000)

    assert first[0].attributes["start"] == "3"
    assert int(second[0].attributes["start"]) == 3 + len(first[0].children)
    assert {len(row.children) for row in elements((*upper, *lower)) if row.name == "tr"} == {2}


def test_long_answer_is_folded_after_its_preview():
    """A huge answer states how many characters are missing."""
    long = "\n\n".join(f"**{n}** {'word ' * 40}" for n in range(20))
    found, huge = Read(str(render_markdown(long))), Read(str(render_markdown(long * 50)))

    assert found.problems == huge.problems == []
    assert found.elements.count("details") == huge.elements.count("details") == 1
    assert found.text.count("word") == 800
    assert "more characters not shown." in huge.text
    assert "more characters not shown." not in found.text


def test_table_with_too_many_cells_is_a_table():
    """The text of extra cells is joined, and a missing cell is empty."""
    found = parse("| a | b |\n|:--|--:|\n| 1 |\n| 2 | 3 | `4 \\| 5` |")
    cells = [said(cell.children) for cell in elements(found) if cell.name in ("td", "th")]

    assert cells == ["a", "b", "1", "", "2", "3 | 4 | 5"]
    assert [one.attributes.get("align") for one in elements(found) if one.name == "th"] == ["left", "right"]


def test_only_model_messages_are_parsed_as_markdown():
    """Messages of users and tools, and answers that are data, are unchanged."""
    text = "**bold**"
    messages = [Message(role=role, content=text) for role in ("user", "tool", "system", "assistant")]
    messages.append(Message(role="assistant", content={"said": text}))
    shown = Read(
        Session(session_id="chat", runs=[Run(session_id="chat", run_index=0, messages=messages)])._repr_html_()
    )

    assert shown.text.count("**bold**") == 4


def test_parser_handles_pathological_texts():
    """Seventeen texts that provoke backtracking, of the maximum length, take less than a minute of processor time."""
    pieces = [
        "[",
        "![",
        "*",
        "_a",
        "`",
        "``` ",
        "> ",
        "- ",
        "[a](",
        "<",
        "\\",
        "|",
        "|-",
        "a|b\n-|-\n",
        "~~a",
        "* _a **b",
        "> - ",
    ]
    code = f"""
import resource
from kern_nb.text import html, markdown
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
for piece in {pieces!r}:
    markdown._parse.__wrapped__(piece * (html.MAX_LENGTH // len(piece)))
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)

    assert done.returncode == 0


def test_long_paragraph_keeps_words_and_emphasis():
    """It is parsed in pieces; nothing is lost between them, and emphasis within one is kept."""
    text = " ".join(f"word{n} **bold{n}** `code {n}`" for n in range(1_000))
    html = markdown.render_markdown(text, len(text))

    assert 7 * markdown._PIECE < len(text) <= markdown.MAX_PARSED_LENGTH
    for n in range(1_000):
        assert f"word{n} " in html
        assert f"bold{n}" in html
    assert html.count("<strong>") > 950
    assert html.count("<code>") > 950


def test_short_table_rows_are_padded_up_to_a_limit():
    """A few cells may be missing; with too many the table ends."""
    head = "|a" * 300 + "|\n" + "|-" * 300 + "|\n"
    few, many = (markdown.parse(f"{head}{'|b' * 299}|\n" + "|c\n" * rows) for rows in (1, 50))

    assert [node.name for node in few] == ["table"]
    assert [node.name for node in many] == ["table", "p"]
    assert json.dumps(many).count('"c"') + json.dumps(many).count("|c") == 50


def test_headings_and_table_rules_are_distinguished_from_similar_text():
    """Closing signs of a heading are hidden, others are not; a rule has signs in every cell."""
    assert markdown.markup(markdown.parse("# a  ##  ")) == markdown.markup(markdown.parse("# a"))
    assert "a##" in markdown.markup(markdown.parse("# a##"))
    assert "a # b" in markdown.markup(markdown.parse("## a # b #"))
    assert [node.name for node in markdown.parse("a|b\n:-|-:\nc|d")] == ["table"]
    for rule in ("-|", "- -|-", "|--|:|", "||", ":|:"):
        nodes = markdown.parse(f"a|b\n{rule}\n*c*|d") or ()
        assert "table" not in [node.name for node in nodes if not isinstance(node, str)]


def test_parser_is_imported_on_demand():
    """Importing the package or the transcript view does not import it."""
    code = (
        "import sys, kern_nb, kern_nb.views.transcript as t; t.markdown.parse('plain'); print('mistune' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert told.stdout.strip() == "False"

"""The HTML primitives: every text is escaped, and truncation is stated."""

from __future__ import annotations

import html as stdlib_html

import pytest
from hostile import HOSTILE, MEGABYTE
from hypothesis import given
from hypothesis import strategies as st
from markup import Markup as Read

from kern_nb.text import formatting
from kern_nb.text.html import (
    MAX_LENGTH,
    Markup,
    abbreviate,
    container,
    escape,
    join,
    preformatted,
    preserve_whitespace,
    render_text,
    tag,
)
from kern_nb.text.tables import Column, Table

# Lone surrogates too: models and tools do return them.
any_text = st.text(st.characters() | st.characters(categories=["Cs"]))


@given(any_text)
def test_text_is_escaped_in_elements_and_attributes(text):
    """Parsing the markup returns the text with visible controls, and no other element or attribute."""
    read = Read(tag("p", text, title=text))

    assert read.problems == []
    assert read.elements == ["p"]
    assert read.text == formatting.escape_controls(text)
    read.text.encode("utf-8")


@given(any_text)
def test_preserved_whitespace_reads_the_same(text):
    """Line breaks and words stay."""
    read = Read(preserve_whitespace(text))

    assert read.problems == []
    assert read.text.replace("\u00a0", " ") == formatting.escape_controls(text).replace("\u00a0", " ")


@given(any_text, st.integers(2, 40))
def test_truncated_text_is_one_line_of_limited_width(text, width):
    """All characters are visible, and an omission is marked."""
    line = formatting.truncate(text, width)

    assert len(line) <= width
    assert "\n" not in line
    assert line == formatting.single_line(text) or line.endswith("…")


def test_text_is_escaped_on_insertion_and_markup_is_not():
    """Only `Markup` counts as safe; its string methods return text."""
    assert tag("p", "<b>", Markup("<b></b>"), None, 3) == "<p>&lt;b&gt;<b></b>3</p>"
    assert join("a", None, "<", by=" & ") == "a &amp; &lt;"
    assert tag("p", Markup("<i></i>") + "x") == "<p>&lt;i&gt;&lt;/i&gt;x</p>"
    assert escape(None) == "None"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a\x00b", "a␀b"),
        ("\x1b[31m", "␛[31m"),
        ("\x7f", "␡"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("\u2066x\u2069", "⟨U+2066⟩x⟨U+2069⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("\x85", "⟨U+0085⟩"),
        ("a\r\nb\rc", "a\nb␍c"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("e\u0301 \U0001f600 \u0645", "e\u0301 \U0001f600 \u0645"),
    ],
)
def test_control_characters_are_visible(text, seen):
    """Controls of terminals and text direction are visible; letters, accents and emoji are unchanged."""
    assert formatting.escape_controls(text) == seen


def test_a_megabyte_is_truncated_with_a_count():
    """The beginning is shown, the remainder is folded or omitted, each with its length."""
    shown = render_text(MEGABYTE)
    read = Read(shown)

    assert len(shown) < 8 * MAX_LENGTH
    assert read.text.startswith(MEGABYTE[:900])
    assert "… 999,000 more characters" in read.text
    assert "… 980,000 more characters not shown." in read.text
    assert "… 980,000 more characters not shown." in Read(preformatted(MEGABYTE)).text
    assert len(abbreviate(MEGABYTE, 40)) < 10_000
    assert "details" not in Read(render_text("short\ntext")).elements


def test_indents_and_spaces_are_preserved_without_styles():
    """Collapsible spaces become no-break spaces; single spaces allow wrapping."""
    assert (
        Read(preserve_whitespace("def f():\n    return  1")).text == "def f():\n\u00a0\u00a0\u00a0\u00a0return \u00a01"
    )


def test_long_words_can_wrap():
    """Break opportunities add no characters."""
    shown = preserve_whitespace("x" * 200)

    assert shown.count("<wbr>") == 3
    assert Read(shown).text == "x" * 200


def test_output_is_not_typeset_as_formula():
    """The container tells MathJax to ignore dollar signs."""
    for name in ("tex2jax_ignore", "mathjax_ignore"):
        assert name in container("$5 or $6")


def test_table_has_the_same_content_in_text_and_markup():
    """Caption, headings, values, the sign for missing values, and the note."""
    table = Table("Things", [Column("name"), Column("n", number=True)], [["a", "1,234"], ["b", ""]], "That is all.")
    text, read = str(table), Read(table.html())

    for part in ("Things", "name", "a", "1,234", formatting.MISSING, "That is all."):
        assert part in text
        assert part in read.text
    assert text.splitlines()[1:4] == ["name      n", "a     1,234", "b         —"]


def test_numbers_are_aligned_right_with_and_without_styles():
    """The attribute is for hosts that drop styles, the style for hosts that override the attribute."""
    shown = Table("T", [Column("n", number=True)], [["1"]]).html()

    assert shown.count('align="right"') == shown.count("text-align:right") == 2


def test_truncated_value_has_the_full_text_as_title():
    """Quotes do not end the attribute."""
    shown = abbreviate('a "quoted" <value> ' * 3, 20)

    assert shown.startswith('<abbr title="a &quot;quoted&quot; &lt;value&gt; a')
    assert stdlib_html.unescape(Read(shown).text).endswith("…")


def test_empty_columns_can_be_removed():
    """A column without any value is removed."""
    table = Table("T", [Column("a"), Column("b"), Column("c")], [["1", "", ""], ["2", formatting.MISSING, "3"]])

    assert [column.title for column in table.without_empty_columns().columns] == ["a", "c"]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (formatting.format_count(1234567), "1,234,567"),
        (formatting.format_count(None), "—"),
        (formatting.format_count(0), "0"),
        (formatting.format_money(0.00123), "0.0012"),
        (formatting.format_money(12.345), "12.35"),
        (formatting.format_money(0), "0.00"),
        (formatting.format_money(None), "—"),
        (formatting.format_seconds(0.123), "0.12 s"),
        (formatting.format_seconds(12.34), "12.3 s"),
        (formatting.format_seconds(200), "3 min 20 s"),
        (formatting.format_seconds(59.99), "1 min 0 s"),
        (formatting.format_seconds(7500), "2 h 5 min"),
        (formatting.format_seconds(None), "—"),
        (formatting.format_time(0), "1970-01-01 00:00"),
        (formatting.format_time(None), "—"),
        (formatting.pluralize(1, "run"), "1 run"),
        (formatting.pluralize(1204, "run"), "1,204 runs"),
        (formatting.format_status("ERROR"), "✗ ERROR"),
        (formatting.format_status("COMPLETED"), "COMPLETED"),
        (formatting.format_status(None), "—"),
        (formatting.format_arguments({"a": "x", "n": 2}, 40), 'a="x", n=2'),
        (formatting.format_arguments(None, 40), ""),
        (formatting.format_arguments("not json", 40), "not json"),
        (formatting.format_arguments([1, 2], 40), "[ 1, 2 ]"),
    ],
)
def test_formatted_values(shown, expected):
    """Unknown is a dash, never 0."""
    assert shown == expected


def test_hostile_values_are_all_covered():
    """The golden files contain each kind of hostile value."""
    assert {"script", "quotes", "override", "nul", "surrogate"} <= set(HOSTILE)

"""Text trees in a page: only allowed elements and links are built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import kern_nb

if TYPE_CHECKING:
    from playwright.sync_api import Browser

STATIC = Path(kern_nb.__file__).parent / "widgets" / "static"
TREE = [
    ["p", ["plain ", ["strong", ["bold"], {"onclick": "window.hurt = 1", "style": "position:fixed"}]], {"id": "x"}],
    ["script", ["window.hurt = 1"], {}],
    ["img", [], {"src": "x", "onerror": "window.hurt = 1"}],
    ["iframe", [], {"srcdoc": "<script>parent.hurt = 1</script>"}],
    ["p", ["<img src=x onerror='window.hurt = 1'>"], {}],
    ["constructor", ["no element"], {}],
    ["a", ["fine"], {"href": "https://example.com/", "onclick": "window.hurt = 1", "target": "_self"}],
    *(["a", ["none"], {"href": address}] for address in ("javascript:window.hurt=1", " java\tscript:alert(1)", "data:,x", "/x", "")),
    ["a", ["none"], {}],
    ["ol", [["li", ["three"], {}]], {"start": "3"}],
]  # fmt: skip


def test_only_allowed_elements_are_built(chromium: Browser) -> None:
    """The text of others is shown."""
    script = "\n".join((STATIC / f"{name}.js").read_text() for name in ("kern", "texts"))
    page = chromium.new_page()
    page.set_content("<main></main>")
    page.add_script_tag(content=f"{script}\nfillText(document.querySelector('main'), {{ tree: {json.dumps(TREE)} }});")
    main = page.locator("main")

    assert main.evaluate("e => [...e.querySelectorAll('*')].map(x => x.localName)") == [
        "p",
        "strong",
        "p",
        "a",
        "ol",
        "li",
    ]
    attributes = main.evaluate(
        "e => [...e.querySelectorAll('*')].flatMap(x => [...x.attributes].map(a => [a.name, a.value]))"
    )
    assert sorted(attributes) == [
        ["href", "https://example.com/"],
        ["rel", "noopener noreferrer"],
        ["start", "3"],
        ["target", "_blank"],
    ]
    assert main.inner_text().count("none") == 6
    assert "<img src=x onerror='window.hurt = 1'>" in main.inner_text()
    assert page.evaluate("window.hurt") is None
    page.close()

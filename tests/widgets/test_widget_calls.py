"""Messages between page and kernel: which calls exist, what they accept, and how errors are reported."""

from __future__ import annotations

import atexit
import re
import threading

import pytest
from widget_page import Page

from kern_nb import store_registry
from kern_nb.db import InMemoryDb, open_store
from kern_nb.errors import BadUsage, ReadOnlyStore, StoreBusy, StoreUnavailable
from kern_nb.records import Run
from kern_nb.text.html import container, tag
from kern_nb.widgets.base import Widget, decode_key, encode_key
from kern_nb.widgets.rpc import call


class Counter(Widget):
    """It counts."""

    def __init__(self, store):
        self.count = 0
        self.gate = threading.Event()
        super().__init__(store)

    def __repr__(self):
        return f"Counter at {self.count}"

    def fallback_html(self):
        return container(tag("p", f"{self.count}"))

    def secret(self):
        return "secret"

    @call
    def add(self, step: int, words: list[str] | None = None) -> int:
        self.count += step + len(words or [])
        return self.count

    @call
    def fail(self, kind: str) -> None:
        errors = {
            "kern": ReadOnlyStore("The store <b>x</b> is\nread-only.", "Attach it anew."),
            "gone": StoreUnavailable("It is gone.", "Bring it back."),
            "busy": StoreBusy("It is busy.", "Wait."),
            "disk": OSError(5, "Input/output error"),
            "bug": ZeroDivisionError("division by zero"),
            "silent": ValueError(),
            "long": RuntimeError("x" * 5_000),
            "half": RuntimeError("half \ud83d of a pair \x00"),
        }
        raise errors[kind]

    @call
    def odd(self, kind: str) -> object:
        return {"nan": float("nan"), "bytes": b"x", "half": "\ud83d", "self": self}[kind]

    @call(slow=True)
    def wait(self) -> str:
        return "waited" if self.gate.wait(20) else "never let go"


@pytest.fixture
def page():
    """A page that shows a counter."""
    with InMemoryDb() as store:
        yield Page(Counter(store))


def test_answer_has_the_id_of_its_call(page):
    """Arguments are passed by name; optional ones may be omitted."""
    assert page.ask("add", step=2) == 2
    assert page.ask("add", step=1, words=["x", "y"]) == 5


@pytest.mark.parametrize(
    "name", ["secret", "close", "send", "__init__", "still", "store", "nothing", "", None, 3, ["add"]]
)
def test_only_marked_methods_can_be_called(page, name):
    """No other method of the widget or its bases can be called."""
    told = page.refused(name)

    assert told["kind"] == "BadUsage"
    assert "Unknown call" in told["message"]


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"step": "2"},
        {"step": 2.5},
        {"step": None},
        {"step": 1, "other": 1},
        {"step": 1, "words": [1]},
        [1],
        "x",
        None,
    ],
)
def test_invalid_arguments_are_refused(page, args):
    """Types are strict, and unknown arguments are errors."""
    page.send("add", args)

    assert page.answer()["error"]["kind"] == "BadUsage"
    assert page.widget.count == 0


def test_error_has_message_and_hint(page):
    """Each is one line; the exception is available in Python."""
    told = page.refused("fail", kind="kern")

    assert told == {
        "kind": "ReadOnlyStore",
        "message": "The store <b>x</b> is read-only.",
        "hint": "Attach it anew.",
        "gone": False,
    }
    assert isinstance(page.widget.last_error, ReadOnlyStore)


@pytest.mark.parametrize(("kind", "gone"), [("gone", True), ("busy", True), ("disk", True), ("bug", False)])
def test_errors_of_a_lost_store_offer_to_attach_again(page, kind, gone):
    """Other errors do not."""
    assert page.refused("fail", kind=kind)["gone"] is gone


def test_unexpected_error_is_reported(page):
    """With its type and where the traceback is, however long or odd its text."""
    assert page.refused("fail", kind="bug")["message"] == "ZeroDivisionError: division by zero"
    assert "last_error" in page.refused("fail", kind="bug")["hint"]
    assert page.refused("fail", kind="silent")["message"] == "ValueError"
    assert len(page.refused("fail", kind="long")["message"]) == 500
    assert page.refused("fail", kind="half")["message"] == "RuntimeError: half ⟨U+D83D⟩ of a pair ␀"


@pytest.mark.parametrize("kind", ["nan", "bytes", "half", "self"])
def test_result_that_cannot_be_sent_is_an_error(page, kind):
    """Invalid JSON or Unicode would otherwise only reach the kernel's log."""
    assert page.refused("odd", kind=kind)["message"]


def test_slow_call_does_not_block(page):
    """It runs in a thread."""
    slow = page.send("wait", {})
    assert page.ask("add", step=1) == 1
    page.widget.gate.set()

    assert page.answer() == {"id": slow, "value": "waited"}


@pytest.mark.parametrize("content", ["x", None, [], {}, {"call": "add"}, {"id": 1, "call": "add", "args": {"step": 1}}])
def test_other_messages_are_ignored(page, content):
    """Other libraries may use the same channel."""
    page.widget._handle_custom_msg(content, [])

    assert page.ask("add", step=0) == 0


@pytest.mark.parametrize("identity", ["", "chat", "a/b.c", "\x00\x1f", "\ud83d", "\U0001f600", '"\\', "A" * 1_000_000])
def test_key_round_trip(identity):
    """Keys are ASCII, which every transport preserves."""
    assert encode_key(identity).isascii()
    assert decode_key(encode_key(identity)) == identity


@pytest.mark.parametrize("key", ["", "chat", "3", "[1]", "null", '"', "\x00"])
def test_invalid_key_is_refused(key):
    """An id in place of a key is an error."""
    with pytest.raises(BadUsage, match="is not a valid key"):
        decode_key(key)


def test_commands_are_quoted_and_name_the_store():
    """They have the same effect wherever they are pasted."""
    with InMemoryDb() as one, InMemoryDb() as other:
        store_registry.attach(one, name="my store")
        store_registry.attach(other, name="other")

        assert Counter(other).line("branch", "it's/2", "--as", "") == """%kern branch 'it'"'"'s/2' --as ''"""
        assert Counter(one).line("show", "chat") == "%kern show chat --store 'my store'"
        assert Counter(one).line("show", "a\nb\x00") == "%kern show 'a␤b␀' --store 'my store'"
        assert Counter(other).line("tag", "a b", "c") == "%kern tag 'a b' c"


def test_widget_of_a_named_or_current_store():
    """Names and the default work as everywhere else."""
    with InMemoryDb() as store:
        store_registry.attach(store, name="s")
        assert Counter(None).store is store
        assert Counter("s").store is store


class Reader(Counter):
    """It reads the store."""

    @call
    def total(self) -> int:
        return self.store.find_sessions().total


@pytest.mark.parametrize("ending", ["duckdb", "db"])
def test_restored_file_can_be_attached_again(tmp_path, ending):
    """While it is missing, the call and the attempt both report it."""
    path = tmp_path / f"s.{ending}"
    store = open_store(path)
    store.append_run("chat", Run(input="x"))
    page = Page(Reader(store_registry.attach(store)))
    assert page.ask("total") == 1
    store.close()
    path.rename(tmp_path / "elsewhere")

    told = page.refused("total")
    assert (told["gone"], "removed" in told["message"]) == (True, True)
    assert page.refused("attach_again")["gone"] is True
    (tmp_path / "elsewhere").rename(path)

    assert page.ask("attach_again") == "%kern use s"
    assert page.ask("total") == 1
    assert page.widget.last_error is None


@pytest.mark.parametrize("ending", ["duckdb", "db"])
def test_replaced_file_is_reported_and_attached_again(tmp_path, ending):
    """The message of the engine is shown without its SQL."""
    path = tmp_path / f"s.{ending}"
    store = open_store(path)
    store.append_run("chat", Run(input="x"))
    page = Page(Reader(store_registry.attach(store)))
    page.ask("total")
    store.close()
    path.unlink()
    other = open_store(path, session_table="other")
    other.append_run("chat", Run(input="x"))
    other.close()

    told = page.refused("total")
    assert told["gone"]
    assert "agno_sessions" in told["message"]
    assert "SELECT" not in told["message"]
    page.ask("attach_again")
    assert page.ask("total") == 0


def test_lost_server_can_be_attached_again(postgres_database_url):
    """The widget continues over a new connection."""
    import psycopg

    store = open_store(postgres_database_url)
    store.append_run("chat", Run(input="x"))
    page = Page(Reader(store_registry.attach(store, name="pg")))
    assert page.ask("total") == 1
    with psycopg.connect(postgres_database_url.replace("+psycopg", "", 1), autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )

    assert page.ask("attach_again") == "%kern use pg"
    assert page.ask("total") == 1


def test_memory_store_survives_attaching_again():
    """It could not be read from anywhere."""
    with InMemoryDb() as store:
        store.append_run("chat", Run(input="x"))
        page = Page(Reader(store_registry.attach(store)))

        page.ask("attach_again")
        assert page.ask("total") == 1


def test_script_has_no_imports_and_styles_have_fallbacks():
    """Relative imports fail in the page, others would need a network."""
    from kern_nb.widgets.browser.widget import SessionBrowser

    script, look = SessionBrowser._esm, SessionBrowser._css
    assert re.findall(r"^\s*import\b|\bimport\(|\bfrom\s+[\"']", script, re.MULTILINE) == []
    assert script.count("innerHTML") == 1
    assert script.count("export default") == 1
    assert "://" not in script + look
    assert "url(" not in look
    assert re.findall(r"var\(--jp-[a-z0-9-]+\)", look) == []


def test_fallback_and_widget_are_displayed_together():
    """First the fallback with its display id, then the widget with empty HTML."""
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    try:
        with InMemoryDb() as store, capture_output() as captured:
            widget = Counter(store)
            widget._ipython_display_()
            widget.count = 7
            Page(widget).ask("renew_fallback")
        first, second, third = captured.outputs
        assert "<p>0</p>" in first.data["text/html"]
        assert second.data["text/html"] == ""
        assert second.data["application/vnd.jupyter.widget-view+json"]["model_id"] == widget.model_id
        assert "<p>7</p>" in third.data["text/html"]
        assert third.data["text/plain"] == "Counter at 7"
        assert first.transient["display_id"] == third.transient["display_id"]
        bundle = widget._repr_mimebundle_()
        assert "<p>7</p>" in bundle["text/html"]
        assert "application/vnd.jupyter.widget-view+json" in bundle
    finally:
        shell.restore_sys_module_state()
        InteractiveShell.clear_instance()
        atexit.unregister(shell.atexit_operations)  # it would collect garbage for seconds

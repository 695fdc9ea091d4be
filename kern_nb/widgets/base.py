"""The base class of all widgets: calls between script and kernel, errors, and the fallback without a kernel.

**Script.** ``class InboxWidget(Widget, script="inbox")`` uses `static/inbox.js`, without a build step. In the page
there are no relative imports, so `Widget` joins `static/kern.js` (helpers), the shared ``parts`` and the widget's file,
which ends in ``export default { render }``; likewise their style sheets, with every rule below ``.kern-w``. Text from a
store reaches the page through ``textContent`` only (``h()``), a model's Markdown as the tree of
`kern_nb.text.markdown`, markup of `kern_nb.text` through ``putRendered()``, the only use of ``innerHTML``.

**Calls.** A script calls methods that are marked ``@call`` (see `rpc`): ``await shell.ask("rename", { key, name })``
sends ``{id, call, args}`` and receives ``{id, value}`` or ``{id, error}``; an error is shown and is
``widget.last_error``, and if the store is gone (`rpc.STORE_GONE`), a button calls `attach_again`. An action returns
``line``, the equivalent magic. No call takes SQL or a path. `Widget.tell` sends an unrequested message. JupyterLab
handles these messages in a thread of the kernel, so calls are answered while a cell runs, and must not rely on the main
thread; other hosts answer them after the cell.

**Keys.** A session id may contain anything, NUL and lone surrogates included, which not every transport preserves.
Scripts pass keys (`encode_key`, `decode_key`) and show escaped texts.

**Fallback.** JupyterLab stores no widget state by default, and a reopened notebook shows "Error displaying widget:
model not found" even if the same output has HTML. So a widget displays *two* outputs: first the fallback (plain HTML of
the last view), then the widget, with empty HTML for nbconvert and GitHub. The style of the fallback
(`_STYLE`) hides it while a live widget follows, and hides whatever follows until the kernel has
answered. After each change of the view the kernel updates the fallback under its display id, so that a saved notebook
contains it; JupyterLab forgets display ids with the page, so after a reload it is not updated until the cell runs
again.
"""

from __future__ import annotations

import json
import shlex
import threading
from abc import abstractmethod
from collections.abc import Sequence
from contextvars import copy_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

import anywidget
from IPython.display import display, update_display

from kern_nb import store_registry
from kern_nb.errors import BadUsage, NoStore
from kern_nb.text import formatting
from kern_nb.text.html import Markup, tag
from kern_nb.widgets.rpc import call, error_payload, remote_methods

if TYPE_CHECKING:
    from kern_nb.db import SessionStore

_STATIC = Path(__file__).parent / "static"

# JupyterLab puts each output of a cell in an .jp-OutputArea-child. The one after the fallback is the widget, which its
# script marks as live. Otherwise "Loading widget..." or a message about a missing model may stand there.
_STYLE = """
.jp-OutputArea-child:has(> * .kern-still) + .jp-OutputArea-child:not(:has(.kern-live)) { display: none; }
.jp-OutputArea-child:has(> * .kern-still):has(+ .jp-OutputArea-child .kern-live) { display: none; }
"""


class Widget(anywidget.AnyWidget):
    """A widget on a store. Subclasses name their script: ``class InboxWidget(Widget, script="inbox")``.

    Args:
        store: A store or its name; None for the current store.

    Attributes:
        store: The store.
        last_error: The last exception of a call, or None.
    """

    _calls: ClassVar[dict[str, bool]] = {}

    def __init_subclass__(cls, *, script: str = "", parts: Sequence[str] = (), **kwargs: Any) -> None:
        """Join the script and its parts, and collect the remote methods."""
        super().__init_subclass__(**kwargs)
        cls._calls = remote_methods(cls)
        if script:
            names = ("kern", *parts, script)
            sheets = [_STATIC / f"{name}.css" for name in names]
            cls._esm = "\n".join((_STATIC / f"{name}.js").read_text(encoding="utf-8") for name in names)
            cls._css = "\n".join(sheet.read_text(encoding="utf-8") for sheet in sheets if sheet.exists())

    def __init__(self, store: str | SessionStore | None = None) -> None:
        self.store = store_registry.find(store)
        self.last_error: BaseException | None = None
        self._fallback_id = f"kern-{uuid4()}"
        self._is_displayed = False
        self._caller = copy_context()
        super().__init__()
        self.on_msg(self._answer)

    # For subclasses ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def fallback_html(self) -> str:
        """Render the current view as plain HTML for a saved notebook, which has no kernel."""

    @abstractmethod
    def __repr__(self) -> str: ...

    # Calls ------------------------------------------------------------------------------------------------------------

    def _answer(self, _widget: object, content: Any, _buffers: object) -> None:
        """Run the requested call and send its result; never raises, as no one would see it."""
        if not isinstance(content, dict) or not isinstance(content.get("id"), str):
            return
        self._caller = copy_context()
        if self._calls.get(str(content.get("call"))):
            threading.Thread(target=self._caller.copy().run, args=(self._respond, content), daemon=True).start()
        else:
            self._respond(content)

    def _respond(self, content: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"id": content["id"]}
        try:
            answer["value"] = self._dispatch(content.get("call"), content.get("args"))
            json.dumps(answer, allow_nan=False, ensure_ascii=False).encode()  # fail here if it cannot be sent
        except Exception as error:  # noqa: BLE001 - shown in the widget
            self.last_error = error
            answer = {"id": content["id"], "error": error_payload(error)}
        self.send(answer)

    def tell(self, content: dict[str, Any]) -> None:
        """Send the script an unrequested message, from any thread.

        It is sent in the context of the latest call: the kernel expects further calls where the last message came from,
        and that must be the thread that is free while a cell runs.
        """
        self._caller.copy().run(self.send, content)

    def _dispatch(self, name: object, args: object) -> Any:
        if not isinstance(name, str) or name not in self._calls:
            raise BadUsage(f"Unknown call {name!r}.", f"Calls of this widget: {', '.join(self._calls)}.")
        if not isinstance(args, dict):
            raise BadUsage(f"args of {name} must be an object, got {type(args).__name__}.", "Run the cell again.")
        return getattr(self, name)(**args)

    @call
    def attach_again(self) -> str:
        """Reopen the store, for a server that is back or a file that was restored."""
        self.store.reopen()
        self.last_error = None
        return f"%kern use {shlex.quote(store_registry.name_of(self.store))}"

    @call
    def renew_fallback(self) -> None:
        """Update the fallback in the notebook."""
        if self._is_displayed:
            output = self._fallback_output()
            update_display(output, raw=True, display_id=self._fallback_id)  # type: ignore[no-untyped-call]

    @property
    def is_in_use(self) -> bool:
        """Whether its store is the current one, which commands use by default."""
        try:
            return store_registry.current_store() is self.store
        except NoStore:
            return False

    def line(self, verb: str, *words: str) -> str:
        """Return the equivalent magic, which names the store unless it is the current one."""
        option = () if self.is_in_use else ("--store", store_registry.name_of(self.store))
        return formatting.escape_controls(f"%kern {shlex.join((verb, *words, *option))}").replace("\n", "␤")

    # In a cell --------------------------------------------------------------------------------------------------------

    def _ipython_display_(self, **_: Any) -> None:
        """Display two outputs, of which one is visible; see the module."""
        display(self._fallback_output(), raw=True, display_id=self._fallback_id)  # type: ignore[no-untyped-call]
        self._is_displayed = True
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        output = {"text/plain": "", "text/html": "", "application/vnd.jupyter.widget-view+json": view}
        display(output, raw=True)  # type: ignore[no-untyped-call]

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """Return a single output, for hosts that request it."""
        bundle: Any = super()._repr_mimebundle_(**kwargs)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        return {**(data or {}), **self._fallback_output()}

    def _fallback_output(self) -> dict[str, str]:
        note = tag("p", tag("em", "Saved output. Run the cell to update it."), class_="kern-still-note")
        style = Markup(f"<style>{_STYLE}</style>")
        fallback = tag("div", style, note, Markup(self.fallback_html()), class_="kern-still")
        return {"text/plain": repr(self), "text/html": str(fallback)}


def encode_key(identity: str) -> str:
    """Encode an id as ASCII for a script."""
    return json.dumps(identity)


def decode_key(key: str) -> str:
    """Decode the id of a key; raise BadUsage if the key is invalid."""
    try:
        identity = json.loads(key)
    except ValueError:
        identity = None
    if not isinstance(identity, str):
        raise BadUsage(f"{key!r} is not a valid key.", "Run the cell again.")
    return identity

"""What widgets share: how a script and the kernel talk, how errors are shown, what is left when the kernel is gone.

A widget is a class here and a script in `static/`; `inbox`, say, is ``class Inbox(Widget, script="inbox")`` in
`inbox.py` and `static/inbox.js`. No build step: a script is plain JavaScript, sent as it is.

**The script.** It travels to the page as one text, in which relative imports mean nothing. So `Widget` joins
`static/kern.js`, which has the helpers, and the widget's own file, which uses them as though they were its own and ends
in ``export default { render }``. What some widgets share is a script of its own, named among their ``parts``. The look
of all widgets is one style sheet, `static/kern.css`: JupyterLab's variables, each with a fallback, every rule below
``.kern-w``; a script or part may have a sheet of its own name beside it. Text from a store reaches the page through
``textContent`` alone (``h()`` makes elements that way). What a model said in Markdown comes as the tree that
`kern_nb.text.markdown` makes of it; ``static/texts.js`` builds elements from it, of a short list of its own. Markup
that `kern_nb.text` wrote, and escaped, is put in by ``putRendered()``, the only line that touches ``innerHTML``;
nothing else may.

**Calls.** A script calls methods of its widget, and of these only those marked ``@call`` (see `calls`):

    @call
    def rename(self, key: str, name: str) -> dict[str, Any]: ...

    const page = await shell.ask("rename", { key, name });

One custom message goes each way: ``{id, call, args}``, and ``{id, value}`` or ``{id, error}``. Arguments are checked
against the annotations. There is no call that takes SQL, and none that takes a path.
``shell.ask`` gives the value, or shows the error and gives ``undefined``; it never throws. ``shell.latest`` is for what
a person changes faster than it is answered: one request is under way, the newest other one waits, and an answer that is
not the newest is dropped. A call that may take longer than a moment is ``@call(slow=True)``: it runs in a thread.
What the kernel has to say unasked, it says with `Widget.tell`; the script listens to ``msg:custom`` itself.
JupyterLab sends the messages of widgets to a thread of the kernel's own, so calls are answered while a cell runs, too;
they must not rely on being in the main thread. Where a host lacks that, they wait for the cell.

**Ids.** A session id may hold anything, NUL and half surrogate pairs included, and not all of that crosses to a page.
`key_of` gives an id in ASCII, `id_of` gives it back; scripts pass keys around, and show `plain.visible` texts.

**Errors.** Whatever a call raises is shown in the widget, in a region with ``role="alert"``: what happened on one
line, what to do next on another. The exception itself is at ``widget.last_error``. If the store went away
(`calls.GONE`), the region has a button "Attach again", which calls `attach_again` and then ``shell.again``, the
script's own way to start over.

**The line.** What a person does by a click is told as the line that would have done it: a call returns ``line`` and the
script passes it to ``shell.told("Branched.", line)``, which shows it with a button that copies it. `Widget.line` writes
it: quoted, and with the store named where that is not the one in use.

**Left when the kernel is gone.** JupyterLab saves no widget state by default; a trusted notebook that is opened again
says "Error displaying widget: model not found", even where the same output has HTML beside the widget. So a widget
puts out *two* outputs: first a still, plain HTML of what was last seen (`still`, written by `kern_nb.text`), then
the widget. The style of the still (`kern_nb.text.fallback`) hides it while a live widget follows, and hides what
follows while that is not live, with whatever its host says about it. Live means that the kernel has answered: a
notebook that was executed elsewhere, whose widgets are restored from saved state without a kernel, shows its still,
too. The script calls ``shell.seen()`` whenever the view has changed; a moment later the kernel renews the still in
place (same display id), so that the notebook holds it when it is saved. A notebook that is not trusted loses the
style and never shows the widget: there, in nbconvert's HTML and on GitHub, the still stands alone, as the second
output says nothing in HTML. What is done after the page was loaded again in the same kernel does not reach the still,
until the cell is run again: JupyterLab forgets display ids with the page, a message without one belongs to no output,
and a script is given its element and its model, not the notebook.
"""

from __future__ import annotations

import json
import shlex
import threading
from abc import abstractmethod
from collections.abc import Sequence
from contextvars import copy_context
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

import anywidget
from IPython.display import display, update_display

from kern_nb import store_registry
from kern_nb.errors import BadUsage, NoStore
from kern_nb.text import fallback, formatting
from kern_nb.widgets.rpc import call, calls_of, told

if TYPE_CHECKING:
    from kern_nb.db import SessionStore

_STATIC = Path(__file__).parent / "static"
_VIEW = "application/vnd.jupyter.widget-view+json"


@cache
def _text(name: str) -> str:
    return (_STATIC / name).read_text(encoding="utf-8")


class Widget(anywidget.AnyWidget):
    """A widget over a store. Subclasses name their script: ``class Inbox(Widget, script="inbox")``.

    Args:
        store: A store or the name of one; the one in use where None.

    Attributes:
        store: The store it shows.
        last_error: What a call raised last; None where all went well.
    """

    _calls: ClassVar[dict[str, bool]] = {}

    def __init_subclass__(cls, *, script: str = "", parts: Sequence[str] = (), **kwargs: Any) -> None:
        """Join the script with what it uses, and find the calls."""
        super().__init_subclass__(**kwargs)
        cls._calls = calls_of(cls)
        if script:
            names = ("kern", *parts, script)
            cls._esm = "\n".join(_text(f"{name}.js") for name in names)
            cls._css = "\n".join(_text(f"{name}.css") for name in names if (_STATIC / f"{name}.css").exists())

    def __init__(self, store: str | SessionStore | None = None) -> None:
        self.store = store_registry.find(store)
        self.last_error: BaseException | None = None
        self._still_id = f"kern-{uuid4()}"
        self._stands = False
        self._caller = copy_context()
        super().__init__()
        self.on_msg(self._answer)

    # What subclasses say ----------------------------------------------------------------------------------------------

    @abstractmethod
    def still(self) -> str:
        """What is seen now, as plain HTML by `kern_nb.text`: for a saved notebook, which has no kernel."""

    @abstractmethod
    def __repr__(self) -> str:
        """What is seen now, in a line."""

    # Calls ------------------------------------------------------------------------------------------------------------

    def _answer(self, _widget: object, content: Any, _buffers: object) -> None:
        """Run the call that a message asks for and send what comes of it; never raises, since nobody would see it."""
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
            answer["value"] = self._called(content.get("call"), content.get("args"))
            json.dumps(answer, allow_nan=False, ensure_ascii=False).encode()  # what cannot be sent fails here
        except Exception as error:  # noqa: BLE001 - shown in the widget, whatever it is
            self.last_error = error
            answer = {"id": content["id"], "error": told(error)}
        self.send(answer)

    def tell(self, content: dict[str, Any]) -> None:
        """Send the script something that it did not ask for, from any thread.

        It is sent as an answer to the latest call would be: the kernel expects further calls wherever what it sent last
        came from, and that has to be the thread that is free while a cell runs.
        """
        self._caller.copy().run(self.send, content)

    def _called(self, name: object, args: object) -> Any:
        if not isinstance(name, str) or name not in self._calls:
            raise BadUsage(f"{name!r} is no call of this widget.", f"There are {', '.join(self._calls)}.")
        if not isinstance(args, dict):
            raise BadUsage(f"The arguments of {name} are no object.", "Run the cell again.")
        return getattr(self, name)(**args)

    @call
    def attach_again(self) -> str:
        """Let go of the store and open it anew: its server may have come back, its file been put in its place."""
        self.store.reopen()
        self.last_error = None
        return f"%kern use {line_of(store_registry.name_of(self.store))}"

    @call
    def keep_still(self) -> None:
        """Renew the still that stands in the notebook."""
        if self._stands:
            update_display(self._still_output(), raw=True, display_id=self._still_id)  # type: ignore[no-untyped-call]

    @property
    def is_in_use(self) -> bool:
        """Whether its store is the one that lines mean where they name none."""
        try:
            return store_registry.current_store() is self.store
        except NoStore:
            return False

    def line(self, verb: str, *words: str) -> str:
        """The magic that does the same; it names the store where that is not the one in use."""
        named = () if self.is_in_use else ("--store", store_registry.name_of(self.store))
        return formatting.escape_controls(f"%kern {line_of(verb, *words, *named)}").replace("\n", "␤")

    # In a cell --------------------------------------------------------------------------------------------------------

    def _ipython_display_(self, **_: Any) -> None:
        """Two outputs, of which one is shown; the module says why."""
        display(self._still_output(), raw=True, display_id=self._still_id)  # type: ignore[no-untyped-call]
        self._stands = True
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        display({"text/plain": "", "text/html": "", _VIEW: view}, raw=True)  # type: ignore[no-untyped-call]

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """One output, for hosts that ask for it."""
        bundle: Any = super()._repr_mimebundle_(**kwargs)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        return {**(data or {}), **self._still_output()}

    def _still_output(self) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": fallback.fallback_html(self.still())}


def key_of(identity: str) -> str:
    """An id as a script passes it around: ASCII, whatever it holds."""
    return json.dumps(identity)


def id_of(key: str) -> str:
    """The id of a key.

    Raises:
        BadUsage: the text is no key.
    """
    try:
        identity = json.loads(key)
    except ValueError:
        identity = None
    if not isinstance(identity, str):
        raise BadUsage(f"{key!r} is no key of a session.", "Run the cell again.")
    return identity


def line_of(*words: str) -> str:
    """Words as they stand in a magic's line, quoted where they need it."""
    return " ".join(shlex.quote(word) if word else "''" for word in words)

"""Running a script on Agno and on kern_nb, and where the two differ."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from recording import Recorder

SCRIPTS = Path(__file__).parent / "scripts"
_IMPORT = re.compile(r"^(\s*(?:from|import)\s+)agno\b", re.MULTILINE)


class Difference(NamedTuple):
    """Where a script's records differ, such as ``leader request 2: system``, and both values."""

    at: str
    theirs: Any
    ours: Any


@contextmanager
def _process_state(folder: Path, module: ModuleType) -> Iterator[None]:
    """The script's folder, and its `parity_model`."""
    before = Path.cwd()
    os.chdir(folder)
    sys.modules["parity_model"] = module
    try:
        yield
    finally:
        del sys.modules["parity_model"]
        os.chdir(before)


def run_script(
    path: Path, folder: Path, parity_model: Callable[[Recorder], ModuleType], package: str = "agno"
) -> Recorder:
    """Run a script in a new folder, with the imports of Agno read as those of ``package``."""
    folder.mkdir()
    recorder = Recorder()
    source = _IMPORT.sub(rf"\g<1>{package}", path.read_text(encoding="utf-8"))
    with _process_state(folder, parity_model(recorder)):
        exec(compile(source, str(path), "exec", dont_inherit=True), {"__name__": "__main__"})
    return recorder


def differences(theirs: Recorder, ours: Recorder) -> list[Difference]:
    """Where the two differ: requests by model, then what was shown."""
    result: list[Difference] = []
    for model in {**theirs.requests, **ours.requests}:
        pairs = zip_longest(theirs.requests.get(model, []), ours.requests.get(model, []))
        for index, (their_request, our_request) in enumerate(pairs):
            result += _request_differences(f"{model} request {index + 1}", their_request, our_request)
    for index, (their_value, our_value) in enumerate(zip_longest(theirs.shown, ours.shown)):
        if their_value != our_value:
            label = (their_value or our_value)[0]
            n_before = [label for label, _ in theirs.shown[:index]].count(label)
            result.append(Difference(f"{label}{f' ({n_before + 1})' if n_before else ''}", their_value, our_value))
    return result


def _request_differences(at: str, theirs: dict[str, Any] | None, ours: dict[str, Any] | None) -> list[Difference]:
    if theirs is None or ours is None:
        return [Difference(at, theirs, ours)]
    parts: dict[str, tuple[list[Any], list[Any]]] = {"tools": (theirs["tools"], ours["tools"])}
    for part, is_part in (("system", _is_system), ("messages", lambda message: not _is_system(message))):
        both = [
            [_without_blank_lines(message) for message in request["messages"] if is_part(message)]
            for request in (theirs, ours)
        ]
        parts[part] = (both[0], both[1])
    return [Difference(f"{at}: {part}", a, b) for part, (a, b) in parts.items() if a != b]


def _without_blank_lines(message: dict[str, Any]) -> dict[str, Any]:
    """The message; libraries part texts with one blank line or with two."""
    content = message["content"]
    return message | {"content": re.sub(r"\n{2,}", "\n\n", content).strip() if isinstance(content, str) else content}


def _is_system(message: dict[str, Any]) -> bool:
    return bool(message["role"] == "system")

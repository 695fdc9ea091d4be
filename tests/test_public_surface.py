"""The public surface does not change by accident: names, signatures, fields, frame columns, verbs and options.

`tests/public_surface.txt` is the committed snapshot. After an intended change, renew it with
`KERN_SURFACE=renew pytest tests/test_public_surface.py` and review the difference.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import os
import pkgutil
import re
from pathlib import Path

import kern_nb

SNAPSHOT = Path(__file__).with_name("public_surface.txt")
MAGICS_PAGE = Path(__file__).parents[1] / "docs" / "magics.md"
ENGINES = ("DuckDb", "InMemoryDb", "PostgresDb", "SqliteDb")
# Classes that users hold without constructing them.
RESULTS = (
    "AttachedStore",
    "CheckReport",
    "Comparison",
    "Digest",
    "GroupComparison",
    "IngestReport",
    "Inbox",
    "Rerun",
    "SessionTable",
    "StoreTable",
    "Transcript",
)


def describe_signature(function):
    """Return the parameters with their kinds and defaults; mypy checks the types."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return "(...)"
    parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    text = str(signature.replace(parameters=parameters, return_annotation=signature.empty))
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def describe_class(cls, *, inherited_from=object):
    """List the constructor, fields, public methods and properties that come from this package."""
    lines = []
    fields = {}
    if hasattr(cls, "model_fields"):
        fields = {name: "" if field.is_required() else " = ..." for name, field in cls.model_fields.items()}
    elif dataclasses.is_dataclass(cls):
        fields = {field.name: "" for field in dataclasses.fields(cls)}
    lines += [f"  {name}{default}" for name, default in fields.items()]
    own = {
        name: vars(owner)[name]
        for owner in reversed(cls.__mro__)
        if owner.__module__.partition(".")[0] == "kern_nb"
        for name in vars(owner)
    }
    for name, member in sorted(own.items()):
        is_constructor = name == "__init__" and not fields
        if (name.startswith("_") and not is_constructor) or name in fields or name == "model_config":
            continue
        if vars(inherited_from).get(name) is member or getattr(inherited_from, name, None) is getattr(cls, name, 0):
            continue
        target = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        kind = f"{type(member).__name__} " if target is not member else ""
        if inspect.iscoroutinefunction(target):
            kind += "async "
        lines.append(f"  {kind}{name}{describe_signature(target)}" if callable(target) else f"  {name}")
    return lines


def package_classes():
    """Return the classes that the modules of the package define, by name."""
    classes = {}
    for info in pkgutil.walk_packages(kern_nb.__path__, "kern_nb."):
        try:
            module = importlib.import_module(info.name)
        except ImportError:
            if info.name.startswith("kern_nb.bridges."):  # its extra is not installed
                continue
            raise
        for name, value in vars(module).items():
            if inspect.isclass(value) and value.__module__ == info.name:
                classes.setdefault(name, []).append(value)
    return classes


def describe_surface():
    """Return the public surface as lines of text."""
    lines = []
    for name in kern_nb.__all__:
        value = getattr(kern_nb, name)
        if inspect.isclass(value):
            base = kern_nb.SessionStore if name in ENGINES else object
            lines += [f"class {name}", *describe_class(value, inherited_from=base), ""]
        else:
            prefix = "async def" if inspect.iscoroutinefunction(value) else "def"
            lines += [f"{prefix} {name}{describe_signature(value)}", ""]
    classes = package_classes()
    for name in RESULTS:
        (cls,) = (cls for cls in classes[name] if not getattr(cls, "_is_protocol", False))
        lines += [f"result {name}", *describe_class(cls), ""]
    from kern_nb.db.columns import DTYPES, FRAMES

    for name, columns in FRAMES.items():
        lines += [f"frame {name}", *(f"  {c.name} {DTYPES[c.kind]}" for c in columns), ""]
    # The generated page is current (test_docs.py), wherever the verbs are defined.
    page = MAGICS_PAGE.read_text(encoding="utf-8")
    lines += [
        "magics",
        *(f"  {usage}" for usage in re.findall(r"^```\n(%.*)\n```\n\n(?!In Python)", page, re.MULTILINE)),
    ]
    return lines


def test_public_surface_matches_the_snapshot():
    """A changed, new or removed public name shows as a difference here."""
    actual = describe_surface()
    if os.environ.get("KERN_SURFACE") == "renew":
        SNAPSHOT.write_text("\n".join(actual) + "\n", encoding="utf-8")
    expected = SNAPSHOT.read_text(encoding="utf-8").splitlines()

    assert list(difflib.unified_diff(expected, actual, "snapshot", "code", lineterm="", n=1)) == []


def test_public_names_are_sorted():
    """The list of public names is sorted, and each of them resolves."""
    assert sorted(kern_nb.__all__) == kern_nb.__all__
    assert all(getattr(kern_nb, name) is not None for name in kern_nb.__all__)

"""Loading the extension: without heavy imports, silent, repeatable, and undone by unloading it."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = ("pandas", "numpy", "sqlalchemy", "duckdb", "pydantic", "pyarrow", "ipywidgets")

FRESH = f"""
import json, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell()
shell.run_line_magic("load_ext", "kern_nb")
import kern_nb
print(json.dumps([[name for name in {HEAVY} if name in sys.modules], dir(kern_nb)]))
"""


def fresh() -> tuple[list[str], list[str]]:
    """Load it in a new interpreter: the heavy modules that came with it, and the public names."""
    out = subprocess.run([sys.executable, "-c", FRESH], stdout=subprocess.PIPE, check=True, text=True).stdout
    return tuple(json.loads(out.splitlines()[-1]))


def test_loading_imports_nothing_heavy():
    """`%load_ext kern_nb` imports no database, DataFrame or model library; `benchmarks/load_extension.py` measures it."""
    assert fresh()[0] == []


def test_the_package_itself_imports_nothing_heavy():
    """`import kern_nb` is free too, outside of IPython."""
    code = f"import sys, kern_nb; print([n for n in {(*HEAVY, 'IPython')} if n in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, text=True).stdout

    assert out.strip() == "[]"


def test_loading_prints_nothing(plain_notebook):
    """Silent on load."""
    assert plain_notebook.printed("%load_ext kern_nb") == ""


def test_every_public_name_is_importable_and_listed():
    """Each name of `__all__`, which is sorted, can be had, and `dir` shows it before it is imported."""
    import kern_nb

    assert kern_nb.__all__ == sorted(kern_nb.__all__, key=lambda name: (name.islower(), name))
    for name in kern_nb.__all__:
        assert getattr(kern_nb, name) is not None
        assert name in dir(kern_nb)


def matchers(notebook):
    return [item for item in notebook.shell.Completer.custom_matchers if "kern_nb" in str(item.__module__)]


def transformers(notebook):
    return [item for item in notebook.shell.input_transformers_cleanup if "kern_nb" in str(item.__module__)]


def test_unloading_removes_everything(plain_notebook):
    """After `%unload_ext` no magic, no matcher and no input transformer is left."""
    before = {kind: set(names) for kind, names in plain_notebook.shell.magics_manager.magics.items()}
    plain_notebook.run("%load_ext kern_nb")
    assert matchers(plain_notebook)
    assert transformers(plain_notebook)

    plain_notebook.run("%unload_ext kern_nb")

    assert {kind: set(names) for kind, names in plain_notebook.shell.magics_manager.magics.items()} == before
    assert matchers(plain_notebook) == []
    assert transformers(plain_notebook) == []


def test_reloading_keeps_the_stores_and_registers_once(notebook):
    """`%reload_ext` and a second load leave one of everything; attached stores stay attached."""
    import kern_nb

    notebook.run("%kern attach :memory: --as m")

    notebook.run("%reload_ext kern_nb")
    kern_nb.load_ipython_extension(notebook.shell)

    assert len(matchers(notebook)) == 1
    assert len(transformers(notebook)) == 1
    assert [store.name for store in notebook.run("%kern stores")] == ["m"]


def test_the_magics_have_help(notebook):
    """`%kern?` shows the verbs, `%kern` and `%kern help` print them, and each verb explains itself."""
    overview = notebook.shell.object_inspect("%kern")["docstring"]

    assert "%kern attach" in overview
    assert "%kern attach" in notebook.printed("%kern")
    assert notebook.printed("%kern") == notebook.printed("%kern help") == notebook.printed("%kern --help")
    for cell in ("%kern attach --help", "%kern attach -h", "%kern help attach"):
        assert "Usage: %kern attach TARGET [--as NAME]" in notebook.printed(cell)
    assert "Usage: %%kern_sql" in notebook.printed("%kern_sql --help")

"""Every public name has an example in its docstring, and each example prints what it shows."""

from __future__ import annotations

import doctest
import importlib
import inspect

import pytest

import kern_nb

# Modules with public names of packages such as `kern_nb.workflow`, or with methods that public classes inherit.
MODULES = (
    "agent.runs", "db.async_stores", "db.database", "db.store_branches", "db.store_requirements", "db.store_run_deletes",
    "db.store_run_reads", "db.store_runs", "media", "models.anthropic", "models.cohere", "models.deepseek", "models.google",
    "models.groq", "models.mistral", "models.ollama", "models.openrouter", "models.xai", "run.base",
    "runtime.async_methods", "runtime.toolkits", "runtime.tools", "runtime.workflow_node", "runtime.workflow_nodes",
    "runtime.workflow_types",
    "workflow.decorators",
)  # fmt: skip

FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.fixture(autouse=True)
def detached_stores(tmp_path, monkeypatch):
    """An empty working directory; stores that an example attaches are detached after it."""
    monkeypatch.chdir(tmp_path)
    yield
    for name in kern_nb.stores().df["name"]:
        kern_nb.detach(name)


def find_examples(name):
    """Return the doctests of a public name and, for a class, of its methods."""
    value = getattr(kern_nb, name)
    public = {public_name: getattr(kern_nb, public_name) for public_name in kern_nb.__all__}
    namespace = {**vars(inspect.getmodule(value)), **public, "kern_nb": kern_nb}
    tests = doctest.DocTestFinder(recurse=inspect.isclass(value)).find(value, name, globs=namespace)
    return [test for test in tests if test.examples]


@pytest.mark.parametrize("name", kern_nb.__all__)
def test_the_examples_of_a_public_name_run(name):
    """The docstring has an example; run as a doctest, it gives the output that is written there."""
    tests = find_examples(name)
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    output: list[str] = []
    for test in tests:
        runner.run(test, out=output.append)

    assert name in [test.name for test in tests], f"the docstring of {name} has no example"
    assert output == []


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name):
    """As above, for everything in it."""
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    output: list[str] = []
    for test in doctest.DocTestFinder().find(importlib.import_module(f"kern_nb.{name}")):
        runner.run(test, out=output.append)

    assert runner.tries > 0, f"the docstrings of kern_nb.{name} have no example"
    assert output == []

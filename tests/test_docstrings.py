"""Docstrings of public functions name the errors that they raise. (That there are docstrings is ruff's business.)"""

import ast
from pathlib import Path

import pytest

import hierarchical_lvae

PACKAGE = Path(hierarchical_lvae.__file__).parent
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if "cli" not in path.relative_to(PACKAGE).parts]


def public_functions(body, owner=""):
    """(function, its docstring, that of its class) of all that has no underscore in front, and of `__call__`."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body, ast.get_docstring(node) or "")
        elif any(isinstance(decorator, ast.Attribute) for decorator in getattr(node, "decorator_list", ())):
            continue  # a setter: its getter says it
        elif isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name == "__call__"):
            yield node, ast.get_docstring(node) or "", owner


def raises(function):
    """Whether it raises an error of its own; an AssertionError is for what cannot happen."""
    found = [node for node in ast.walk(function) if isinstance(node, ast.Raise) and node.exc]
    return any("AssertionError" not in ast.unparse(node) for node in found)


def faults(source):
    for function, own, owner in public_functions(ast.parse(source).body):
        if raises(function) and "Raises:" not in own + owner and "raises" not in own:
            yield f"line {function.lineno}: {function.name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_errors_are_named(path):
    assert list(faults(path.read_text())) == []


def test_what_is_missing_is_seen():
    function = "def f(x):\n    '''Refuse.'''\n    raise ValueError(x)\n"
    assert len(list(faults(function))) == 1
    assert list(faults(function.replace("Refuse.", "Refuse; raises ValueError."))) == []
    assert list(faults(function.replace("f(", "_f("))) == []

"""Docstrings of public functions tell what CONTRIBUTING asks for: the shapes of arrays, and the errors.

(That there *are* docstrings is ruff's business.) A shape is a tuple of sizes such as (B, K, D), or "any shape", or the
`shape` that is given, or "scalar"; it may stand in the class's docstring if that holds for its methods.
"""

import ast
import re
from pathlib import Path
from textwrap import indent

import pytest

import hierarchical_lvae

PACKAGE = Path(hierarchical_lvae.__file__).parent
ARRAY = re.compile(r"\b(Tensor|ndarray|NDArray|ArrayLike)\b")
SIZE = re.compile(r"\.\.\.|…|\d+|\*\w+|[A-Za-zθ]['′]?|rows")
TOKEN = re.compile(rf"{SIZE.pattern}|\*?\(?[\w.]+( (//|·|-|\+) [\w.]+)?\)?")
IN_WORDS = re.compile(r"any shapes?\b|this shape|`shape`|scalar|\(\.\.\.\)")


def tells_a_shape(text):
    nested = re.findall(r"\(((?:[^()]|\([^()]*\))*)\)", text)
    for inside in [*nested, *re.findall(r"\(([^()]*)\)", text)]:
        if "," not in inside:
            continue
        sizes = [size for size in re.split(r",\s*", inside) if size]
        if all(map(TOKEN.fullmatch, sizes)) and any(map(SIZE.fullmatch, sizes)):
            return True
    return bool(IN_WORDS.search(text))


def public_functions(body, owner=""):
    """(function, its docstring, that of its class) of all that has no underscore in front, and of `__call__`."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body, ast.get_docstring(node) or "")
        elif any(isinstance(decorator, ast.Attribute) for decorator in getattr(node, "decorator_list", ())):
            continue  # a setter: its getter tells
        elif isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name == "__call__"):
            yield node, ast.get_docstring(node) or "", owner


def takes_or_gives_arrays(function):
    arguments = function.args.args + function.args.kwonlyargs
    annotations = [a.annotation for a in arguments] + [function.returns]
    return any(annotation and ARRAY.search(ast.unparse(annotation)) for annotation in annotations)


def raises(function):
    """Whether it raises an error of its own; an AssertionError is for what cannot happen."""
    found = [node for node in ast.walk(function) if isinstance(node, ast.Raise) and node.exc]
    return any("AssertionError" not in ast.unparse(node) for node in found)


def faults(source):
    for function, own, owner in public_functions(ast.parse(source).body):
        if takes_or_gives_arrays(function) and not tells_a_shape(own) and not tells_a_shape(owner):
            yield f"line {function.lineno}: {function.name} tells no shape"
        if raises(function) and "Raises:" not in own + owner and "raises" not in own:
            yield f"line {function.lineno}: {function.name} does not tell what it raises"


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if "cli" not in path.relative_to(PACKAGE).parts]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_shapes_and_errors_are_told(path):
    assert list(faults(path.read_text())) == []


@pytest.mark.parametrize(
    "text",
    ["(B, K, D)", "(B,)", "(..., P)", "(n, C, H, W) uint8", "(h, w)", "(rows, …)", "(K, G, *in)", "of any shape",
     "(stop - start, F)", "(K, G, H // 2, W)", "(B, 1, P)", "a scalar", "(3, size, size)", "(a pair (B, K), and b)",
     "the density: (...)."],
)  # fmt: skip
def test_a_shape_is_seen(text):
    assert tells_a_shape(text)


@pytest.mark.parametrize(
    "text", ["(Loaiza-Ganem and Cunningham, 2019)", "(one, two)", "(B)", "in shape", "(if there is one, else none)"]
)
def test_other_brackets_are_no_shapes(text):
    assert not tells_a_shape(text)


def test_what_is_missing_is_seen():
    sums = "def f(x: Tensor) -> int:\n    '''Sum.'''\n    raise ValueError(x)\n"
    assert len(list(faults(sums))) == 2
    assert len(list(faults(sums.replace("Sum", "Sum of (B, K)")))) == 1
    assert len(list(faults(f"class C:\n    '''Of (B, K).'''\n\n{indent(sums, '    ')}"))) == 1
    assert list(faults(sums.replace("f(", "_f("))) == []

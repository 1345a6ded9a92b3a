"""How the site is built, without scripts, fonts or packages from the network.

- LaTeX becomes MathML, which browsers render by themselves.
- The doctests of docstrings become code blocks.
- The notebooks become pages, with the outputs saved in them; nothing is executed.
- `<!-- source: FILE FUNCTION -->` is replaced by the source of that function.
"""

import ast
import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
MATH = re.compile(r'(<(?:span|div) class="arithmatex">)(?:\\\(|\\\[)(.*?)(?:\\\)|\\\])(</(?:span|div)>)', re.DOTALL)
INLINE = re.compile(r"\\\((.*?)\\\)")
FUNCTION = re.compile(r"(<mi>(?:log|exp)</mi>)(?=<m(?!space|o\b))")
BEFORE_FUNCTION = re.compile(r"(</m(?:sub|frac)>|<mo[^>]*>&#x00029;</mo>)(?=<mi>(?:log|exp)</mi>)")
TAG = re.compile(r"\\tag\{(.*?)\}")
DOCTEST = re.compile(r"(?:^>>> .*\n?)(?:^(?!\s*$).*\n?)*(?:\n*^>>> .*\n?(?:^(?!\s*$).*\n?)*)*", re.MULTILINE)
SOURCE = re.compile(r"<!-- source: (\S+) (\w+) -->")
NOTEBOOK_LINK = re.compile(r"\]\((?:\.\./)+notebooks/(\w+)\.ipynb")
DISPLAY = re.compile(r"[ \t]*(\$\$.+?\$\$)[ \t]*", re.DOTALL)
STYLE = re.compile(r"<style.*?</style>|^\s*\n", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """MkDocs' hook: add a page for each notebook, and its figures."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        figures: dict[str, bytes] = {}
        text = "\n\n".join(_cells(json.loads(path.read_text(encoding="utf-8")), path.stem, figures))
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        for name, content in figures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """MkDocs' hook: quote functions, and link to the pages of notebooks in place of their files."""
    up = "../" * page.file.src_uri.count("/")
    markdown = NOTEBOOK_LINK.sub(rf"]({up}notebooks/\1.md", markdown)
    return SOURCE.sub(lambda match: f"```python\n{_source(match[1], match[2])}\n```", markdown)


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """MkDocs' hook: convert what `pymdownx.arithmatex` has marked; a `\\tag` becomes the number of the equation."""

    def as_mathml(match: re.Match[str]) -> str:
        opening, latex, closing = match.groups()
        latex = html.unescape(latex)
        number = "".join(f'<span class="equation-number">({tag})</span>' for tag in TAG.findall(latex))
        return (
            opening
            + _mathml(TAG.sub("", latex), "block" if opening.startswith("<div") else "inline")
            + number
            + closing
        )

    for heading in _headings(page.toc):
        heading.title = INLINE.sub(lambda match: _mathml(html.unescape(match[1])), heading.title)
    return MATH.sub(as_mathml, content)


def _headings(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        yield item
        yield from _headings(item.children)


def _mathml(latex: str, display: str = "inline") -> str:
    """Convert LaTeX, with the space that TeX puts around a function's name and `\\sim`."""
    result = convert(latex, display=display).replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>")
    for place in (FUNCTION, BEFORE_FUNCTION):
        result = place.sub(r'\1<mspace width="0.167em" />', result)
    return result


def _source(path: str, function: str) -> str:
    text = (ROOT / path).read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return "\n".join(text.splitlines()[node.lineno - 1 : node.end_lineno])
    raise ValueError(f"{path} has no function {function}, which a page quotes")


def _cells(notebook: dict[str, Any], name: str, figures: dict[str, bytes]) -> Iterator[str]:
    """Markdown of each cell and of its outputs; figures are added to `figures`."""
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield DISPLAY.sub(r"\n\n\1\n\n", text)
        elif text.strip():
            yield f"```python\n{text}\n```"
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                file = f"{name}-{len(figures) + 1}.png"
                figures[file] = base64.b64decode("".join(data["image/png"]))
                yield f"![Output of the cell above]({file})"
            elif "text/html" in data:
                table = STYLE.sub("", "".join(data["text/html"])).replace(' border="1" class="dataframe"', "")
                yield f'<div class="notebook-output">\n{table}\n</div>'
            else:
                printed = "".join(output.get("text", data.get("text/plain", ())))
                yield f"```text\n{printed.rstrip()}\n```"


class FencedDoctests(griffe.Extension):
    """Put the doctests of docstrings into code blocks: to Markdown, `>>>` is a quotation."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Griffe's hook, for each object as it is read."""
        if obj.docstring:
            obj.docstring.value = DOCTEST.sub(lambda m: f"```pycon\n{m[0].rstrip()}\n```\n\n", obj.docstring.value)

"""How the pages are made: LaTeX becomes MathML, which browsers show without scripts or fonts; doctests become code."""

import html
import re
from typing import Any

import griffe
from latex2mathml.converter import convert

MATH = re.compile(r'(<(?:span|div) class="arithmatex">)(?:\\\(|\\\[)(.*?)(?:\\\)|\\\])(</(?:span|div)>)', re.DOTALL)
DOCTEST = re.compile(r"(?:^>>> .*\n?)(?:^(?!\s*$).*\n?)*(?:\n*^>>> .*\n?(?:^(?!\s*$).*\n?)*)*", re.MULTILINE)


def on_page_content(content: str, **_: Any) -> str:
    """MkDocs' hook: convert what `pymdownx.arithmatex` has marked."""

    def as_mathml(match: re.Match[str]) -> str:
        opening, latex, closing = match.groups()
        display = "block" if opening.startswith("<div") else "inline"
        return opening + convert(html.unescape(latex), display=display) + closing

    return MATH.sub(as_mathml, content)


class FencedDoctests(griffe.Extension):
    """Put the doctests of docstrings into code blocks: to Markdown, `>>>` is a quotation."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Griffe's hook, for each object as it is read."""
        if obj.docstring:
            obj.docstring.value = DOCTEST.sub(lambda m: f"```pycon\n{m[0].rstrip()}\n```\n\n", obj.docstring.value)

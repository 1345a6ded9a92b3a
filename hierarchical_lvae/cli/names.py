"""Options whose values are keys of a table of names."""

from collections.abc import Iterable
from typing import Any

import click

from hierarchical_lvae.types import nearest


class Name(click.Choice):
    """A key of a table; an unknown one is answered with the nearest."""

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """List the keys on one line."""
        return f"There are {', '.join(self.choices)}."

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value if it is a key."""
        if value not in self.choices:
            self.fail(f"{value!r} is unknown: {nearest(value, self.choices)}", param, ctx)
        return value


class Names(click.ParamType):
    """Keys of a table, with commas between them; an unknown one is answered with the nearest."""

    name = "NAME,…"

    def __init__(self, known: Iterable[str]) -> None:
        self.known = tuple(known)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Split, and drop repetitions."""
        names = tuple(dict.fromkeys(value.split(","))) if isinstance(value, str) else value
        for name in names:
            if name not in self.known:
                self.fail(f"{name!r} is unknown: {nearest(name, self.known)}", param, ctx)
        return names

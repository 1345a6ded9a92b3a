"""Options whose values are keys of a table of names."""

import difflib
from collections.abc import Iterable

import click


def nearest(name: str, names: Iterable[str]) -> str:
    """Suggest the nearest of `names`, or list them.

    >>> nearest("one-stop", ["shared", "one-step"])
    ": did you mean 'one-step'?"
    """
    near = difflib.get_close_matches(name, list(names), n=1)
    return f": did you mean {near[0]!r}?" if near else f": there are {', '.join(names)}"


class Name(click.Choice):
    """A key of a table; an unknown one is answered with the nearest."""

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """List the keys on one line."""
        return f"There are {', '.join(self.choices)}."

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value if it is a key."""
        if value not in self.choices:
            self.fail(f"{value!r} is unknown{nearest(value, self.choices)}", param, ctx)
        return value

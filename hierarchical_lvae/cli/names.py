"""Options whose values are keys of a table of names."""

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

"""Failures that do not stop a command: it does the rest, prints it, and then exits with code 1 and one line."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import click

from hierarchical_lvae.types import reason

log = logging.getLogger(__name__)


class Failures:
    """What has failed so far in a command, and why."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        """By reason."""
        if click.get_current_context().find_root().params.get("debug"):
            logging.getLogger("hierarchical_lvae").setLevel(logging.DEBUG)  # shows the tracebacks

    def add(self, name: str, why: str) -> None:
        """Note that something failed."""
        self.names.setdefault(why, []).append(name)

    @contextmanager
    def of(self, name: str, writes: bool = False) -> Iterator[None]:
        """Note what fails inside; if it `writes` results that are printed too, a read-only place is only a warning."""
        from hierarchical_lvae.analysis import is_read_only

        try:
            yield
        except BrokenPipeError:
            raise  # of the reader of our output, who has gone
        except Exception as error:
            log.debug("%s failed", name, exc_info=True)
            if writes and is_read_only(error):
                log.warning("%s", error)
            else:
                self.add(name, reason(error))

    def end(self) -> None:
        """End the command.

        Raises:
            ClickException: something has failed.
        """
        if self.names:
            raise click.ClickException(
                "; ".join(
                    why if len(names) == 1 and names[0] in why else f"{', '.join(names)}: {why}"
                    for why, names in self.names.items()
                )
            )

"""How failures are worded, and those that do not stop a command: it does the rest, and then exits with code 1."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import click

from hierarchical_lvae.types import reason

log = logging.getLogger(__name__)


def in_flags(text: str) -> str:
    """Name arguments, which the library writes in backticks, as options: `data_dir` becomes --data-dir."""
    context = click.get_current_context(silent=True)
    flags = dict(_flags(context.find_root().command)) if context else {}
    return re.sub(r"`(\w+)`", lambda name: flags.get(name[1], name[0]), text)


def _flags(command: click.Command) -> Iterator[tuple[str | None, str]]:
    yield from ((param.name, param.opts[0]) for param in command.params)
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        yield from _flags(inner)


class InFlags(logging.Formatter):
    """Lines of the log, for the command line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return in_flags(super().format(record))


class Failures:
    """What has failed so far in a command, and why."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        """By reason."""
        if click.get_current_context().find_root().params.get("debug"):
            logging.getLogger("hierarchical_lvae").setLevel(logging.DEBUG)  # shows the tracebacks

    def add(self, name: str, why: str) -> None:
        """Note that something failed."""
        self.names.setdefault(in_flags(why), []).append(name)

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

"""The wording of failures, and failures that do not stop a command: it finishes the rest and exits with code 1."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import click

from hierarchical_lvae.types import reason

log = logging.getLogger(__name__)


def in_flags(text: str) -> str:
    """Rewrite arguments, which the library puts in backticks, as options: `data_dir` becomes --data-dir."""
    context = click.get_current_context(silent=True)
    flags = dict(_flags(context.find_root().command)) if context else {}
    return re.sub(r"`(\w+)`", lambda name: flags.get(name[1], name[0]), text)


def _flags(command: click.Command) -> Iterator[tuple[str | None, str]]:
    yield from ((param.name, param.opts[0]) for param in command.params)
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        yield from _flags(inner)


class InFlags(logging.Formatter):
    """Formats log records for the command line: arguments are named as options."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        return in_flags(super().format(record))


class Failures:
    """What has failed so far in a command, and why."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        """The names of what failed, by reason."""
        if click.get_current_context().find_root().params.get("debug"):
            logging.getLogger("hierarchical_lvae").setLevel(logging.DEBUG)  # shows the tracebacks

    def add(self, name: str, why: str) -> None:
        """Record a failure."""
        self.names.setdefault(in_flags(why), []).append(name)

    @contextmanager
    def of(self, name: str, writes: bool = False) -> Iterator[None]:
        """Record what fails inside. If it `writes` what is also printed, a read-only place is only a warning."""
        from hierarchical_lvae.analysis import is_read_only

        try:
            yield
        except BrokenPipeError:
            raise  # the reader of our output has closed the pipe
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

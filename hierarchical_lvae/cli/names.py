"""Option types: names, with the nearest one suggested for a typo, and numbers and paths with limits."""

import math
from collections.abc import Callable, Iterable
from inspect import signature
from pathlib import Path
from typing import Any, get_args

import click

from hierarchical_lvae.analysis import ScoreSettings
from hierarchical_lvae.data import DATASETS
from hierarchical_lvae.data.paths import OWN_DATA, is_path
from hierarchical_lvae.runs.options import COUNTS, SEEDS
from hierarchical_lvae.types import separated, suggestion


class Suggesting(click.Group):
    """A command group that suggests the nearest command for an unknown one."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command, or suggest the nearest."""
        if args[0] not in self.commands and not args[0].startswith("-"):
            ctx.fail(f"no command is called {args[0]!r}: {suggestion(args[0], self.commands)}")
        return super().resolve_command(ctx, args)


class Name(click.Choice):
    """A key of a table; the nearest one is suggested for an unknown key."""

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """List the keys on one line."""
        return f"Choose from {', '.join(self.choices)}."

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value if it is a key."""
        if value not in self.choices:
            self.fail(f"{value!r} is unknown: {suggestion(value, self.choices)}", param, ctx)
        return value


class NameOrPath(Name):
    """A key of a table of data sets, or the path of the user's own data, which need not exist yet."""

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Show both forms."""
        return "NAME|PATH"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value if it is a key; make a path absolute, for a later --resume."""
        if value in self.choices:
            return value
        if not is_path(value):
            self.fail(f"{value!r} is unknown: {suggestion(value, self.choices)} (or give {OWN_DATA})", param, ctx)
        return str(Path(value).absolute())


class NeighbourhoodName(Name):
    """A key of the table of neighbourhoods, followed by a colon and an argument if it takes one."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value if its name is a key; make a file's path absolute, for a later --resume."""
        name, colon, argument = value.partition(":")
        super().convert(name, param, ctx)
        return name + colon + (str(Path(argument).absolute()) if name == "graph" and argument else argument)


class PenaltyName(Name):
    """A key of the table of penalties, followed by a colon and a weight unless the default applies."""

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Show where the weight goes."""
        return f"[{'|'.join(self.choices)}][:WEIGHT]"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name with its weight, if the name is a key."""
        from hierarchical_lvae.penalties import with_weight

        super().convert(value.partition(":")[0], param, ctx)
        try:
            return with_weight(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Separated(click.ParamType):
    """Comma-separated names; an empty one is refused."""

    name = "NAME,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Split at commas and drop duplicates."""
        try:
            return tuple(dict.fromkeys(separated(value, "the list"))) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Names(Separated):
    """Comma-separated keys of a table; the nearest one is suggested for an unknown key."""

    def __init__(self, known: Iterable[str]) -> None:
        self.known = tuple(known)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Split, and check each name."""
        names = super().convert(value, param, ctx)
        for name in names:
            if name not in self.known:
                self.fail(f"{name!r} is unknown: {suggestion(name, self.known)}", param, ctx)
        return names


class Count(click.IntRange):
    """An integer from `least` to `most`; the upper limit is shown only when it is exceeded."""

    def __init__(self, least: int = COUNTS[0], most: int = COUNTS[1]) -> None:
        super().__init__(min=least)
        self.most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse the number."""
        number = super().convert(value, param, ctx)
        if number > self.most:
            self.fail(f"{number} is too large: give {self.most} or less", param, ctx)
        return number


class Finite(click.FloatRange):
    """A finite number, at least 0."""

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse the number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


class Location(click.Path):
    """A path, which need not exist; an empty one, as from an unset shell variable, is refused."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        if value == "":
            self.fail("the path is empty: give a path, or leave the option out", param, ctx)
        return super().convert(value, param, ctx)


class DataDirectory(Location):
    """The directory of data files and caches, which must exist."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, or fail before anything is computed."""
        from hierarchical_lvae.data.directory import data_directory

        return data_directory(super().convert(value, param, ctx))


class Device(click.ParamType):
    """A device; an invalid name is a usage error, an unavailable device a failure."""

    name = "DEVICE"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Resolve "auto", except during shell completion, which must be fast."""
        if ctx is not None and ctx.resilient_parsing:
            return value
        from hierarchical_lvae.runs.devices import resolve_device

        try:
            return resolve_device(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def option_of(settings: Any, field: str, *flags: str, **given: Any) -> Callable[..., Any]:
    """An option for a field of a settings dataclass: default, type and range are the field's, unless given."""
    about = signature(settings).parameters[field]
    kinds = get_args(about.annotation) or (about.annotation,)
    if bool in kinds:
        given.setdefault("is_flag", True)
    elif int in kinds:
        limits = settings.RANGES.get(field, COUNTS)
        given.setdefault("type", click.IntRange(*limits) if limits == SEEDS else Count(*limits))
    elif float in kinds:
        given.setdefault("type", Finite())
    given.setdefault("default", None if about.default is about.empty else about.default)
    flags = flags or ("--" + field.replace("_", "-"),)
    return click.option(*flags, field, show_default=True, **given)


def points_option(help: str) -> Callable[..., Any]:
    """The option for the number of points to fit on and to test on."""
    usual = ScoreSettings.train, ScoreSettings.test
    return click.option("--points", type=(Count(), Count()), default=usual, show_default=True, help=help)


device_option = click.option(
    "--device", type=Device(), default="auto", show_default=True, help="Device: auto, cpu, cuda, cuda:1, …, or mps."
)
data_dir_option = click.option(
    "--data-dir", type=DataDirectory(), help="Directory of data files [default: $HLVAE_DATA or user cache]"
)


def where_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a command that reads a run: the arguments of `load_run`."""
    for option in (
        device_option,
        click.option(
            "--data-dir",
            type=DataDirectory(),
            help="Directory of data files, if they have moved [default: the one used for the fit]",
        ),
        click.option(
            "--dataset",
            type=NameOrPath(DATASETS),
            help="Path of your own data, if they have moved [default: the one used for the fit]",
        ),
    ):
        command = option(command)
    return command

"""`hlvae`: the group of commands, and how it fails: one line that names the cause, and an exit code."""

import logging
from typing import Any

import click

from hierarchical_lvae import __version__
from hierarchical_lvae.cli.bench import bench
from hierarchical_lvae.cli.compare import compare
from hierarchical_lvae.cli.data import data
from hierarchical_lvae.cli.evaluate import evaluate
from hierarchical_lvae.cli.figures import figures
from hierarchical_lvae.cli.fit import fit
from hierarchical_lvae.cli.names import Suggesting
from hierarchical_lvae.cli.report import report
from hierarchical_lvae.cli.reproduce import reproduce
from hierarchical_lvae.types import Diverged, Interrupted

FAILED, DIVERGED, INTERRUPTED = 1, 3, 130


class Failure(click.ClickException):
    """One line on stderr, and an exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it on the class


class App(Suggesting):
    """A group whose failures are one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn its exceptions into exit codes (with --debug, let them through)."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Failure("interrupted", INTERRUPTED) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.params["debug"]:
                raise
            if isinstance(error, Interrupted):
                raise Failure(str(error), 128 + error.signal) from None
            if isinstance(error, Diverged):
                raise Failure(f"the fit diverged: {error}", DIVERGED) from error
            if isinstance(error, OSError | ValueError):
                raise Failure(str(error), FAILED) from error
            raise Failure(f"unexpected {type(error).__name__}: {error} (--debug shows where)", FAILED) from error


@click.group(cls=App, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="hlvae")
@click.option("--debug", is_flag=True, help="Show a traceback when something fails.")
def hlvae(debug: bool) -> None:
    """Local VAE: train a VAE whose weights are local to each data point's neighbourhood.

    \b
    Examples:
      hlvae fit --dataset 3dshapes --preset quick
      hlvae fit --dataset digits --alpha 0.1 --steps 500 --out runs/digits
      hlvae evaluate runs/digits
      hlvae compare runs/digits
      hlvae report runs/digits
    """
    logging.basicConfig(format="%(message)s")
    logging.getLogger("hierarchical_lvae").setLevel(logging.INFO)


for command in (data, fit, figures, evaluate, compare, report, reproduce, bench):
    hlvae.add_command(command)

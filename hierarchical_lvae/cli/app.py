"""The `hlvae` command group. A failure is one line that names the cause, and an exit code."""

import io
import logging
import os
import re
import sys
from typing import Any

import click

from hierarchical_lvae import __version__
from hierarchical_lvae.cli.bench import bench
from hierarchical_lvae.cli.compare import compare
from hierarchical_lvae.cli.data import data
from hierarchical_lvae.cli.doctor import doctor
from hierarchical_lvae.cli.evaluate import evaluate
from hierarchical_lvae.cli.failures import InFlags, in_flags
from hierarchical_lvae.cli.figures import figures
from hierarchical_lvae.cli.fit import fit
from hierarchical_lvae.cli.names import Suggesting
from hierarchical_lvae.cli.report import report
from hierarchical_lvae.cli.reproduce import reproduce
from hierarchical_lvae.types import Diverged, Interrupted, reason

FAILED, DIVERGED, INTERRUPTED = 1, 3, 130
TOO_LARGE = re.compile("(can't allocate|not enough|out of) memory|(calculation|multiplication) overflow", re.IGNORECASE)
"""Matches PyTorch's errors, on CPU and GPU, about tensors that do not fit in memory or have too many elements."""
NOT_ON_MPS = re.compile(r"The operator '([\w:.]+)' is not|(float64)|arguments from the 'MPS' backend|on MPS|MPS device")
"""Matches PyTorch's errors about what MPS cannot compute."""


class Failure(click.ClickException):
    """One line on stderr and an exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(in_flags(" ".join(message.split())))
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it on the class


class App(Suggesting):
    """A command group that reports each failure on one line."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run as a program: escape characters that stdout cannot encode, and ignore closed streams."""
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:
                setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # open until the process exits
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        return super().main(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command and turn its exceptions into exit codes (with --debug, let them through)."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Failure("interrupted", INTERRUPTED) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click exits quietly when the reader closes the pipe
        except Exception as error:
            if ctx.params["debug"]:
                raise
            raise failure(error) from error


def failure(error: Exception) -> Failure:
    """Convert an exception into a one-line failure.

    >>> print(failure(MemoryError("a step on 8 images needs 172 GiB")).message.partition(": ")[0])
    this needs more memory than is available (a step on 8 images needs 172 GiB)
    """
    match error:
        case Interrupted():
            return Failure(str(error), 128 + error.signal)
        case Diverged():
            return Failure(f"the fit diverged: {error}", DIVERGED)
        case MemoryError() | OverflowError():
            pass
        case RuntimeError() if TOO_LARGE.search(str(error)):
            pass
        case RuntimeError() | TypeError() if "MPS" in str(error) and (found := NOT_ON_MPS.search(str(error))):
            what = found[1] or found[2] or reason(error)[:200]
            remedy = (
                "set PYTORCH_ENABLE_MPS_FALLBACK=1 to compute operators that it lacks on the CPU, or use `device` cpu"
            )
            return Failure(f"PyTorch cannot compute this on MPS ({what}): {remedy}", FAILED)
        case OSError() | ValueError():
            return Failure(reason(error), FAILED)
        case _:
            return Failure(f"{reason(error)} (run `hlvae --debug` to see where)", FAILED)
    what = re.sub(r"^.*Allocator: |\. (Error code|GPU \d).*|\n.*", "", str(error), flags=re.DOTALL) or "none is left"
    remedy = "try smaller batches, fewer neighbours or smaller images"
    return Failure(f"this needs more memory than is available ({what}): {remedy}", FAILED)


@click.group(cls=App, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="hlvae")
@click.option("--debug", is_flag=True, help="Show a traceback when something fails.")
def hlvae(debug: bool) -> None:
    """Local VAE: train a VAE whose weights are local to each data point's neighbourhood.

    \b
    Examples:
      hlvae figures pretrained:3dshapes-local
      hlvae fit --dataset 3dshapes --preset quick
      hlvae fit --dataset digits --alpha 0.1 --steps 500 --out runs/digits
      hlvae evaluate runs/digits
      hlvae compare runs/digits
      hlvae report runs/digits
    """
    handler = logging.StreamHandler()
    handler.setFormatter(InFlags())
    logging.basicConfig(handlers=[handler])
    logging.getLogger("hierarchical_lvae").setLevel(logging.INFO)


for command in (data, fit, figures, evaluate, compare, report, reproduce, bench, doctor):
    hlvae.add_command(command)

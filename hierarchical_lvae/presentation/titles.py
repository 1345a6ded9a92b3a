"""Titles of figures and reports: what was trained, how, and on which data."""

from contextlib import suppress
from typing import TYPE_CHECKING

from hierarchical_lvae.data.paths import printable

if TYPE_CHECKING:
    from hierarchical_lvae.runs import FitOptions, Run


def describe(run: "Run") -> str:
    """Describe in two lines what was trained, and on which data."""
    reached = f" (now {run.vae.alpha:.2g})" if run.options.alpha == "auto" else ""
    return f"{model(run.options, reached=reached)}, {protocol(run)}"


def protocol(run: "Run") -> str:
    """Describe in two lines how a run was trained, and on which data, without the model."""
    options = run.options
    source = " ".join(run.dataset.source.encode("utf-8", "replace").decode().split())  # it may contain a file name
    return (
        f"{_steps(run)} steps, B = {options.batch}, "
        f"K = {options.num_neighbours} (preset {options.preset}, seed {options.seed})\n"
        f"{source}, {printable(options.neighbourhood)} neighbours"
    )


def _steps(run: "Run") -> str:
    """How many steps were taken, and of how many if the fit was not finished."""
    from hierarchical_lvae.runs.directory import read_state

    with suppress(OSError, ValueError):  # whoever needs the state reports the error
        step = read_state(run.path).step if run.path else None
        if step is not None and step != run.options.steps:
            return f"{step:,} of {run.options.steps:,}"
    return f"{run.options.steps:,}"


def model(options: "FitOptions", usual: str = "pixel", reached: str = "") -> str:
    """Name the model with α as `alpha_text` formats it, the value `reached` so far, and any unusual options."""
    layers = "" if options.local_layers == "all" else f", local layers: {options.local_layers}"
    beta = "" if options.beta == 1 else f", β = {options.beta:g}"
    if not options.alpha:
        return f"VAE (α = 0{beta})"
    return f"Local VAE, α = {alpha_text(options, usual)}{reached}{beta}, {options.local}{layers}"


def alpha_text(options: "FitOptions", usual: str = "pixel") -> str:
    """Format α, with its unit unless that is the usual one."""
    alpha = options.alpha if isinstance(options.alpha, str) else f"{options.alpha:g}"
    return alpha if options.alpha_unit == usual else f"{alpha} (per {options.alpha_unit})"

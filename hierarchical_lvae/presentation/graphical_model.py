"""Figure 1: the graphical model of a Pyro program, read from the program itself.

Pyro reports which sites depend on which, and which plates contain them. Meta-parameters enter a program as plain
tensors, so a gradient reveals what depends on them: a site depends on a parameter if its log density does, with the
other sites held fixed.

Random variables are circles, grey if observed. Auxiliary sites of a guide, such as φ_N, are diamonds, since they are
deterministic: the guide gives φ_N a default distribution, but local inference always replaces it by a point.
"""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import pyro
import torch
from pyro.infer.inspect import get_model_relations
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LETTERS = {"theta": r"\theta", "phi": r"\phi"}
RADIUS, DIAMOND = 0.28, 0.36
"""From the centre of a circle to its edge, and from that of a diamond to its corners."""


class Relations(NamedTuple):
    """The dependencies in a program. Delta sites are not random variables, and are left out."""

    sites: dict[str, str]
    """The name of the distribution of each site."""
    observed: frozenset[str]
    """The observed sites."""
    arrows: frozenset[tuple[str, str]]
    """(from, to), between sites and from meta-parameters to sites."""
    plates: dict[str, tuple[str, ...]]
    """The sites in each plate."""
    auxiliary: frozenset[str] = frozenset()
    """The sites that the program marks as auxiliary; local inference replaces them by points."""


def relations(program: Callable[[Any], Any], data: Any, parameters: Mapping[str, Tensor]) -> Relations:
    """Read the relations of a program, run on `data`, and those of its meta-parameters, given by name.

    >>> from hierarchical_lvae.models import LocalVAE
    >>> vae = LocalVAE(num_neighbours=2, image_shape=(1, 8, 8))
    >>> found = relations(vae.model, torch.rand(3, 2, 1, 8, 8), {"theta": vae.theta, "phi": vae.phi})
    >>> sorted(found.arrows)
    [('theta', 'theta_N'), ('theta_N', 'x'), ('z', 'x')]
    >>> found.sites
    {'theta_N': 'Normal', 'z': 'Normal', 'x': 'Bernoulli'}
    """
    inspected = get_model_relations(program, (data,))
    sites = {name: kind for name, kind in inspected["sample_dist"].items() if kind != "Delta"}
    arrows = {(above, name) for name in sites for above in inspected["sample_sample"][name]}
    with torch.random.fork_rng():
        drawn = pyro.poutine.trace(program).get_trace(data)
        held = {name: drawn.nodes[name]["value"].detach() for name in drawn.stochastic_nodes}
        trace = pyro.poutine.trace(pyro.poutine.condition(program, data=held)).get_trace(data)
    for name in sites:
        site = trace.nodes[name]
        log_prob = site["fn"].log_prob(site["value"].detach()).sum()
        if log_prob.requires_grad:
            slopes = torch.autograd.grad(log_prob, list(parameters.values()), allow_unused=True, retain_graph=True)
            arrows |= {(above, name) for above, slope in zip(parameters, slopes, strict=True) if slope is not None}
    plates = {plate: tuple(n for n in members if n in sites) for plate, members in inspected["plate_sample"].items()}
    auxiliary = frozenset(name for name in sites if trace.nodes[name]["infer"].get("is_auxiliary"))
    return Relations(sites, frozenset(inspected["observed"]), frozenset(arrows), plates, auxiliary)


def draw(ax: "Axes", found: Relations, positions: Mapping[str, tuple[float, float]], title: str = "") -> None:
    """Draw random variables as circles (grey if observed), auxiliary sites as diamonds, parameters as bare letters.

    Arrows are dependencies, and frames are plates.

    Args:
        positions: the centre of each site, and of each parameter that has an arrow; circles have a radius of 0.28.
    """
    from matplotlib.patches import Circle, FancyArrowPatch, Rectangle, RegularPolygon

    names = set(found.sites) | {above for above, _ in found.arrows}
    for depth, (plate, members) in enumerate(found.plates.items()):
        around = len(found.plates) - depth  # the outer frames come first, with room for the names of the inner ones
        margin, below = RADIUS + 0.2 * around, RADIUS + 0.26 * around
        (left, right), (low, high) = ((min(v), max(v)) for v in zip(*(positions[n] for n in members), strict=True))
        corner, width, height = (left - margin, low - below), right - left + 2 * margin, high - low + margin + below
        ax.add_patch(Rectangle(corner, width, height, fill=False))
        inside = right + margin - 0.05, low - below + 0.05
        ax.text(*inside, plate, ha="right", va="bottom", fontsize=7, color="0.4", parse_math=False)
    for name in names:
        if name in found.sites:
            colour = "0.8" if name in found.observed else "white"
            style: dict[str, Any] = {"facecolor": colour, "edgecolor": "black", "zorder": 2}
            if name in found.auxiliary:
                ax.add_patch(RegularPolygon(positions[name], 4, radius=DIAMOND, **style))
            else:
                ax.add_patch(Circle(positions[name], RADIUS, **style))
        ax.text(
            *positions[name], _label(name), ha="center", va="center", fontsize=12, zorder=3, parse_math=_is_symbol(name)
        )
    for arrow in found.arrows:
        start, end = (torch.tensor(positions[name]) for name in arrow)
        along = (end - start) / (end - start).norm()
        reach = [DIAMOND / along.abs().sum() if name in found.auxiliary else RADIUS for name in arrow]
        ends = (start + reach[0] * along).tolist(), (end - reach[1] * along).tolist()
        ax.add_patch(FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=11, color="black", shrinkA=0, shrinkB=0))
    ax.set_title(title, fontsize=9, parse_math=False)
    ax.set_aspect("equal")
    ax.autoscale_view()
    ax.set_axis_off()


def _is_symbol(name: str) -> bool:
    """Whether a site's name can be typeset as a letter with an index; any other name is drawn verbatim."""
    return re.fullmatch(r"[A-Za-z]+(_[A-Za-z0-9]+)?", name) is not None


def _label(name: str) -> str:
    """Typeset a site's name.

    >>> _label("theta_N"), _label("z"), _label("cost $")
    ('$\\\\theta_{N}$', '$z$', 'cost $')
    """
    letter, _, index = name.partition("_")
    if not _is_symbol(name):
        return name
    return f"${LETTERS.get(letter, letter)}" + (f"_{{{index}}}$" if index else "$")

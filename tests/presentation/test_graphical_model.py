"""Figure 1 shows the relations in the programs, for plain and local VAEs and for programs without codes."""

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle, RegularPolygon

from hierarchical_lvae.models import LocalVAE, Sinusoid
from hierarchical_lvae.presentation.graphical_model import draw, relations

PLACES = {"theta": (2.5, 2.0), "theta_N": (1.0, 2.0), "phi_N": (1.0, 3.0), "z": (0.0, 1.0), "x": (0.0, 0.0)}


@pytest.fixture
def images():
    return torch.rand(3, 2, 1, 8, 8)


def read(program, vae, images):
    return relations(program, images, {"theta": vae.theta, "phi": vae.phi})


def test_the_local_vae_has_local_weights_between_meta_weights_and_images(images):
    vae = LocalVAE(num_neighbours=2, image_shape=(1, 8, 8))
    model, guide = read(vae.model, vae, images), read(vae.guide, vae, images)
    assert model.arrows == {("theta", "theta_N"), ("theta_N", "x"), ("z", "x")}
    assert guide.arrows == {("theta", "theta_N"), ("phi", "phi_N"), ("phi_N", "z")}
    assert model.observed == {"x"}
    assert model.plates == {"neighbourhood": ("theta_N", "z", "x"), "point": ("z", "x")}


def test_the_plain_vae_has_none(images):
    vae = LocalVAE(alpha=0.0, num_neighbours=2, image_shape=(1, 8, 8))
    assert read(vae.model, vae, images).arrows == {("theta", "x"), ("z", "x")}
    assert read(vae.guide, vae, images).arrows == {("phi", "z")}
    assert read(vae.model, vae, images).plates == {"neighbourhood": ("z", "x"), "point": ("z", "x")}


def test_any_program_will_do_and_looking_changes_nothing():
    program, data = Sinusoid(), (torch.rand(3, 4), torch.rand(3, 4))
    before = torch.get_rng_state()
    assert relations(program.model, data, {"theta": program.theta}).arrows == {("theta", "theta_N"), ("theta_N", "y")}
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_drawn(images):
    vae = LocalVAE(num_neighbours=2, image_shape=(1, 8, 8))
    ax = Figure().add_subplot()
    draw(ax, read(vae.model, vae, images), PLACES)
    kinds = [type(patch) for patch in ax.patches]
    assert [kinds.count(kind) for kind in (Circle, FancyArrowPatch, Rectangle)] == [3, 3, 2]
    neighbourhood, point = (patch.get_bbox() for patch in ax.patches if isinstance(patch, Rectangle))
    assert neighbourhood.contains(point.x0, point.y0)
    assert neighbourhood.contains(point.x1, point.y1)
    assert neighbourhood.contains(*PLACES["theta_N"])
    assert not point.contains(*PLACES["theta_N"])
    assert not neighbourhood.contains(*PLACES["theta"])
    assert {text.get_text() for text in ax.texts} >= {r"$\theta$", r"$\theta_{N}$", "$z$", "$x$"}


def test_a_deterministic_site_is_a_diamond_and_arrows_end_at_its_edge(images):
    vae = LocalVAE(num_neighbours=2, image_shape=(1, 8, 8))
    ax = Figure().add_subplot()
    found = read(vae.guide, vae, images)
    assert found.auxiliary == {"phi_N"}
    draw(ax, found, PLACES | {"phi": (2.5, 3.0)})
    (diamond,) = (patch for patch in ax.patches if isinstance(patch, RegularPolygon))
    assert diamond.xy == PLACES["phi_N"]
    circles = {patch.center for patch in ax.patches if isinstance(patch, Circle)}
    assert circles == {PLACES["theta_N"], PLACES["z"]}
    starts, ends = zip(*(patch._posA_posB for patch in ax.patches if isinstance(patch, FancyArrowPatch)), strict=True)
    assert any(end == pytest.approx((1.0 + diamond.radius, 3.0)) for end in ends)
    along = torch.tensor([-1.0, -2.0]) / 5**0.5
    edge = torch.tensor(PLACES["phi_N"]) + diamond.radius / along.abs().sum() * along
    assert any(start == pytest.approx(edge.tolist()) for start in starts)


def test_names_that_are_no_symbols_are_drawn_as_they_stand(tmp_path):
    import pyro

    def program(data):
        with pyro.plate("$plate_{", 3):
            cost = pyro.sample("cost $", pyro.distributions.Normal(0.0, 1.0))
            pyro.sample("x", pyro.distributions.Normal(cost, 1.0), obs=data)

    figure = Figure()
    ax = figure.add_subplot()
    draw(ax, relations(program, torch.zeros(3), {}), {"cost $": (0.0, 1.0), "x": (0.0, 0.0)}, "$title")
    figure.savefig(tmp_path / "figure.png")
    assert {text.get_text() for text in ax.texts} == {"$plate_{", "cost $", "$x$"}
    assert ax.get_title() == "$title"

"""Copies of a model and of a run are their own: they train, and look at their own weights."""

import copy
import pickle

import pyro
import pytest
import torch

from hierarchical_lvae.inference import LocalELBO, OneStepMAP, Shared
from hierarchical_lvae.models import FactorAnalysis, LocalLinearRegression, LocalVAE, PointVAE, Sinusoid
from hierarchical_lvae.models.program import Program
from hierarchical_lvae.penalties import Factor
from hierarchical_lvae.runs import FitOptions, Run
from hierarchical_lvae.training import fit

B, K, SHAPE = 2, 2, (1, 8, 8)


def by_pickle(model, tmp_path):
    return pickle.loads(pickle.dumps(model))


def by_deepcopy(model, tmp_path):
    return copy.deepcopy(model)


def by_file(model, tmp_path):
    torch.save(model, tmp_path / "model.pt")
    return torch.load(tmp_path / "model.pt", weights_only=False)


WAYS = [by_deepcopy, by_pickle, by_file]


def moves(vae, steps=2):
    """Whether each parameter of a Local VAE is moved by SVI."""
    before = [parameter.detach().clone() for parameter in vae.parameters()]
    svi = pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), LocalELBO(OneStepMAP()))
    for _ in range(steps):
        svi.step(torch.rand(B, *SHAPE), torch.rand(B, K, *SHAPE))
    return [not torch.equal(old, new) for old, new in zip(before, vae.parameters(), strict=True)]


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_of_a_trained_model_trains_by_itself(way, tmp_path):
    original = LocalVAE(1.0, K, SHAPE, 3)
    assert all(moves(original))
    twin = way(original, tmp_path)
    assert twin._pyro_name != original._pyro_name
    kept = [parameter.detach().clone() for parameter in original.parameters()]
    assert all(torch.equal(*pair) for pair in zip(kept, twin.parameters(), strict=True))
    assert all(moves(twin))
    assert all(torch.equal(*pair) for pair in zip(kept, original.parameters(), strict=True))
    assert all(moves(original))
    assert all(moves(LocalVAE(1.0, K, SHAPE, 3)))  # nor does a new one collide with it


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "make",
    [
        lambda: LocalVAE(1.0, K, SHAPE, 3, likelihood="gaussian-learned"),
        lambda: FactorAnalysis(torch.eye(3, 2), 0.1),
        lambda: LocalLinearRegression(torch.zeros(3), 0.1, 1.0),
        lambda: PointVAE(),
        lambda: Sinusoid(),
    ],
)
def test_every_program_gets_a_name_of_its_own_and_its_parts_follow(make, way, tmp_path):
    original = make()
    twin = way(original, tmp_path)
    names = [[module._pyro_name for module in m.modules() if hasattr(module, "_pyro_name")] for m in (original, twin)]
    assert not set(names[0]) & set(names[1])
    assert all(name.startswith(twin._pyro_name) for name in names[1])
    assert len({id(m._pyro_context) for m in twin.modules() if hasattr(m, "_pyro_context")}) == 1


def test_a_program_in_a_program_is_named_after_it_and_a_shallow_copy_changes_no_names():
    class Outer(Program):
        def __init__(self):
            super().__init__()
            self.inner = Sinusoid()

    outer = Outer()
    twin = copy.deepcopy(outer)
    assert twin.inner._pyro_name == f"{twin._pyro_name}.inner"
    before = [module._pyro_name for module in outer.modules() if hasattr(module, "_pyro_name")]
    assert copy.copy(outer).inner is outer.inner
    assert [module._pyro_name for module in outer.modules() if hasattr(module, "_pyro_name")] == before


def test_a_penalty_that_learns_learns_under_svi():
    torch.manual_seed(0)
    vae, penalty = LocalVAE(0.0, K, SHAPE, 3), Factor(latent_dim=3)
    before = {name: value.clone() for name, value in penalty.state_dict().items() if name.startswith("network")}
    svi = pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), LocalELBO(Shared(), penalty=penalty))
    svi.step(torch.rand(8, *SHAPE), None)
    assert all(not torch.equal(penalty.state_dict()[name], value) for name, value in before.items())


@pytest.fixture
def run(tmp_path):
    options = FitOptions.of("quick", dataset="digits", batch=2, num_neighbours=2, latent_dim=3, steps=2)
    return fit(options, tmp_path / "run")


@pytest.mark.parametrize("way", [by_deepcopy, by_pickle])
def test_a_run_can_be_copied_and_its_neighbourhood_goes_along(run, way, tmp_path):
    twin = way(run, tmp_path)
    assert isinstance(twin, Run)
    index = torch.arange(2)
    x = run.dataset.batch(index)
    x_N = run.neighbourhood(index, x)
    assert torch.equal(twin.neighbourhood(index, x), x_N)
    codes = []
    for one in (run, twin):
        torch.manual_seed(1)  # of the draw in the local step
        codes.append(one.encode(x, x_N))
    assert torch.equal(*codes)
    with torch.no_grad():
        twin.vae.phi.zero_()
    assert not torch.equal(twin.neighbourhood.surroundings.encode(x), run.neighbourhood.surroundings.encode(x))
    assert twin.neighbourhood.surroundings.encode(x).abs().max() == 0


def test_a_neighbourhood_can_be_updated_before_it_is_prepared(run):
    run.neighbourhood.load_state_dict({"codes": torch.empty(0), "steps": torch.tensor(0)})
    index = torch.arange(2)
    run.neighbourhood.update(index, run.dataset.batch(index))
    assert run.neighbourhood.steps == 1

"""Each penalty against its formula written out, closed forms, and what all have in common."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from hierarchical_lvae.penalties import PENALTIES, Annealed, Factor, TotalCorrelation, build_penalty, dip_i, dip_ii
from hierarchical_lvae.penalties.discriminator import Discriminator
from hierarchical_lvae.penalties.factor import permuted
from hierarchical_lvae.penalties.total_correlation import total_correlation
from hierarchical_lvae.types import Codes

pytestmark = pytest.mark.usefixtures("double")
N, D = 5, 3
every_penalty = pytest.mark.parametrize("name", PENALTIES)


@pytest.fixture(autouse=True)
def small_discriminator(monkeypatch):
    monkeypatch.setattr("hierarchical_lvae.penalties.discriminator.WIDTH", 12)


def some_codes():
    mean, scale = torch.randn(N, D), torch.rand(N, D) + 0.3
    return Codes(mean, scale, mean + scale * torch.randn(N, D), torch.rand(N))


def slow_dip(codes, off_diagonal, diagonal, of_draws):
    total = 0.0
    for i in range(D):
        for j in range(D):
            means = [sum(codes.mean[n, k].item() for n in range(N)) / N for k in (i, j)]
            c = sum((codes.mean[n, i].item() - means[0]) * (codes.mean[n, j].item() - means[1]) for n in range(N)) / N
            if i == j and of_draws:
                c += sum(codes.scale[n, i].item() ** 2 for n in range(N)) / N
            total += diagonal * (c - 1) ** 2 if i == j else off_diagonal * c**2
    return total


def test_dip_is_the_distance_of_the_covariance_from_the_identity():
    codes = some_codes()
    assert dip_i(2.0)(codes).item() == pytest.approx(slow_dip(codes, 2.0, 20.0, False), rel=1e-12)
    assert dip_ii(2.0)(codes).item() == pytest.approx(slow_dip(codes, 2.0, 2.0, True), rel=1e-12)


def test_dip_of_white_codes_is_nothing():
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    white = Codes(corners, torch.zeros(4, 2), corners, torch.zeros(4))
    assert dip_i(3.0)(white) == 0
    half = math.sqrt(0.5)
    assert dip_ii(3.0)(white._replace(mean=half * corners, scale=torch.full((4, 2), half))) == pytest.approx(0)
    assert dip_i(3.0)(white._replace(mean=half * corners)) == pytest.approx(30 * 2 * 0.25)


def slow_total_correlation(codes):
    def density(i, j, d):
        u = (codes.value[i, d].item() - codes.mean[j, d].item()) / codes.scale[j, d].item()
        return math.exp(-0.5 * u**2) / (codes.scale[j, d].item() * math.sqrt(2 * math.pi))

    total = 0.0
    for i in range(N):
        joint = sum(math.prod(density(i, j, d) for d in range(D)) for j in range(N)) / N
        marginals = [sum(density(i, j, d) for j in range(N)) / N for d in range(D)]
        total += math.log(joint) - sum(map(math.log, marginals))
    return total / N


def test_total_correlation_is_that_of_the_mixture_of_the_batch():
    codes = some_codes()
    expected = slow_total_correlation(codes)
    assert total_correlation(codes).item() == pytest.approx(expected, rel=1e-10)
    assert TotalCorrelation(6.0)(codes).item() == pytest.approx(5 * expected, rel=1e-10)
    assert abs(expected) > 0.1


def test_independent_dimensions_have_no_total_correlation():
    """Codes that are all alike, and means on a full grid: at every draw, not on average."""
    alike = Codes(torch.zeros(N, D), torch.ones(N, D), torch.randn(N, D), torch.zeros(N))
    assert total_correlation(alike).item() == pytest.approx(0, abs=1e-12)
    grid = torch.cartesian_prod(torch.tensor([-1.0, 0.5, 2.0]), torch.tensor([0.0, 3.0]))
    factorised = Codes(grid, torch.full_like(grid, 0.4), torch.randn_like(grid), torch.zeros(6))
    assert total_correlation(factorised).item() == pytest.approx(0, abs=1e-12)


def test_the_capacity_grows_to_its_end_in_100_000_steps():
    annealed, codes = Annealed(25.0), some_codes()
    mean = sum(codes.kl.tolist()) / N
    for step, capacity in ((0, 0.0), (1, 25e-5), (50_000, 12.5), (100_000, 25.0), (300_000, 25.0)):
        annealed.load_state_dict({"steps": torch.tensor(step)})
        assert annealed.capacity().item() == pytest.approx(capacity)
        assert annealed(codes).item() == pytest.approx(1000 * abs(mean - capacity), rel=1e-12)
    annealed.load_state_dict({"steps": torch.tensor(0)})
    annealed.update()
    assert annealed.capacity().item() == pytest.approx(25e-5)


def test_the_discriminator_is_the_studys(monkeypatch):
    monkeypatch.undo()
    discriminator = Discriminator(10, torch.Generator())
    linear = [layer for layer in discriminator.network if isinstance(layer, torch.nn.Linear)]
    assert [layer.out_features for layer in linear] == [1000] * 6 + [2]
    slopes = [layer.negative_slope for layer in discriminator.network if isinstance(layer, torch.nn.LeakyReLU)]
    assert slopes == [0.2] * 6
    assert linear[1].weight.abs().max().item() == pytest.approx(math.sqrt(6 / 2000), rel=1e-3)
    assert not any(layer.bias.any() for layer in linear)
    (group,) = discriminator.optimizer.param_groups
    assert (group["lr"], group["betas"], group["eps"]) == (1e-4, (0.5, 0.9), 1e-8)


def test_a_trained_discriminator_knows_the_total_correlation(monkeypatch):
    """Of a Gaussian with correlations R it is −½ log det R: here 0.67 nats, and 0 with independent dimensions."""
    monkeypatch.setattr("hierarchical_lvae.penalties.discriminator.WIDTH", 24)
    monkeypatch.setattr("hierarchical_lvae.penalties.discriminator.LR", 2e-3)
    correlations = torch.tensor([[1.0, 0.7, 0.0], [0.7, 1.0, 0.5], [0.0, 0.5, 1.0]])
    for matrix in (correlations, torch.eye(3)):
        truth = -0.5 * torch.logdet(matrix).item()
        source = MultivariateNormal(torch.zeros(3), matrix)
        factor = Factor(2.0, latent_dim=3)
        for _ in range(400):
            z = source.sample((256,))
            factor(Codes(z, torch.ones_like(z), z, z[:, 0]))
            factor.update()
        z = source.sample((20_000,))
        assert factor(Codes(z, torch.ones_like(z), z, z[:, 0])).item() / 2 == pytest.approx(truth, abs=0.1)


def test_permuting_keeps_each_dimension_and_breaks_what_ties_them():
    z = torch.randn(2000, 1).expand(-1, 2) * torch.tensor([1.0, -2.0])
    mixed = permuted(z, torch.Generator().manual_seed(0))
    assert torch.equal(mixed.sort(0).values, z.sort(0).values)
    assert torch.corrcoef(z.T)[0, 1] == pytest.approx(-1)
    assert abs(torch.corrcoef(mixed.T)[0, 1]) < 4 / math.sqrt(2000)
    assert (mixed[:, 0] != z[:, 0]).any()
    assert (mixed[:, 1] != z[:, 1]).any()


@every_penalty
def test_gradients_are_central_differences(name):
    penalty, codes = build_penalty(name, D), some_codes()
    inputs = [part.requires_grad_() for part in codes]
    assert torch.autograd.gradcheck(lambda *parts: penalty(Codes(*parts)), inputs)
    gradients = torch.autograd.grad(penalty(Codes(*inputs)), inputs, allow_unused=True)
    assert any(gradient is not None and gradient.norm() > 0 for gradient in gradients)


def test_the_codes_do_not_train_the_discriminator_and_the_discriminator_not_the_codes():
    factor, codes = Factor(latent_dim=D), some_codes()
    codes.value.requires_grad_()
    factor(codes).backward()
    assert codes.value.grad.norm() > 0
    assert all(weight.grad is None for weight in factor.discriminator.network.parameters())
    before = codes.value.grad.clone()
    weights = [weight.clone() for weight in factor.discriminator.network.parameters()]
    factor.update()
    assert torch.equal(codes.value.grad, before)
    trained = factor.discriminator.network.parameters()
    assert all((new - old).norm() > 0 for new, old in zip(trained, weights, strict=True))


@every_penalty
def test_a_state_put_into_another_goes_on_the_same(name):
    first = build_penalty(name, D)
    torch.manual_seed(5)
    second = build_penalty(name, D)
    batches = [some_codes() for _ in range(4)]
    for codes in batches[:2]:
        first(codes)
        first.update()
    second.load_state_dict({key: value.clone() for key, value in first.state_dict().items()})
    for codes in batches[2:]:
        assert first(codes).item() == second(codes).item()
        first.update()
        second.update()
    assert first.state_dict().keys() == second.state_dict().keys()
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())


@every_penalty
def test_the_global_random_state_is_left_alone(name):
    state = torch.get_rng_state()
    penalty, codes = build_penalty(name, D), Codes(*(torch.full((2, D), 0.5) for _ in range(3)), torch.ones(2))
    penalty(codes)
    penalty.update()
    assert torch.equal(torch.get_rng_state(), state)


@every_penalty
def test_the_weight_is_a_factor_and_has_a_default(name):
    codes = some_codes()
    values = [build_penalty(f"{name}:{weight}", D)(codes).item() for weight in (1, 2, 3)]
    assert values[2] - values[1] == pytest.approx(values[1] - values[0])
    assert math.isfinite(build_penalty(name, D)(codes).item())


@pytest.mark.parametrize("text", ["tc:", "tc:x", "tc:4:", "tc:nan", "tc:inf", "tc:-1"])
def test_weights_that_mean_nothing_are_refused(text):
    with pytest.raises(
        ValueError, match=r"the weight of the penalty tc is '.*': give a finite number .* such as tc:4$"
    ):
        build_penalty(text, D)


def test_names_that_are_unknown_are_refused():
    with pytest.raises(ValueError, match="no penalty is called 'dip-iii': did you mean 'dip-ii'"):
        build_penalty("dip-iii:2", D)

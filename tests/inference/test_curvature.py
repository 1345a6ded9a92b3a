"""Curvature against the dense matrix that plain autograd gives, and against another library."""

import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from hierarchical_lvae.inference import LocalELBO, OneStepMAP
from hierarchical_lvae.inference.curvature import fisher_diagonal, ggn_factor, ggn_matrix, ggn_product
from hierarchical_lvae.inference.elbo import SupportLoss
from hierarchical_lvae.models import LocalLinearRegression, LocalVAE, Sinusoid

pytestmark = pytest.mark.usefixtures("double")
B, K, P = 3, 4, 3
LIKELIHOODS = ["bernoulli", "gaussian", "gaussian-learned", "continuous-bernoulli"]


def loss_at(program, data, num_particles=1):
    """ℓ_N at the meta-parameters."""
    elbo = LocalELBO(OneStepMAP(), num_particles=num_particles)
    return SupportLoss(elbo, program.model, program.guide, data, False)()


@pytest.fixture
def regression():
    return LocalLinearRegression(torch.randn(P), 0.3, 0.7)


@pytest.fixture
def data():
    return torch.randn(B, K, P), torch.randn(B, K)


@pytest.fixture
def images():
    return torch.rand(2, 2, 1, 8, 8)


def small_vae(likelihood="bernoulli", alpha=0.1):
    return LocalVAE(alpha, 2, (1, 8, 8), 2, likelihood, activation="softplus")


def dense_by_hand(at, site, positions):
    """JᵀFJ from a Jacobian by plain autograd, and the Fisher information as the variance of the score."""
    (observation,) = at.observations
    factors = observation.distribution.base_dist
    output = factors.loc if isinstance(factors, dist.Normal) else factors.logits
    fisher = factors.scale**-2 if isinstance(factors, dist.Normal) else factors.variance
    matrices = []
    for b in range(len(output)):
        entries = output[b].flatten()
        rows = [torch.autograd.grad(e, at.values[site], retain_graph=True)[0][b, 0, positions] for e in entries]
        J = torch.stack(rows)
        matrices.append(J.T @ (fisher[b].flatten().unsqueeze(1) * J))
    return torch.stack(matrices).unsqueeze(1)


def test_of_linear_regression_it_is_the_hessian(regression, data):
    expected = regression.curvature(data).unsqueeze(1)
    at = loss_at(regression, data)
    torch.testing.assert_close(ggn_matrix(at, "theta_N"), expected, rtol=1e-12, atol=1e-12)  # by rows
    one = ggn_matrix(at, "theta_N", torch.tensor([1]))  # by columns: 4 outputs for 1 parameter
    torch.testing.assert_close(one, expected[..., 1:2, 1:2], rtol=1e-12, atol=1e-12)
    v = torch.randn(B, 1, P)
    product = ggn_product(at, "theta_N")
    for _ in range(2):
        torch.testing.assert_close(product(v), (expected @ v.unsqueeze(-1)).squeeze(-1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("size", [5, 200])
def test_of_a_decoder_it_is_the_gauss_newton_matrix(likelihood, size, images):
    at = loss_at(small_vae(likelihood), images)
    positions = torch.randperm(at.values["theta_N"].shape[-1])[:size].sort().values
    matrix = ggn_matrix(at, "theta_N", positions)  # 5: by columns, 200: by rows
    torch.testing.assert_close(matrix, dense_by_hand(at, "theta_N", positions), rtol=1e-9, atol=1e-11)
    assert torch.linalg.eigvalsh(matrix).min() > -1e-9
    assert not matrix.requires_grad


def test_it_is_another_librarys(data):
    """GGN of a small network with a Gaussian likelihood, σ = 1: the sum of squares is twice the loss in nats."""
    program = Sinusoid(num_points=K, width=3)
    inputs, outputs = torch.randn(1, K), torch.randn(1, K)
    at = loss_at(program, (inputs, outputs))
    network = nn.Sequential(nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))
    torch.nn.utils.vector_to_parameters(program.theta.detach(), network.parameters())
    pairs = [(inputs.view(K, 1), outputs.view(K, 1))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses torch.jit.script
        from curvlinops import GGNLinearOperator

        other = GGNLinearOperator(network, nn.MSELoss(reduction="sum"), list(network.parameters()), pairs)
        expected = other @ torch.eye(program.theta.numel()) / 2
    torch.testing.assert_close(ggn_matrix(at, "theta_N")[0, 0], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_drawn_diagonal_is_right_and_its_error_falls_as_the_root_of_the_draws(likelihood, images):
    at = loss_at(small_vae(likelihood), images[:1])
    positions = torch.arange(-300, 0) + at.values["theta_N"].shape[-1]
    exact = ggn_matrix(at, "theta_N", positions).diagonal(dim1=-2, dim2=-1)
    errors, repeats = {}, 6
    for draws in (8, 128):
        relative = (
            torch.stack([fisher_diagonal(at, "theta_N", draws)[..., positions] for _ in range(repeats)]) / exact - 1
        )
        assert not relative.requires_grad
        errors[draws] = relative.square().mean().sqrt().item()
        # the entries of one estimate hang together: judge their average bias by the repeats
        biases = relative.flatten(1).mean(1)
        assert abs(biases.mean()) < 5 * biases.std() / math.sqrt(repeats)
    # the score is a sum over 128 pixels, about Gaussian: a relative error of √(2 / S)
    for draws, error in errors.items():
        assert 0.7 < error / math.sqrt(2 / draws) < 1.3
    assert 3 < errors[8] / errors[128] < 5.2  # √16 = 4


def test_of_regression_the_drawn_diagonal_has_the_stated_error_exactly(regression, data):
    """Gaussian data: the squared score is σ² χ²₁, so the mean squared relative error is 2 / S."""
    at = loss_at(regression, data)
    exact = regression.curvature(data).diagonal(dim1=-2, dim2=-1).unsqueeze(1)
    draws, repeats = 50, 300
    squares = torch.stack([((fisher_diagonal(at, "theta_N", draws) - exact) / exact).square() for _ in range(repeats)])
    per_repeat = squares.flatten(1).mean(1) * draws / 2
    assert abs(per_repeat.mean() - 1) < 4 * per_repeat.std() / math.sqrt(repeats)


def test_the_factor_is_exact_where_the_rank_suffices(regression, data):
    factor = ggn_factor(loss_at(regression, data), "theta_N", P)
    expected = regression.curvature(data).unsqueeze(1)
    torch.testing.assert_close(factor @ factor.mT, expected, rtol=1e-8, atol=1e-8)


def test_the_factor_of_a_network_holds_the_largest_eigenvalues_from_below(images):
    vae = small_vae()
    at = loss_at(vae, images)
    positions = vae.decoder.layout.positions("last")
    exact = ggn_matrix(at, "theta_N", positions)
    factor = ggn_factor(at, "theta_N", 10, positions)
    assert factor.shape == (2, 1, len(positions), 10)
    largest = torch.linalg.eigvalsh(exact)[..., -10:]
    found = torch.linalg.eigvalsh(factor.mT @ factor)
    torch.testing.assert_close(found[..., -5:], largest[..., -5:], rtol=0.02, atol=0)
    # from below: nothing is larger than what H has
    assert torch.linalg.eigvalsh(exact - factor @ factor.mT).min() > -1e-6 * largest.max()
    assert not factor.requires_grad


def test_the_factor_of_a_flat_loss_is_zero(regression):
    nothing = torch.zeros(B, K, P), torch.randn(B, K)
    factor = ggn_factor(loss_at(regression, nothing), "theta_N", 2)
    assert torch.isfinite(factor).all()
    assert factor.abs().max() < 1e-6


def test_masks_scales_and_particles_weigh(data):
    inputs, outputs = data
    program = LocalLinearRegression(torch.randn(P), 0.3, 0.7)
    plain = program.curvature((inputs[:, :2], outputs[:, :2])).unsqueeze(1)

    def model(data):
        seen = torch.tensor([1.0, 1.0, 0.0, 0.0]).bool()
        with pyro.poutine.scale(scale=1.0):
            inputs, outputs = data
            with pyro.plate("neighbourhood", B, dim=-2):
                theta_N = pyro.sample("theta_N", dist.Normal(program.theta, 0.3).to_event(1))
                with pyro.plate("point", K, dim=-1), pyro.poutine.scale(scale=3.0), pyro.poutine.mask(mask=seen):
                    pyro.sample("y", dist.Normal((inputs * theta_N).sum(-1), 0.7), obs=outputs)

    for particles in (1, 4):
        elbo = LocalELBO(OneStepMAP(), num_particles=particles)
        at = SupportLoss(elbo, model, lambda data: None, data, False)()
        torch.testing.assert_close(ggn_matrix(at, "theta_N"), 3 * plain, rtol=1e-10, atol=1e-10)
        drawn = fisher_diagonal(at, "theta_N", 4000)
        relative = (drawn / (3 * plain.diagonal(dim1=-2, dim2=-1)) - 1).abs().mean()
        assert relative < 4 * math.sqrt(2 / 4000)


def test_an_unknown_likelihood_is_refused_where_its_information_is_needed(data):
    def model(data):
        with pyro.plate("neighbourhood", B, dim=-2):
            theta_N = pyro.sample("theta_N", dist.Normal(torch.zeros(P, requires_grad=True), 0.3).to_event(1))
            with pyro.plate("point", K, dim=-1):
                pyro.sample("y", dist.StudentT(4.0, (data[0] * theta_N).sum(-1)), obs=data[1])

    at = SupportLoss(LocalELBO(OneStepMAP()), model, lambda data: None, data, False)()
    with pytest.raises(ValueError, match=r"exact curvature is implemented for .*, not for StudentT: use Diagonal\(\)"):
        ggn_matrix(at, "theta_N")
    # Student's t with ν degrees has the information (ν + 1) / (ν + 3) in its location
    drawn = fisher_diagonal(at, "theta_N", 4000)
    exact = 5 / 7 * data[0].square().sum(1).unsqueeze(1)
    assert (drawn / exact - 1).abs().max() < 0.2


def test_a_site_that_nothing_depends_on_has_no_curvature(data):
    def model(data):
        with pyro.plate("neighbourhood", B, dim=-2):
            pyro.sample("theta_N", dist.Normal(torch.zeros(P, requires_grad=True), 0.3).to_event(1))
            with pyro.plate("point", K, dim=-1):
                pyro.sample("y", dist.Normal(torch.zeros(B, K, requires_grad=True) * 1, 1.0), obs=data[1])

    at = SupportLoss(LocalELBO(OneStepMAP()), model, lambda data: None, data, False)()
    with pytest.raises(ValueError, match="no observed site depends on the local site 'theta_N'"):
        ggn_matrix(at, "theta_N")

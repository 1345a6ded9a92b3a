"""The continuous Bernoulli against its closed forms, evaluated with so many digits that nothing cancels."""

import math
from decimal import Decimal, localcontext

import pyro
import pyro.distributions as dist
import pytest
import torch

from hierarchical_lvae.models.continuous_bernoulli import LogitContinuousBernoulli

SIZES = torch.logspace(-12, 2, 200, dtype=torch.float64)
LOGITS = torch.cat([SIZES, -SIZES])
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def exact(function, *tensors):
    """The function of each entry, with 100 digits."""
    with localcontext() as context:
        context.prec = 100
        values = [
            float(function(*map(Decimal, entries))) for entries in zip(*(t.tolist() for t in tensors), strict=True)
        ]
    return torch.tensor(values, dtype=torch.float64)


DERIVATIVES = [
    lambda h: ((h.exp() - 1) / h).ln() - h / 2,
    lambda h: (h.exp() + 1) / (h.exp() - 1) / 2 - 1 / h,
    lambda h: 1 / h**2 - h.exp() / (h.exp() - 1) ** 2,
    lambda h: h.exp() * (h.exp() + 1) / (h.exp() - 1) ** 3 - 2 / h**3,
]
"""Of the log normaliser about x = ½, order by order."""


def assert_close(found, expected, roundings):
    eps = torch.finfo(found.dtype).eps
    torch.testing.assert_close(found.double(), expected, rtol=roundings * eps, atol=0)


@every_dtype
def test_the_log_normaliser_and_three_derivatives_are_accurate_at_every_logit(dtype):
    """From |η| = 2 on there are two terms, which cancel most there: to 1/18 of their size in the third derivative."""
    logits = LOGITS.to(dtype).requires_grad_()
    value = -LogitContinuousBernoulli(logits).log_prob(torch.tensor(0.5, dtype=dtype))
    for derivative in DERIVATIVES:
        assert_close(value.detach(), exact(derivative, logits.detach()), 100)
        value = torch.autograd.grad(value.sum(), logits, create_graph=True)[0]


@every_dtype
def test_mean_and_variance_are_accurate_at_every_logit(dtype):
    q = LogitContinuousBernoulli(LOGITS.to(dtype))
    mean = exact(DERIVATIVES[1], q.logits) + 0.5
    torch.testing.assert_close(q.mean.double(), mean, rtol=0, atol=4 * torch.finfo(dtype).eps)
    assert_close(q.variance, exact(DERIVATIVES[2], q.logits), 100)


@every_dtype
def test_draws_and_their_slopes_are_accurate_at_every_logit(dtype):
    logits = LOGITS.to(dtype).requires_grad_()
    u = (0.01 + 0.98 * torch.rand(len(LOGITS))).to(dtype)  # nearer to 0 or 1, an error of u itself grows a lot in x
    x = LogitContinuousBernoulli(logits).icdf(u)
    slope = torch.autograd.grad(x.sum(), logits)[0]

    def quantile(h, u):
        return (1 + u * (h.exp() - 1)).ln() / h

    def its_slope(h, u):
        return (u * h.exp() / (1 + u * (h.exp() - 1)) - quantile(h, u)) / h

    eps = torch.finfo(dtype).eps
    tolerance = 20 * eps**0.75  # a difference of rounding error eps, divided by |η|, which is eps^¼ or more
    torch.testing.assert_close(x.double().detach(), exact(quantile, logits.detach(), u), rtol=0, atol=20 * eps)
    torch.testing.assert_close(slope.double(), exact(its_slope, logits.detach(), u), rtol=0, atol=tolerance)


def test_autograd_agrees_with_differences(double):
    logits = torch.tensor([-30.0, -2.0, -1.0, 0.0, 1e-3, 0.5, 2.0, 30.0], requires_grad=True)
    for value in (
        lambda h: LogitContinuousBernoulli(h).log_prob(torch.tensor(0.3)),
        lambda h: LogitContinuousBernoulli(h).entropy(),
    ):
        assert torch.autograd.gradcheck(value, logits)
        assert torch.autograd.gradgradcheck(value, logits)


def test_at_a_logit_of_0_it_is_uniform():
    logits = torch.zeros(3, requires_grad=True)
    q = LogitContinuousBernoulli(logits)
    x = torch.tensor([0.0, 0.25, 1.0])
    assert q.log_prob(x).tolist() == [0, 0, 0]
    assert q.icdf(x).tolist() == x.tolist()
    assert torch.autograd.grad(q.log_prob(x).sum(), logits)[0].tolist() == [-0.5, -0.25, 0.5]
    assert q.entropy().tolist() == [0, 0, 0]


def test_the_entropy_is_minus_the_mean_log_density(double):
    q = LogitContinuousBernoulli(torch.tensor([-8.0, 0.01, 3.0]))
    log_density = q.log_prob(torch.linspace(0, 1, 10_001).unsqueeze(1))
    expected = -torch.trapezoid(log_density.exp() * log_density, dx=1e-4, dim=0)
    torch.testing.assert_close(q.entropy(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("logit", [-1e4, -90.0, 90.0, 1e4])
def test_far_logits_are_finite(logit):
    logits = torch.tensor([logit], requires_grad=True)
    q = LogitContinuousBernoulli(logits)
    for value in (q.log_prob(q.sample()), q.mean, q.variance, q.entropy(), q.rsample()):
        assert value.isfinite().all()
        slope = torch.autograd.grad(value, logits, create_graph=True)[0]
        assert slope.isfinite().all()
    # an exponential density; B and η B' are about |η|/2
    assert q.entropy().item() == pytest.approx(1 - math.log(abs(logit)), abs=1e-7 * abs(logit))


def test_it_is_a_pyro_distribution():
    def model():
        with pyro.plate("pixels", 3), pyro.poutine.scale(scale=2.0):
            return pyro.sample("x", LogitContinuousBernoulli(torch.tensor([0.5])))

    trace = pyro.poutine.trace(model).get_trace()
    site = trace.nodes["x"]
    assert isinstance(site["fn"], LogitContinuousBernoulli)
    assert site["fn"].batch_shape == (3,)
    torch.testing.assert_close(trace.log_prob_sum(), 2 * site["fn"].log_prob(site["value"]).sum())
    with pytest.raises(ValueError, match="support"):
        LogitContinuousBernoulli(torch.zeros(1)).log_prob(torch.tensor([1.1]))
    assert not LogitContinuousBernoulli(torch.zeros(1), validate_args=False).expand((2,))._validate_args


def test_where_pytorchs_is_accurate_they_agree(double):
    logits, x = torch.linspace(-6, 6, 13), torch.rand(13)
    ours, theirs = LogitContinuousBernoulli(logits), dist.ContinuousBernoulli(logits=logits)
    for found, expected in [
        (ours.log_prob(x), theirs.log_prob(x)),
        (ours.mean, theirs.mean),
        (ours.variance, theirs.variance),
        (ours.entropy(), theirs.entropy()),
        (ours.icdf(x), theirs.icdf(x)),
        (ours.cdf(ours.icdf(x)), x),
    ]:
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)

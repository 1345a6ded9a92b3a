"""The numbers of docs/sliders.md: its JavaScript against the Python of local linear regression."""

import math
import re
from itertools import product
from pathlib import Path

import dukpy
import pytest
import torch
import torch.distributions as dist

from hierarchical_lvae.inference import Dense, Laplace, LocalELBO, MultiStepMAP, OneStepMAP, diagnose
from hierarchical_lvae.models import LocalLinearRegression

pytestmark = pytest.mark.usefixtures("double")
DOCS = Path(__file__).parent.parent / "docs"
GRID = list(product((0.05, 0.4, 0.6, 2.0), (1, 5, 20), (0.3, 1.0), (1, 4), (0.2, 1.0)))
SETTINGS = [pytest.param(seed, *rest, id=f"{seed}-{rest}") for seed, rest in enumerate(GRID)]


@pytest.fixture(scope="module")
def sliders():
    """Evaluate an expression in which `sliders` is the object of docs/sliders.js."""
    interpreter = dukpy.JSInterpreter()
    interpreter.evaljs((DOCS / "sliders.js").read_text(encoding="utf-8"))
    return interpreter.evaljs


def drawn(sliders, seed, neighbours, sigma):
    return sliders("sliders.draw(...dukpy.of)", of=[seed, neighbours, sigma])


def close(found, expected, rtol=1e-9):
    torch.testing.assert_close(torch.tensor(found), torch.as_tensor(expected).detach().squeeze(), rtol=rtol, atol=1e-9)


@pytest.mark.parametrize(("seed", "tau", "neighbours", "sigma", "steps", "fraction"), SETTINGS)
def test_its_numbers_are_those_of_the_truth_program(sliders, seed, tau, neighbours, sigma, steps, fraction):
    points = drawn(sliders, seed, neighbours, sigma)
    of = {"theta": 0.5, "tau": tau, "sigma": sigma, "steps": steps, "fraction": fraction, **points}
    found = sliders("sliders.infer(dukpy.of)", of=of)

    program = LocalLinearRegression(torch.tensor([0.5]), tau, sigma)
    data = torch.tensor(points["inputs"])[None, :, None], torch.tensor(points["outputs"])[None]

    def local_posterior(local):
        return LocalELBO(local).local_posterior(program.model, program.guide, data)["theta_N"]

    H = program.curvature(data)
    close(found["curvature"], H)
    posterior = program.posterior(data)
    close(found["mode"], posterior.mean)
    close(found["posterior"]["mean"], posterior.mean)
    close(found["posterior"]["sd"], posterior.stddev)
    close(found["precision"], posterior.precision_matrix)
    close(found["logEvidence"], program.log_evidence(data))

    close(found["oneStep"], local_posterior(OneStepMAP()).mean)
    for step in range(1, steps + 1):
        close(found["path"][step], local_posterior(MultiStepMAP(step, step_size=fraction * tau**2)).mean)
    assert found["path"][0] == 0.5
    assert found["severalSteps"] == found["path"][-1]
    laplace = local_posterior(Laplace(OneStepMAP(), Dense()))
    close(found["laplace"]["mean"], laplace.mean)
    close(found["laplace"]["sd"], laplace.stddev)
    q = dist.MultivariateNormal(laplace.mean[:, 0], laplace.covariance_matrix[:, 0])
    close(found["divergence"], dist.kl_divergence(q, posterior))

    info = diagnose(LocalELBO(OneStepMAP()), program.model, program.guide, data)
    close(found["sharpness"], info.sharpness)
    close(found["lossBefore"], info.loss_before)
    close(found["lossAfter"], info.loss_after)
    close(abs(found["oneStep"] - 0.5), info.distance)

    inputs, outputs = data
    close(found["likelihood"]["mean"], torch.linalg.lstsq(inputs[0], outputs[0, :, None]).solution)
    close(found["likelihood"]["sd"], H.rsqrt())
    if tau**2 * H.item() < 1:
        implied = LocalLinearRegression(torch.tensor([0.5]), found["implied"]["sd"], sigma)
        close(found["oneStep"], implied.posterior(data).mean)
        close(tau, implied.posterior(data).stddev)
    else:
        assert found["implied"] is None


@pytest.mark.parametrize(("seed", "tau", "neighbours", "sigma", "steps", "fraction"), SETTINGS)
def test_what_it_says_of_overshooting_holds(sliders, seed, tau, neighbours, sigma, steps, fraction):
    points = drawn(sliders, seed, neighbours, sigma)
    of = {"theta": 0.5, "tau": tau, "sigma": sigma, "steps": steps, "fraction": fraction, **points}
    found = sliders("sliders.infer(dukpy.of)", of=of)
    sharpness, step = found["sharpness"], found["oneStep"]
    best, mode = found["likelihood"]["mean"], found["mode"]

    passes, overshoots = (step - best) * (0.5 - best) < 0, found["lossAfter"] > found["lossBefore"]
    expected = "overshoots" if overshoots else "passes" if passes else "fits"
    assert sliders("sliders.regime(dukpy.of)", of=sharpness) == expected
    assert (abs(step - best) > abs(0.5 - best)) == overshoots  # further from the maximum of the likelihood
    assert (abs(step - mode) > abs(0.5 - mode)) == passes  # further from the mode
    assert step - mode == pytest.approx(-sharpness * (0.5 - mode))  # on the mode's other side, always
    expected = mode + found["factor"] ** steps * (0.5 - mode)
    assert found["severalSteps"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("seed", "tau", "neighbours", "sigma", "steps", "fraction"), SETTINGS)
def test_the_formulas_that_it_shows_hold(sliders, seed, tau, neighbours, sigma, steps, fraction):
    points = drawn(sliders, seed, neighbours, sigma)
    of = {"theta": 0.5, "tau": tau, "sigma": sigma, "steps": steps, "fraction": fraction, **points}
    found = sliders("sliders.infer(dukpy.of)", of=of)
    g, precision, s = found["slope"], found["precision"], found["sharpness"]
    assert g == pytest.approx((0.5 * found["squares"] - found["products"]) / sigma**2)
    assert found["oneStep"] == pytest.approx(0.5 - tau**2 * g)
    assert found["mode"] == pytest.approx(0.5 - g / precision)
    assert found["lossAfter"] == pytest.approx(found["lossBefore"] - tau**2 * g**2 * (1 - s / 2))
    assert found["divergence"] == pytest.approx(precision * (found["oneStep"] - found["mode"]) ** 2 / 2)
    evidence = -found["lossBefore"] + g**2 / (2 * precision) - math.log1p(s) / 2
    assert found["logEvidence"] == pytest.approx(evidence)
    assert found["factor"] == pytest.approx(1 - fraction * (1 + s))


def test_a_seed_fixes_the_data_and_more_neighbours_extend_them(sliders):
    many, few = drawn(sliders, 7, 20, 0.5), drawn(sliders, 7, 3, 0.5)
    assert few == {"slope": many["slope"], "inputs": many["inputs"][:3], "outputs": many["outputs"][:3]}
    louder = drawn(sliders, 7, 20, 1.0)
    assert louder["inputs"] == many["inputs"]
    assert drawn(sliders, 8, 20, 0.5) != many
    inputs, outputs = (torch.tensor(many[name]) for name in ("inputs", "outputs"))
    close((2 * (outputs - many["slope"] * inputs)).tolist(), torch.tensor(louder["outputs"]) - many["slope"] * inputs)


def test_its_draws_have_the_stated_moments(sliders):
    points = drawn(sliders, 1, 20_000, 2.0)
    inputs, outputs = (torch.tensor(points[name]) for name in ("inputs", "outputs"))
    noise = outputs - points["slope"] * inputs
    assert abs(inputs.mean()) < 0.04
    assert inputs.var().item() == pytest.approx(4 / 3, rel=0.03)
    assert abs(noise.mean()) < 0.06
    assert noise.var().item() == pytest.approx(4, rel=0.04)


def test_alpha_is_the_papers(sliders):
    assert sliders("sliders.alphaOf(0.3, 5)") == pytest.approx(5 * 0.3**2)
    assert sliders("sliders.tauOf(sliders.alphaOf(0.3, 5), 5)") == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0.00"), (1, "1.00"), (-0.12345, "−0.123"), (0.001234, "0.00123"), (9.996, "10.0"), (123.4, "123"),
        (99949, "99900"), (123456, "1.23 · 10⁵"), (-0.0001234, "−1.23 · 10⁻⁴"), (0.09996, "0.100"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits(sliders, value, expected):
    assert sliders("sliders.digits(dukpy.of)", of=value) == expected


def test_the_page_has_every_element_that_its_script_uses():
    page = (DOCS / "sliders.md").read_text(encoding="utf-8")
    script = (DOCS / "sliders-page.js").read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([\w-]+)"', page)
    assert len(set(ids)) == len(ids)
    used = set(re.findall(r'element\("([\w-]+)"\)', script))
    assert used
    assert used <= set(ids)
    labelled = set(re.findall(r'<label for="([\w-]+)"', page))
    assert set(re.findall(r'<input type="(?:range|number)" id="([\w-]+)"', page)) <= labelled


def test_the_page_loads_only_its_own_files():
    files = [DOCS / name for name in ("sliders.md", "sliders.js", "sliders-page.js", "sliders.css")]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.[a-z]+[^\s\"')]*", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    for target in re.findall(r'(?:src|href)="([^"#]+)"', text):
        assert (DOCS / target).exists(), target

"""MAML's sinusoids, through plain SVI and an unchanged LocalELBO."""

import pyro
import torch
from pyro.infer import SVI

from hierarchical_lvae.inference import LocalELBO, OneStepMAP
from hierarchical_lvae.models import Sinusoid
from hierarchical_lvae.models.sinusoid import draw_tasks


def squared_errors(program, local, query, support):
    posterior = LocalELBO(local).local_posterior(program.model, program.guide, support)
    with torch.no_grad():
        meta = program.predict(query[0], program.theta.expand(len(query[0]), 1, -1))
        adapted = program.predict(query[0], posterior["theta_N"].mean)
    return [(prediction - query[1]).square().mean().item() for prediction in (meta, adapted)]


def test_tasks_are_sinusoids(double):
    query, support = draw_tasks(500)
    assert [t.shape for t in (*query, *support)] == [(500, 10)] * 4
    inputs, outputs = torch.cat([query[0], support[0]], 1), torch.cat([query[1], support[1]], 1)
    # y = p sin x + q cos x exactly: fit the two coefficients by least squares
    basis = torch.stack([inputs.sin(), inputs.cos()], -1)
    coefficients = torch.linalg.lstsq(basis, outputs.unsqueeze(-1)).solution
    torch.testing.assert_close((basis @ coefficients).squeeze(-1), outputs, rtol=0, atol=1e-9)
    amplitude = coefficients.squeeze(-1).norm(dim=1)
    assert 0.1 <= amplitude.min() < 0.5 < 4.5 < amplitude.max() <= 5 + 1e-9


def test_one_step_of_a_meta_trained_program_beats_its_meta_parameters():
    program, local = Sinusoid(), OneStepMAP()
    test_tasks = draw_tasks(500)
    untrained = squared_errors(program, local, *test_tasks)
    svi = SVI(program.model, program.guide, pyro.optim.Adam({"lr": 3e-3}), LocalELBO(local))
    for _ in range(600):
        svi.step(*draw_tasks(25))
    meta, adapted = squared_errors(program, local, *test_tasks)
    assert adapted < 0.6 * meta
    assert adapted < 0.5 * untrained[1]

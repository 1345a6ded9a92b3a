"""Is a step correct? Gradients in several precisions, graphs, the compiled gradient."""

import argparse
import time

import torch
from shared import Report, as_in_a_fit, errors, half, is_resumed_alike, options, stepper, wait, weights
from torch.distributions import normal

from hierarchical_lvae import progress
from hierarchical_lvae.data import load_dataset
from hierarchical_lvae.inference import LocalELBO, OneStepMAP
from hierarchical_lvae.models import LIKELIHOODS, LocalVAE, forms
from hierarchical_lvae.penalties import PENALTIES
from hierarchical_lvae.runs import prepare
from hierarchical_lvae.training import resume
from hierarchical_lvae.training.compiled import Compiled
from hierarchical_lvae.training.numerics import precision
from hierarchical_lvae.training.step import Step


def gradient(
    side: int, number: int, dtype: torch.dtype, device: str, likelihood: str = "bernoulli", local: bool = True
) -> list:
    """Loss and gradients, as float64 on the CPU, for images, weights and noise that are the same on all devices."""
    batch = 4
    torch.manual_seed(0)
    vae = LocalVAE(1.0 if likelihood == "bernoulli" else 1e-3, number, (3, side, side), 10, likelihood)
    x = torch.rand(batch, 3, side, side)
    x_N = x.expand(number, *x.shape).bernoulli().transpose(0, 1)
    noise = [torch.randn(batch, number, 10), torch.randn(batch, 1, 10)]
    vae = vae.to(device, dtype)
    x, x_N, *noise = (tensor.to(device, dtype) for tensor in (x, x_N, *noise))
    elbo = LocalELBO(OneStepMAP())
    usual = normal._standard_normal
    normal._standard_normal = lambda shape, dtype, device: noise.pop(0).expand(shape)
    try:
        with as_in_a_fit():
            loss = elbo.differentiable_loss(vae.model, vae.guide, x, x_N) / batch
            slopes = torch.autograd.grad(loss, [vae.theta, vae.phi])
    finally:
        normal._standard_normal = usual
    return [tensor.detach().double().cpu() for tensor in (loss, *slopes)]


def taken(one: Step, number: int) -> list:
    """Take steps as a fit does, which also updates the penalty."""
    seen = []
    while len(seen) < number:
        seen += one.take(len(seen), min(one.at_once, number - len(seen)))
        if one.run.elbo.penalty is not None:
            one.run.elbo.penalty.update()
    return seen


def exact(args: argparse.Namespace, report: Report) -> None:
    """Gradients against the CPU in float64: errors of the loss, ∂θ and ∂φ."""
    usual, side = forms.by_products, 16 if args.small else 32
    for number in (1, 3):
        truth = gradient(side, number, torch.float64, "cpu")
        report(f"K={number}: float32 on the CPU", errors(gradient(side, number, torch.float32, "cpu"), truth))
        for label, dtype, setting, by_products in (
            ("float64", torch.float64, "highest", usual),
            ("float64, in groups", torch.float64, "highest", lambda x: False),
            ("float32", torch.float32, "highest", usual),
            ("TF32", torch.float32, "high", usual),
        ):
            with report.trying(f"K={number}: {label}"), precision(setting):
                forms.by_products = by_products
                report(f"K={number}: {label}", errors(gradient(side, number, dtype, args.device), truth))
    forms.by_products = usual
    for likelihood in LIKELIHOODS:
        with report.trying(likelihood):
            truth = gradient(side, 2, torch.float64, "cpu", likelihood)
            report(f"{likelihood}: float64", errors(gradient(side, 2, torch.float64, args.device, likelihood), truth))
    with report.trying("images"):
        host = load_dataset("digits" if args.small else "3dshapes").images
        index = torch.randint(len(host), (200,), generator=torch.Generator().manual_seed(0))
        for setting in ("highest", "high"):
            with precision(setting):
                alike = torch.equal(host[index], host.to(args.device)[index.to(args.device)].cpu())
                report(f"images equal the CPU's, {setting}", alike)


def graph(args: argparse.Namespace, report: Report) -> None:
    """Compare a step as a graph with the same step without."""
    for name, changes in (
        ("quick", {}),
        ("Table 4", {}),
        ("quick", {"alpha": 0.0}),
        ("quick", {"neighbourhood": "labels"}),
        ("quick", {"micro_batch": 1 if args.small else 16}),
        *(("quick", {"penalty": penalty}) for penalty in PENALTIES),
    ):
        label = f"{name} {changes or ''}"
        with report.trying(label), as_in_a_fit():
            found = {}
            for way in ("graph", "again", "eager"):
                one = stepper(prepare(options(name, args, **changes)), replayed=way != "eager")
                torch.manual_seed(7)
                losses = [seen.loss for seen in taken(one, 6)]
                found[way] = losses, weights(one.run)
                report(f"{label}: {way}: losses", [round(loss, 3) for loss in losses])
            report(f"{label}: weights after 6 steps, graph twice", errors(found["again"][1], found["graph"][1]))
            report(f"{label}: weights after 6 steps, graph and eager", errors(found["graph"][1], found["eager"][1]))
    with report.trying("skipped"), as_in_a_fit():
        one = stepper(prepare(options("quick", args)))
        alpha, seen = one.run.vae.alpha, [one.take(0, 2)[-1].is_finite]
        before = weights(one.run)
        one.run.vae.alpha = 1e30
        seen.append(one.take(2, 1)[0].is_finite)
        report("skipped: the weights are those before", errors(weights(one.run), before))
        one.run.vae.alpha = alpha
        seen.append(one.take(3, 1)[0].is_finite)
        report("skipped: finite before, then, and after", seen)
        report("skipped: the next step changes the weights", errors(weights(one.run), before))
    with report.trying("not finite"), as_in_a_fit():
        one = stepper(prepare(options("quick", args)))
        one.take(0, 2)
        one.run.vae.alpha = 1e30
        before, seen = weights(one.run), one.take(2, 4)
        report("not finite", [one_step.is_finite for one_step in seen])
        report("not finite: the weights are the last good ones", errors(weights(one.run), before))
        failed = [one_step.is_finite for one_step in seen].index(False)
        report("not finite: why", one.why(failed, 4))
    with report.trying("fit"):
        start = time.perf_counter()
        report("resumed to the same bytes", is_resumed_alike("graph", args))
        report("seconds of these fits", round(time.perf_counter() - start, 1))
    with report.trying("resumed on a CPU"), progress.hidden():
        moved = resume(args.out / "graph-part", steps=2 * half(args) + 2, device="cpu")
        report("resumed on a CPU", moved.options.device)


def compile_(args: argparse.Namespace, report: Report) -> None:
    """Inductor: how long it takes, and whether the gradient is correct. The compiled code stays in its cache."""
    for name in ("quick", "noise-mean, 64×64", "Table 4"):
        with report.trying(name), as_in_a_fit(), precision("high"):
            run = prepare(options(name, args))
            one, other = stepper(run, replayed=False), Compiled(run)
            x, x_N = one._draw()
            start = time.perf_counter()
            other(x, x_N)
            wait(args.device)
            report(f"{name}: seconds to compile", round(time.perf_counter() - start, 1))
            found = []
            for way in (other, one.gradient):
                torch.manual_seed(3)
                found.append([way(x, x_N), *(p.grad.clone() for p in run.vae.parameters())])
            report(f"{name}: compiled against eager, both in TF32", errors(*found))

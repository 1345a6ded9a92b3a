"""What a CUDA graph asks of a step, seen without a GPU: nothing is copied from the host, and no value is read there."""

import json
import sys
from collections import Counter
from dataclasses import replace
from pkgutil import resolve_name

import pyro
import pytest
import torch
from pyro.distributions import Bernoulli
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hierarchical_lvae.data import load_dataset
from hierarchical_lvae.data.replica import LAYERS_SHAPE, ReplicaImages
from hierarchical_lvae.inference import LOCAL_INFERENCE, LocalELBO, OneStepMAP
from hierarchical_lvae.models import LIKELIHOODS, LocalVAE
from hierarchical_lvae.neighbourhoods import Neighbourhood, Surroundings, build_neighbourhood
from hierarchical_lvae.penalties import PENALTIES, build_penalty
from hierarchical_lvae.runs import FitOptions, load_run, prepare
from hierarchical_lvae.training import fit, loop, resume
from hierarchical_lvae.training import gradient as gradient_module
from hierarchical_lvae.training import step as step_module
from hierarchical_lvae.training.gradient import Whole, is_capturable, needs_host
from hierarchical_lvae.training.ranks import Ranks
from hierarchical_lvae.training.step import Step
from hierarchical_lvae.types import Diverged

LOOKS = {"_local_scalar_dense", "item", "nonzero", "masked_select", "is_nonzero", "equal", "unique", "_unique2"}
MAKES = {torch.tensor, torch.as_tensor, torch.scalar_tensor, torch.asarray}


class Constants(TorchFunctionMode):
    """Notes tensors that are made on the device from numbers of Python's: each is a copy from the host."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in MAKES and torch.device(kwargs.get("device") or "cpu").type == "meta":
            self.seen[f"{func.__name__} of {args[0]!r} by {sys._getframe(1).f_code.co_name}"] += 1
        return func(*args, **kwargs)


class Traffic(TorchDispatchMode):
    """Notes operators that look at numbers on the device, or take tensors across."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        inputs, outputs = (
            {x.device.type for x in tree_leaves(tensors) if isinstance(x, torch.Tensor)}
            for tensors in ((args, kwargs), result)
        )
        if "meta" in inputs and (name in LOOKS or "cpu" in inputs | outputs or name.startswith("_linalg")):
            self.seen[str(func)] += 1
        if "cpu" in inputs and "meta" in outputs:
            self.seen[str(func)] += 1
        return result


def traffic(call):
    """What a call does across, at its second time: what it keeps is made at the first, before a capture."""
    seen = Counter()
    with pyro.validation_enabled(False):
        call()
        with Constants(seen), Traffic(seen):
            call()
    return dict(seen)


CAPTURABLE = [name for name in LOCAL_INFERENCE if getattr(resolve_name(LOCAL_INFERENCE[name])(), "capturable", True)]


@pytest.mark.parametrize(
    ("local", "layers"), [*((name, "all") for name in (*CAPTURABLE, "first-order")), ("one-step", "head")]
)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_gradient_copies_nothing_from_the_host(local, layers, likelihood):
    inference = OneStepMAP(first_order=True) if local == "first-order" else resolve_name(LOCAL_INFERENCE[local])()
    alpha = 0.0 if local == "shared" else 1e-3
    vae = LocalVAE(alpha, 2, (3, 16, 16), 4, likelihood, local_layers=layers).to("meta")
    query, support = torch.rand(3, 3, 16, 16, device="meta"), torch.rand(3, 2, 3, 16, 16, device="meta")

    def call():
        LocalELBO(inference).differentiable_loss(vae.model, vae.guide, query, support).backward()

    assert traffic(call) == {}


def test_traffic_is_noticed():
    """A scale of 1.0 is such a copy; so is a look."""
    zeros = torch.zeros(3, device="meta")
    (of_python,) = traffic(lambda: torch.distributions.Normal(zeros, 1.0, validate_args=False))
    assert of_python.startswith("tensor of 1.0")
    assert traffic(lambda: zeros + torch.ones(3, device="cpu").to("meta")) != {}


class Images(ReplicaImages):
    """The replica's, without its pictures."""

    def __init__(self):
        super().__init__(torch.zeros(LAYERS_SHAPE, dtype=torch.int16, device="meta"))


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize(("neighbourhood", "number"), [("noise", 2), ("noise-mean", 1)])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_whole_step_copies_nothing_from_the_host(neighbourhood, number, likelihood, alpha, monkeypatch):
    """Images, neighbours, gradients, clipping, and the flag that Adam reads. (Adam itself does not support `meta`.)"""
    local = "one-step" if alpha else "shared"
    given = {"alpha": alpha, "local": local, "neighbourhood": neighbourhood, "num_neighbours": number}
    assert traffic(on_meta(monkeypatch, **given, likelihood=likelihood)._take) == {}


IDS = torch.zeros(9, dtype=torch.int32)
TABLES = {"labels": {}, "graph:any.npz": {"starts": IDS, "ids": IDS}, "input-knn": {"ids": IDS[:, None]}}


@pytest.mark.parametrize("neighbourhood", TABLES)
def test_neighbours_in_the_data_copy_nothing_from_the_host(neighbourhood, monkeypatch):
    step = on_meta(monkeypatch)
    built = build_neighbourhood(neighbourhood, Surroundings(1, step.run.dataset, Bernoulli, lambda x: x))
    assert built.capturable
    for name, table in TABLES[neighbourhood].items():
        setattr(built, name, table)
    step.run = replace(step.run, neighbourhood=built)
    assert traffic(step._take) == {}


def test_a_neighbourhood_is_drawn_in_the_graph_only_if_it_says_so(graphs):
    """What it draws on the host would be the same in each replay."""
    run = prepare(quick())
    assert Step(run, Ranks()).draws_inside
    run.neighbourhood.capturable = False
    assert not Step(run, Ranks()).draws_inside
    assert not Neighbourhood.capturable


@pytest.mark.parametrize("changes", [{"micro_batch": 2}, *({"penalty": name} for name in PENALTIES)])
def test_neither_parts_nor_penalties_copy_anything_from_the_host(changes, monkeypatch):
    assert traffic(on_meta(monkeypatch, **changes)._take) == {}


def on_meta(monkeypatch, **changes):
    """A step as a graph would contain it, without numbers."""
    monkeypatch.setattr(Step, "_capture", lambda self: None)
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: None)
    monkeypatch.setattr(gradient_module, "is_capturable", lambda run, ranks: True)
    dataset = replace(load_dataset("digits"), images=Images(), image_size=16)
    run = prepare(quick(**{"batch": 3, "clip": 100.0, **changes}), dataset)
    run.vae.to("meta")
    options = replace(run.options, device="meta")
    if options.penalty:
        run.elbo.penalty = build_penalty(options.penalty, options.latent_dim, "meta")
    step = Step(replace(run, options=options), Ranks())
    step.is_replayed = step.draws_inside = True
    step.in_a_row = torch.zeros((), device="meta")
    return step


# ------------------------------------------------------------- the step of a graph, taken by Python on the CPU


class Graph:
    """Stands in for a CUDA graph: what was captured is called."""

    def __init__(self, step):
        self.replay = step._take


def capture(step):
    step.in_a_row = torch.zeros(())
    step.graph = Graph(step)


@pytest.fixture
def graphs(monkeypatch):
    """Steps are as on a GPU."""
    as_a_graph(monkeypatch, True)
    monkeypatch.setattr(Step, "_capture", capture)


def as_a_graph(monkeypatch, yes):
    for module in (step_module, gradient_module):
        monkeypatch.setattr(module, "is_capturable", lambda run, ranks: yes)


def quick(**changes):
    return FitOptions("digits", **{"neighbourhood": "noise", "batch": 4, "num_neighbours": 2, "lr": 1e-3, **changes})


def parameters(run):
    return [p.detach().clone() for p in run.vae.parameters()]


@pytest.mark.parametrize("penalty", [None, *PENALTIES])
def test_a_step_of_a_graph_is_the_step(penalty, graphs, monkeypatch):
    """Adam divides by |g|, so rounding decides the weights whose gradient is nearly zero; hence the norms."""
    run, own = prepare(quick(warm_up=4, penalty=penalty)), prepare(quick(warm_up=4, penalty=penalty))
    start = parameters(run)
    torch.manual_seed(3)
    seen = Step(run, Ranks()).take(0, 6)
    as_a_graph(monkeypatch, False)
    torch.manual_seed(3)
    step = Step(own, Ranks())
    alike = [one for done in range(6) for one in step.take(done, 1)]
    assert all((one.penalty is None) == (penalty is None) for one in seen)
    torch.testing.assert_close([one[:2] for one in seen], [one[:2] for one in alike], rtol=1e-5, atol=0)
    if penalty:  # may start at zero
        torch.testing.assert_close([one.penalty for one in seen], [one.penalty for one in alike], rtol=1e-4, atol=1e-4)
    for one, other, first in zip(parameters(run), parameters(own), start, strict=True):
        assert (one - other).norm() < 1e-3 * (other - first).norm()


def test_parts_in_a_graph_draw_one_after_the_other(graphs):
    """And sum to the gradient of the mean, with an incomplete last part."""
    run = prepare(quick(batch=5, micro_batch=2))
    step, whole = Step(run, Ranks()), Whole(run)
    x, x_N = step._draw()
    before, expected = torch.get_rng_state(), []
    for part in (slice(0, 2), slice(2, 4), slice(4, 5)):
        loss = whole(x[part], x_N[part])
        expected.append([len(x[part]) / 5 * value for value in (loss, *(p.grad for p in run.vae.parameters()))])
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    found = [step.gradient(x, x_N), *(p.grad for p in run.vae.parameters())]
    torch.testing.assert_close(found, [sum(parts) for parts in zip(*expected, strict=True)])
    assert torch.equal(torch.get_rng_state(), after)


def spoiled(run, at):
    """The step of a run whose loss is not finite at some calls, from 1, with the weights after each of its steps."""
    step = Step(run, Ranks())
    step.take(0, 2)
    usual, calls, copies = step.gradient, [], []

    def fails(x, x_N):
        calls.append(None)
        return usual(x, x_N) * (torch.nan if len(calls) in at else 1.0)

    step.gradient = fails
    adam = step.optimizer.step
    step.optimizer.step = lambda: (adam(), copies.append(parameters(run)))
    return step, copies


def test_what_is_not_finite_changes_nothing(graphs):
    step, copies = spoiled(prepare(quick(alpha=1.0)), at={3})
    assert [one.is_finite for one in step.take(2, 5)] == [True, True, False, True, True]
    torch.testing.assert_close(copies[2], copies[1], rtol=0, atol=0)
    for before, after in ((0, 1), (2, 3), (3, 4)):
        assert not torch.equal(copies[before][0], copies[after][0])
    assert {int(slots["step"]) for slots in step.optimizer.state.values()} == {6}


def test_after_ten_in_a_row_nothing_changes_any_more(graphs):
    """So that the weights are still those of the failed step when the host looks. Nine in a row are forgiven."""
    step, copies = spoiled(prepare(quick(alpha=1.0)), at={*range(2, 11), *range(12, 22)})
    seen = [one.is_finite for one in step.take(2, 25)]
    assert seen == [True, *[False] * 9, True, *[False] * 10, *[True] * 4]
    torch.testing.assert_close(copies[9], copies[0], rtol=0, atol=0)
    assert not torch.equal(copies[10][0], copies[9][0])
    for later in copies[11:]:
        torch.testing.assert_close(later, copies[10], rtol=0, atol=0)
    assert {int(slots["step"]) for slots in step.optimizer.state.values()} == {4}


def test_a_fit_by_graphs_diverges_with_its_step_named(graphs, tmp_path):
    with pytest.raises(Diverged, match=r"at step 10, as in the 9 .*quantity: .*of the queries, in the"):
        fit(quick(alpha=1e30, steps=60), tmp_path / "run")


@pytest.mark.parametrize("penalty", [None, "annealed", "factor"])
def test_a_fit_by_graphs_resumes_to_the_same_bytes(penalty, graphs, tmp_path, monkeypatch):
    monkeypatch.setattr("hierarchical_lvae.penalties.discriminator.WIDTH", 10)
    fit(quick(steps=120, penalty=penalty), tmp_path / "whole")
    fit(quick(steps=70, penalty=penalty), tmp_path / "part")
    resume(tmp_path / "part", steps=120)
    whole, part = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "part"))
    assert whole == part
    lines = (tmp_path / "whole/log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [50, 100, 120]
    assert all(("penalty" in json.loads(line)) == (penalty is not None) for line in lines)
    if penalty == "annealed":  # an update after each step, not after each reading
        assert load_run(tmp_path / "whole").elbo.penalty.steps == 120


@pytest.mark.parametrize("first", ["graph", "plain"])
def test_a_fit_moves_between_a_graph_and_a_plain_step(first, monkeypatch, tmp_path):
    """As between a GPU and a CPU: both forms of Adam go on from each other's moments."""
    usual = Step._capture

    def run_as(kind):
        as_a_graph(monkeypatch, kind == "graph")
        monkeypatch.setattr(Step, "_capture", capture if kind == "graph" else usual)

    fit(quick(steps=60, warm_up=80), tmp_path / "whole")
    run_as(first)
    fit(quick(steps=30, warm_up=80), tmp_path / "part")
    run_as("plain" if first == "graph" else "graph")
    moved = resume(tmp_path / "part", steps=60)
    torch.testing.assert_close(moved.vae.theta, load_run(tmp_path / "whole").vae.theta, rtol=1e-3, atol=1e-4)


def test_a_short_fit_by_graphs_is_diagnosed(graphs, tmp_path, monkeypatch):
    """At its end at the latest: a step that overshoots must not pass for a finished fit."""
    fit(quick(steps=60), tmp_path / "run")
    last = json.loads((tmp_path / "run/log.jsonl").read_text().splitlines()[-1])
    assert (last["step"], last["loss_after"] < last["loss_before"]) == (60, True)
    diagnosed = []
    monkeypatch.setattr(loop, "_refuse_overshoot", lambda *found: diagnosed.append(found))
    resume(tmp_path / "run", steps=70)
    assert len(diagnosed) == 1


def test_what_failed_is_looked_up_in_the_batch_that_failed(monkeypatch):
    """Neighbourhoods that count steps may draw others the next time."""
    run = prepare(quick(neighbourhood="latent-knn", refresh=3))
    step = Step(run, Ranks())
    for done in range(6):
        step.take(done, 1)
    counted, x_N = run.neighbourhood.state_dict(), step.x_N.clone()
    looked_at = []
    monkeypatch.setattr(step_module, "first_not_finite", lambda run, ranks, x, x_N: looked_at.append(x_N) or "it")
    assert step.why(0, 1) == "it"
    assert torch.equal(looked_at[0], x_N)
    for name, value in run.neighbourhood.state_dict().items():
        assert torch.equal(value, counted[name]), name


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_random_state_of_a_step_lies_between(share):
    """A GPU's generator is a seed and how many numbers it has given."""
    before, after = (torch.tensor([7, offset]).view(torch.uint8) for offset in (100, 150))
    state = step_module._between(before, after, share)
    assert state.view(torch.int64).tolist() == [7, 100 + round(50 * share)]
    assert before.view(torch.int64).tolist() == [7, 100]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"micro_batch": 2}, ""),
        ({"penalty": "factor"}, ""),
        ({"local": "laplace-low-rank"}, "laplace-low-rank reads values on the host"),
        ({"local": "exact", "local_layers": "head"}, "exact reads values on the host"),
    ],
)
def test_what_keeps_a_step_from_being_a_graph_has_a_name(changes, why):
    run = prepare(quick(**changes))
    assert needs_host(run, Ranks()) == why
    assert not is_capturable(run, Ranks())  # on a CPU, in any case
    on_gpu = replace(run, options=replace(run.options, device="cuda"))
    assert is_capturable(on_gpu, Ranks()) == (not why)
    several = Ranks()
    several.world = 2
    assert needs_host(on_gpu, several) == "several processes share its batch"

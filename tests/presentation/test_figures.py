import math

import numpy as np
import pytest
import torch
from matplotlib.text import Text

from hierarchical_lvae.presentation import plots
from hierarchical_lvae.presentation.figures import compose, draw_figure3, save
from hierarchical_lvae.presentation.titles import describe
from hierarchical_lvae.runs import FitOptions, load_run, prepare
from hierarchical_lvae.runs.directory import State, write_state
from hierarchical_lvae.training import fit

HOSTILE = [
    "Ba$$in", "cost_$", "$x^2$", r"\frac{a}{b} $\frac{$", "line\nbreak\ttab", "色 🎨", "bytes \udcff", "\x00\x1b[0m",
    "long " * 50, "x" * 250, "\n" * 60, "",
]  # fmt: skip


def shown(figure):
    figure.canvas.draw()
    return [np.asarray(ax.images[0].get_array()) for ax in figure.axes]


def same(arrays, images):
    for array, image in zip(arrays, images, strict=True):
        np.testing.assert_allclose(array.reshape(*image.shape[1:], image.shape[0]), image.movedim(0, -1), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_figures_2_and_3_show_every_image_in_its_place(channels):
    references, samples = torch.rand(3, channels, 8, 8), torch.rand(3, 5, channels, 8, 8)
    figure = plots.conditional_prior_samples(samples, "a title")
    same(shown(figure), samples.flatten(0, 1))
    assert figure.get_suptitle().startswith("a title\n")
    figure = plots.conditional_samples(references, samples, "a title")
    same(shown(figure), [*references, *samples.flatten(0, 1)])
    assert figure.get_suptitle() == "a title"


def test_a_plain_vae_is_not_drawn_as_if_it_had_local_weights():
    references, samples = torch.rand(3, 1, 8, 8), torch.rand(3, 5, 1, 8, 8)
    for local in (True, False):
        prior = plots.conditional_prior_samples(samples, "a title", local)
        rows = plots.conditional_samples(references, samples, "a title", local)
        for figure in (prior, rows):
            assert any("with the local weights" in text for text in texts(figure)) is local


def test_figure_4_shows_the_reference_once_and_names_the_values():
    reference, samples = torch.rand(3, 8, 8), torch.rand(2, 4, 3, 8, 8)
    figure = plots.latent_sweep(reference, samples, [-2, -1, 1, 2], "a title")
    same(shown(figure), [reference, torch.ones(3, 8, 8), *samples.flatten(0, 1)])
    assert [ax.get_title() for ax in figure.axes[2:6]] == ["-2", "-1", "1", "2"]


def test_reconstructions_are_in_four_rows():
    rows = torch.rand(4, 5, 1, 8, 8)
    same(shown(plots.reconstructions(*rows, "a title")), rows.flatten(0, 1))


def test_curves_draw_what_was_logged():
    log = [{"step": s, "loss": 100.0 / s, "gradient_norm": 2.0} for s in (50, 100)]
    assert len(plots.training_curves(log, "short").axes) == 2
    diagnosis = {"loss_before": 3.0, "loss_after": 2.0, "sharpness": 0.1, "distance": 0.2}
    log.append({"step": 500, "loss": 1.0, "gradient_norm": None, **diagnosis})
    figure = plots.training_curves(log, "long")
    assert len(figure.axes) == 4
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xydata(), [[50, 2], [100, 1], [500, 1]])
    np.testing.assert_allclose(figure.axes[1].lines[0].get_xydata(), [[50, 2], [100, 2]])
    assert len(figure.axes[2].lines) == 2


def test_spikes_do_not_flatten_the_curves():
    """A first loss of 1e10, as with a large α, is stated instead of drawn; ordinary curves are drawn as a whole."""
    log = [{"step": step, "loss": 1000 + 1000 / step, "gradient_norm": 5.0 + step % 3} for step in range(2, 102)]
    log[0]["loss"], log[3]["loss"], log[7]["loss"] = 1.1e10, math.nan, 1400.0
    loss, norm = plots.training_curves(log, "a title").axes
    assert [text.get_text() for text in loss.texts] == ["2 of 99 points are higher, up to 1.1e+10"]
    low, high = loss.get_ylim()
    assert low < 1010 < high < 1500
    assert not norm.texts
    assert norm.get_ylim()[1] > 7
    constant = [{"step": step, "alpha": 1.0 if step == 1 else 0.001} for step in range(1, 101)]
    assert plots.training_curves(constant, "a title").axes[0].get_ylim()[1] > 1
    few = plots.training_curves(log[:10], "a title").axes[0]
    assert not few.texts
    assert few.get_ylim()[1] > 1e10


def texts(figure):
    """What is drawn, and whether it is parsed as mathematics."""
    return {text.get_text(): text.get_parse_math() for text in figure.findobj(Text)}


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_any_text_is_drawn(name, tmp_path):
    """No file name and no factor breaks a figure, or warns: it fits, and its characters are drawn as they stand."""
    x = torch.rand(3, 4, 1, 8, 8)
    drawn = {
        "grid": plots.image_grid(x, name, rows=[name] * 3, columns=[name] * 4),
        "sweep": plots.latent_sweep(x[0, 0], x, [-1, 0, 1, 2], name),
        "importance": plots.importance(np.ones((3, 2)) / 3, [name, "b"], name),
        "curves": plots.training_curves([{"step": 1, "loss": 2.0}], name),
        "deviation": plots.predictive_deviation(x[:, 0], {name: x[:, 1]}, {name: x[:, 2]}, name),
        "draws": plots.posterior_draws(x[0, 0], {name: x[0], "laplace": x[0]}, name),
    }
    for kind, figure in drawn.items():
        assert save(figure, str(tmp_path), kind).stat().st_size > 2000
    if len(name) < 10 and name:
        for kind in ("grid", "importance", "curves"):
            assert texts(drawn[kind])[" ".join(name.encode("utf-8", "replace").decode().split())] is False


def test_our_own_mathematics_is_mathematics():
    x = torch.rand(2, 4, 1, 8, 8)
    sweep = texts(plots.latent_sweep(x[0, 0], x, [-1, 0, 1, 2], "$title$"))
    assert sweep["$z_{1}$"] is sweep["$z_{2}$"] is True
    assert sweep["$title$"] is False
    heat = texts(plots.importance(np.ones((2, 1)) / 2, ["$f$"], ""))
    assert heat["$z_{2}$"] is True
    assert heat["$f$"] is False


def test_titles_fit_into_their_figures():
    figure = plots.importance(np.ones((3, 1)) / 3, ["digit"], "a word " * 15)
    figure.canvas.draw()
    box = figure._suptitle.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width


def test_the_title_of_an_unfinished_fit_says_so(tmp_path):
    fit(FitOptions.of("quick", dataset="digits", batch=2, num_neighbours=2, latent_dim=3, steps=2), tmp_path / "run")
    assert ", 2 steps, B = 2" in describe(load_run(tmp_path / "run"))
    write_state(tmp_path / "run", State("interrupted", 1, 2))
    assert ", 1 of 2 steps, B = 2" in describe(load_run(tmp_path / "run"))


def test_any_file_name_is_one_line_of_the_title():
    run = prepare(FitOptions.of("quick", dataset="digits", num_neighbours=2, latent_dim=3))
    object.__setattr__(run.dataset, "source", "images of a\nb\udcff (own data)")
    assert describe(run).splitlines()[1] == "images of a b? (own data), latent-knn neighbours"


def test_figures_do_not_depend_on_the_default_precision(double):
    run = prepare(FitOptions.of("quick", dataset="digits", num_neighbours=2, latent_dim=3))
    wide = draw_figure3(run)
    torch.set_default_dtype(torch.float32)
    for a, b in zip(wide.axes, draw_figure3(run).axes, strict=True):
        np.testing.assert_array_equal(a.images[0].get_array(), b.images[0].get_array())


@pytest.mark.parametrize("beta", [1.0, 0.25])
def test_figure_2_tells_the_protocol_that_its_rows_share(beta, tmp_path, monkeypatch):
    runs = [prepare(FitOptions("digits", alpha=alpha, local=local, beta=beta, num_neighbours=1, batch=4, steps=10))
            for alpha, local in ((0.0, "shared"), (1.0, "one-step"))]  # fmt: skip
    drawn = []
    monkeypatch.setattr("hierarchical_lvae.presentation.figures.save", lambda figure, *_: drawn.append(figure))
    compose("fig2", [("α = 0", runs[0]), ("α = 1", runs[1])], tmp_path)
    title = drawn[0].get_suptitle()
    assert title.startswith(("" if beta == 1 else "β = 0.25, ") + "10 steps, B = 4, K = 1 (preset ")
    assert {"α = 0", "α = 1"} <= set(texts(drawn[0]))

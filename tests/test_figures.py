import numpy as np
import pytest
import torch

from hierarchical_lvae import figures


def shown(figure):
    figure.canvas.draw()
    return [np.asarray(ax.images[0].get_array()) for ax in figure.axes]


def same(arrays, images):
    for array, image in zip(arrays, images, strict=True):
        np.testing.assert_allclose(array.reshape(*image.shape[1:], image.shape[0]), image.movedim(0, -1), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_figures_2_and_3_show_every_image_in_its_place(channels):
    references, samples = torch.rand(3, channels, 8, 8), torch.rand(3, 5, channels, 8, 8)
    figure = figures.conditional_prior_samples(samples, "a title")
    same(shown(figure), samples.flatten(0, 1))
    assert figure.get_suptitle().startswith("a title\n")
    figure = figures.conditional_samples(references, samples, "a title")
    same(shown(figure), [*references, *samples.flatten(0, 1)])
    assert figure.get_suptitle() == "a title"


def test_figure_4_shows_the_reference_once_and_names_the_values():
    reference, samples = torch.rand(3, 8, 8), torch.rand(2, 4, 3, 8, 8)
    figure = figures.latent_sweep(reference, samples, [-2, -1, 1, 2], "a title")
    same(shown(figure), [reference, torch.ones(3, 8, 8), *samples.flatten(0, 1)])
    assert [ax.get_title() for ax in figure.axes[2:6]] == ["-2", "-1", "1", "2"]


def test_reconstructions_are_in_four_rows():
    rows = torch.rand(4, 5, 1, 8, 8)
    same(shown(figures.reconstructions(*rows, "a title")), rows.flatten(0, 1))


def test_curves_draw_what_was_logged():
    log = [{"step": s, "loss": 100.0 / s, "gradient_norm": 2.0} for s in (50, 100)]
    assert len(figures.training_curves(log, "short").axes) == 2
    diagnosis = {"loss_before": 3.0, "loss_after": 2.0, "sharpness": 0.1, "distance": 0.2}
    log.append({"step": 500, "loss": 1.0, "gradient_norm": None, **diagnosis})
    figure = figures.training_curves(log, "long")
    assert len(figure.axes) == 4
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xydata(), [[50, 2], [100, 1], [500, 1]])
    np.testing.assert_allclose(figure.axes[1].lines[0].get_xydata(), [[50, 2], [100, 2]])
    assert len(figure.axes[2].lines) == 2

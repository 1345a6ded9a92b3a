import numpy as np
import pytest
import torch

from hierarchical_lvae.figures import conditional_samples


@pytest.mark.parametrize("channels", [1, 3])
def test_figure_3_shows_every_image_in_its_place(channels):
    references, samples = torch.rand(3, channels, 8, 8), torch.rand(3, 5, channels, 8, 8)
    figure = conditional_samples(references, samples, "a title")
    figure.canvas.draw()
    shown = [ax.images[0].get_array() for ax in figure.axes]
    expected = [*references, *samples.flatten(0, 1)]
    assert len(shown) == len(expected) == 3 + 15
    for array, image in zip(shown, expected, strict=True):
        np.testing.assert_allclose(np.asarray(array).reshape(8, 8, channels), image.movedim(0, -1), atol=1e-6)
    assert "a title" in figure.get_suptitle()

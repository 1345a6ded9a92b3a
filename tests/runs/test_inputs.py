"""A run that is used on something else than it needs says what, in one line."""

import numpy as np
import pytest
import torch

from hierarchical_lvae.runs import FitOptions, prepare

B, K, D = 3, 2, 4


def build(**changes):
    given = {"dataset": "digits", "neighbourhood": "noise", "num_neighbours": K, "latent_dim": D} | changes
    return prepare(FitOptions.of("quick", **given))


@pytest.fixture(scope="module")
def run():
    return build()


@pytest.fixture
def x(run):
    return run.dataset.batch(torch.arange(B))


@pytest.fixture
def x_N(run, x):
    return run.neighbourhood(torch.arange(B), x)


def uses(run):
    """Everything that takes images and their neighbours."""
    return run.adapt, run.encode, lambda x, x_N: run.sample(x, x_N, 2)


def refuses(error, message, use, *args):
    with pytest.raises(error) as found:
        use(*args)
    assert str(found.value) == message


def test_arguments_of_other_shapes_are_refused(run, x, x_N):
    """Otherwise they could broadcast to results that look right."""
    for use in uses(run):
        for wrong in (x_N, x[0], torch.rand(B, 3, 8, 8), torch.rand(B, 1, 16, 16)):
            message = f"images x have shape {tuple(wrong.shape)}: give (B, C, H, W) with (C, H, W) = (1, 8, 8)"
            refuses(ValueError, message, use, wrong, x_N)
        for wrong in (x, x_N[:, :0], x_N[:0], torch.rand(B, K, 3, 8, 8)):
            message = (
                f"neighbours x_N have shape {tuple(wrong.shape)}: give (B, K, C, H, W) with B and K at least 1 and "
                "(C, H, W) = (1, 8, 8)"
            )
            refuses(ValueError, message, use, x, wrong)
    refuses(
        ValueError,
        "images x have shape (1, 8, 8): give (B, C, H, W) with (C, H, W) = (1, 8, 8)",
        lambda: run.encode(x[0], None),
    )
    for z in (torch.randn(B, D), torch.randn(B, 1, D + 1), torch.randn(B, 0, D), torch.randn(0, 1, D)):
        for given in (x_N, None):
            message = f"codes z have shape {tuple(z.shape)}: give (B, S, 4) with B and S at least 1"
            refuses(ValueError, message, run.decode, z, given)


def test_neighbourhoods_must_be_as_many_as_images(run, x, x_N):
    message = "x_N holds 2 neighbourhoods, but B is 3: give one neighbourhood for each of the B images"
    for use in uses(run):
        refuses(ValueError, message, use, x, x_N[:2])
    refuses(ValueError, message, run.decode, torch.randn(B, 1, D), x_N[:2])


def test_arrays_are_refused(run, x, x_N):
    message = "{0} is of type {1}: give a tensor, such as torch.as_tensor({0}, dtype=torch.float32)"
    for use in uses(run):
        refuses(TypeError, message.format("x", "ndarray"), use, x.numpy(), x_N)
        refuses(TypeError, message.format("x", "list"), use, x.tolist(), x_N)
        refuses(TypeError, message.format("x_N", "ndarray"), use, x, x_N.numpy())
    refuses(TypeError, message.format("x_N", "NoneType"), run.adapt, x, None)
    refuses(TypeError, message.format("z", "ndarray"), run.decode, np.zeros((B, 1, D)), x_N)


def test_other_types_of_numbers_are_refused(run, x, x_N):
    message = "{} has dtype {}, but the weights have torch.float32: give {}"
    for use in uses(run):
        byte = message.format("x", "torch.uint8", "x.to(torch.float32) / 255")
        refuses(TypeError, byte, use, (x * 255).byte(), x_N)
        refuses(TypeError, message.format("x", "torch.float64", "x.to(torch.float32)"), use, x.double(), x_N)
        refuses(TypeError, message.format("x_N", "torch.float64", "x_N.to(torch.float32)"), use, x, x_N.double())
    z = torch.randn(B, 1, D, dtype=torch.float64)
    refuses(TypeError, message.format("z", "torch.float64", "z.to(torch.float32)"), run.decode, z, x_N)


def test_other_devices_are_refused(run, x, x_N):
    message = "{0} is on meta, but the run is on cpu: give {0}.to('cpu')"
    for use in uses(run):
        refuses(ValueError, message.format("x"), use, x.to("meta"), x_N)
        refuses(ValueError, message.format("x_N"), use, x, x_N.to("meta"))
    refuses(ValueError, message.format("z"), run.decode, torch.randn(B, 1, D, device="meta"), x_N)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x * 255, "{0} has pixels from 0 to 255, but they must be in [0, 1]: give {0} / 255"),
        (lambda x: x * 2 - 1, "{0} has pixels from -1 to 1, but they must be in [0, 1]: rescale {0}"),
        (lambda x: x * 1e3, "{0} has pixels from 0 to 1000, but they must be in [0, 1]: rescale {0}"),
        (
            lambda x: x + torch.nan,
            "{0} has pixels from nan to nan, but they must be in [0, 1]: replace what is not finite in {0}",
        ),
    ],
)
def test_pixels_outside_the_unit_interval_are_refused(run, x, x_N, change, message):
    for use in uses(run):
        for name, given in (("x", (change(x), x_N)), ("x_N", (x, change(x_N)))):
            refuses(ValueError, message.format(name), use, *given)


def test_rounding_and_gaussian_noise_are_accepted(run, x, x_N):
    assert run.encode(x * 1.0005, x_N * 1.0005).shape == (B, D)
    gaussian = build(likelihood="gaussian")
    noise = gaussian.neighbourhood(torch.arange(B), x)
    assert noise.min() < -0.01  # is what this test is about
    for use in uses(gaussian):
        use(x, noise)
    with pytest.raises(ValueError, match=r"x has pixels from 0 to 255"):
        gaussian.encode(x * 255, noise)
    assert build(likelihood="continuous-bernoulli").encode(x, x_N).shape == (B, D)


def test_the_number_of_samples_is_at_least_one(run, x, x_N):
    for number in (0, -1):
        refuses(ValueError, f"num_samples is {number}: it must be at least 1", run.sample, x, x_N, number)
    refuses(TypeError, "num_samples is 1.5: it must be int", run.sample, x, x_N, 1.5)
    assert run.sample(x, x_N, np.int64(2)).shape == run.sample(x, None, 2).shape == (B, 2, 1, 8, 8)


def test_no_images_have_no_meta_codes(run, x):
    assert run.encode(x[:0], None).shape == (0, D)


def test_the_program_itself_refuses_empty_neighbourhoods(run, x_N):
    for empty in (x_N[:, :0], x_N[:0]):
        for program in (run.vae.model, run.vae.guide):
            with pytest.raises(ValueError, match=r"images have shape .* with B and K at least 1 and \(C, H, W\) = "):
                program(empty)

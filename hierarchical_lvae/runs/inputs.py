"""Checks of what a run is used on: images, neighbours, codes and numbers of samples.

An error is one line with the argument, what was given, and the remedy. Checking the range of the pixels reads two
numbers on the host; a training step does not pass through here.
"""

from typing import Any

import torch
from torch import Tensor

from hierarchical_lvae.models import LocalVAE
from hierarchical_lvae.models.likelihoods import Gaussian, check_pixels
from hierarchical_lvae.runs.options import exactly


def check_images(x: Any, vae: LocalVAE) -> None:
    """Check images x (B, C, H, W).

    Raises:
        TypeError: x is not a tensor of the dtype of the weights.
        ValueError: it has another shape, is on another device, or has pixels outside [0, 1].
    """
    _check_tensor("x", x, vae)
    if x.dim() != 4 or x.shape[1:] != vae.image_shape:
        raise ValueError(
            f"images x have shape {tuple(x.shape)}: give (B, C, H, W) with (C, H, W) = {tuple(vae.image_shape)}"
        )
    check_pixels("x", x)


def check_neighbours(x_N: Any, number: int, vae: LocalVAE) -> None:
    """Check neighbours x_N (B, K, C, H, W), where B is `number`.

    With a Gaussian likelihood, neighbours may be outside [0, 1]: noise is drawn from it.

    Raises:
        TypeError: x_N is not a tensor of the dtype of the weights.
        ValueError: B is another number, or x_N has another shape, is on another device, or has pixels out of range.
    """
    _check_tensor("x_N", x_N, vae)
    if x_N.dim() != 5 or x_N.shape[2:] != vae.image_shape or 0 in x_N.shape:
        raise ValueError(
            f"neighbours x_N have shape {tuple(x_N.shape)}: give (B, K, C, H, W) with B and K at least 1 and "
            f"(C, H, W) = {tuple(vae.image_shape)}"
        )
    if len(x_N) != number:
        raise ValueError(
            f"x_N holds {len(x_N)} neighbourhoods, but B is {number}: give one neighbourhood for each of the B images"
        )
    if not isinstance(vae.likelihood, Gaussian):
        check_pixels("x_N", x_N)


def check_codes(z: Any, vae: LocalVAE) -> None:
    """Check codes z (B, S, D).

    Raises:
        TypeError: z is not a tensor of the dtype of the weights.
        ValueError: it has another shape, or is on another device.
    """
    _check_tensor("z", z, vae)
    if z.dim() != 3 or z.shape[-1] != vae.latent_dim or 0 in z.shape:
        raise ValueError(f"codes z have shape {tuple(z.shape)}: give (B, S, {vae.latent_dim}) with B and S at least 1")


def check_number(name: str, value: Any) -> int:
    """Return a number of things as an int.

    >>> check_number("num_samples", 3.0)
    3

    Raises:
        TypeError: the value is not an integer.
        ValueError: it is below 1.
    """
    try:
        number: int = exactly(int, value)
    except TypeError as error:
        raise TypeError(f"{name} {error}") from None
    if number < 1:
        raise ValueError(f"{name} is {number}: it must be at least 1")
    return number


def _check_tensor(name: str, value: Any, vae: LocalVAE) -> None:
    weights = vae.theta
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} is of type {type(value).__name__}: give a tensor, such as "
            f"torch.as_tensor({name}, dtype={weights.dtype})"
        )
    if value.dtype != weights.dtype:
        remedy = f"{name}.to({weights.dtype})" + (" / 255" if value.dtype == torch.uint8 else "")
        raise TypeError(f"{name} has dtype {value.dtype}, but the weights have {weights.dtype}: give {remedy}")
    if value.device != weights.device:
        raise ValueError(
            f"{name} is on {value.device}, but the run is on {weights.device}: give {name}.to({str(weights.device)!r})"
        )

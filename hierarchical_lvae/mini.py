"""The whole paper in one file: the Local VAE for images, in plain PyTorch, one neighbourhood at a time.

A VAE encodes an image x as a code z, with weights θ (decoder) and φ (encoder) shared by all images. Its loss is

    (1)   L(θ, φ; x) = −E_{q(z | x, φ)} log p(x | z, θ) + KL(q(z | x, φ) ‖ p(z))

The Local VAE gives the neighbourhood N of each image its own weights, one gradient step away from the shared ones:

    (7)   θ_N = θ − α ∇_θ (1/K) Σ_{x ∈ N} L(θ, φ; x) / (C·H·W)
    (8)   φ_N = φ − α ∇_φ (1/K) Σ_{x ∈ N} L(θ, φ; x) / (C·H·W)

and trains θ and φ *through* that step on the image itself, so that one step is enough (as in MAML):

    (6)   min_{θ, φ} Σ_x L(θ_N, φ_N; x)

α = 0 is the plain VAE. The paper does not state the division by C·H·W: we infer it. Run it on coloured squares with

    python -m hierarchical_lvae.mini
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = list[Tensor]


# ----------------------------------------------------------------------------------- the networks of Table 3


def channels_and_size(image_shape: tuple[int, int, int]) -> tuple[list[int], int]:
    """Channels of each feature map, starting with the image, and the side of the last; images have sides of 8 · 2ⁿ."""
    depth = int(math.log2(image_shape[1])) - 2
    return [image_shape[0]] + [32] * (depth - 2) + [64] * min(depth, 2), image_shape[1] >> depth


def glorot(*shape: int) -> Tensor:
    """Draw a Glorot-uniform weight of this shape."""
    return torch.nn.init.xavier_uniform_(torch.empty(shape))


def initial_weights(image_shape: tuple[int, int, int], latent_dim: int) -> tuple[Weights, Weights]:
    """Draw θ (decoder) and φ (encoder): a weight and a bias for each layer."""
    channels, size = channels_and_size(image_shape)
    flat = channels[-1] * size * size
    theta = [glorot(256, latent_dim), torch.zeros(256), glorot(flat, 256), torch.zeros(flat)]
    for above, below in zip(channels[:0:-1], channels[-2::-1], strict=True):
        theta += [glorot(above, below, 4, 4), torch.zeros(below)]
    phi = []
    for above, below in pairwise(channels):
        phi += [glorot(below, above, 4, 4), torch.zeros(below)]
    phi += [glorot(256, flat), torch.zeros(256), glorot(2 * latent_dim, 256), torch.zeros(2 * latent_dim)]
    return [t.requires_grad_() for t in theta], [t.requires_grad_() for t in phi]


def decode(z: Tensor, theta: Weights) -> Tensor:
    """Map codes (n, D) to the logits of images (n, C, H, W)."""
    h = F.linear(z, *theta[0:2]).relu()
    h = F.linear(h, *theta[2:4]).relu()
    channels = theta[4].shape[0]
    side = math.isqrt(h.shape[1] // channels)
    h = h.view(-1, channels, side, side)
    for i in range(4, len(theta), 2):
        h = F.conv_transpose2d(h, theta[i], theta[i + 1], stride=2, padding=1)
        h = h.relu() if i + 2 < len(theta) else h
    return h


def encode(x: Tensor, phi: Weights) -> tuple[Tensor, Tensor]:
    """Map images (n, C, H, W) in [0, 1] to the mean and the log standard deviation of their codes, each (n, D)."""
    h = x
    for i in range(0, len(phi) - 4, 2):
        h = F.conv2d(h, phi[i], phi[i + 1], stride=2, padding=1).relu()
    h = F.linear(h.flatten(1), *phi[-4:-2]).relu()
    mean, log_sigma = F.linear(h, *phi[-2:]).chunk(2, dim=1)
    return mean, log_sigma


# ------------------------------------------------------------------------------------------- the objective


def reconstruction(output: Tensor, x: Tensor) -> Tensor:
    """−log p(x | z, θ) in nats, summed, of Bernoulli pixels x (n, C, H, W) whose logits are the decoder's output."""
    return F.binary_cross_entropy_with_logits(output, x, reduction="sum")


def negative_elbo(theta: Weights, phi: Weights, x: Tensor, noise: Tensor) -> Tensor:
    """(1), in nats, summed over n images (n, C, H, W); standard normal `noise` (n, D) gives the draws of the codes."""
    mean, log_sigma = encode(x, phi)
    z = mean + log_sigma.exp() * noise
    kl = 0.5 * (mean**2 + (2 * log_sigma).exp() - 2 * log_sigma - 1).sum()
    return reconstruction(decode(z, theta), x) + kl


def local_weights(
    theta: Weights, phi: Weights, x_N: Tensor, noise_N: Tensor, alpha: float, create_graph: bool = True
) -> tuple[Weights, Weights]:
    """(7) and (8), for one neighbourhood x_N (K, C, H, W): one step that can be differentiated through."""
    loss = negative_elbo(theta, phi, x_N, noise_N) / x_N.numel()
    gradients = torch.autograd.grad(loss, theta + phi, create_graph=create_graph)
    stepped = [weight - alpha * g for weight, g in zip(theta + phi, gradients, strict=True)]
    return stepped[: len(theta)], stepped[len(theta) :]


def meta_loss(
    theta: Weights, phi: Weights, x: Tensor, x_N: Tensor, noise: Tensor, noise_N: Tensor, alpha: float
) -> Tensor:
    """(6), in nats, summed over B queries x (B, C, H, W) with their neighbours x_N (B, K, C, H, W)."""
    loss = torch.zeros(())
    for i in range(len(x)):
        theta_N, phi_N = local_weights(theta, phi, x_N[i], noise_N[i], alpha)
        loss = loss + negative_elbo(theta_N, phi_N, x[i : i + 1], noise[i : i + 1])
    return loss


# --------------------------------------------------------------------------------------- Algorithm 1, and a toy


def squares(n: int, size: int = 16) -> Tensor:
    """Draw images (n, 3, size, size) of a square on a mostly darker background; colours and position are uniform."""
    colours = torch.rand(n, 2, 3, 1, 1) * torch.tensor([1.0, 0.5]).view(2, 1, 1, 1)
    across = torch.arange(size)
    corner = torch.randint(0, size // 2 + 1, (n, 2, 1))
    rows, columns = ((across >= corner) & (across < corner + size // 2)).unbind(1)
    return torch.where((rows[:, :, None] & columns[:, None])[:, None], colours[:, 0], colours[:, 1])


def train(alpha: float, steps: int = 200, B: int = 4, K: int = 5, latent_dim: int = 4) -> tuple[Weights, Weights]:
    """Algorithm 1, with neighbours drawn from the observation noise: a Bernoulli with the image as its mean."""
    theta, phi = initial_weights((3, 16, 16), latent_dim)
    optimizer = torch.optim.Adam(theta + phi, lr=1e-3)
    for step in range(1, steps + 1):
        x = squares(B)
        x_N = x.unsqueeze(1).expand(-1, K, -1, -1, -1).bernoulli()
        loss = meta_loss(theta, phi, x, x_N, torch.randn(B, latent_dim), torch.randn(B, K, latent_dim), alpha) / B
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"α = {alpha:g}   step {step}   {loss.item():.1f} nats per image")
    return theta, phi


if __name__ == "__main__":
    for alpha in (0.0, 1.0):
        torch.manual_seed(0)
        train(alpha)

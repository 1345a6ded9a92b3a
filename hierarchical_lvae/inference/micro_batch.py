"""A meta-step in less memory: the loss is a sum over neighbourhoods, and so is its gradient.

A step through a step holds the activations of all B·K points at once; few neighbourhoods at a time hold few.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from hierarchical_lvae.inference.bound import Program
from hierarchical_lvae.inference.elbo import LocalELBO


def accumulate_gradients(
    elbo: LocalELBO, model: Program, guide: Program, query: Any, support: Any, micro_batch: int, scale: float = 1.0
) -> Tensor:
    """Add the gradients of `scale` times the loss to the parameters', `micro_batch` neighbourhoods at a time.

    The same as one backward pass over all of them, but for the order in which the codes are drawn.

    Args:
        elbo, model, guide: whose loss.
        query, support: B neighbourhoods each along the first dimension, tensors or tuples of them.
        micro_batch: how many neighbourhoods at a time; the last ones may be fewer.
        scale: of the loss, such as 1 / B.

    Returns:
        The scaled loss, detached: a scalar.

    >>> from hierarchical_lvae.inference import OneStepMAP
    >>> from hierarchical_lvae.models import LocalVAE
    >>> vae, query, support = LocalVAE(1.0, 2, (1, 8, 8)), torch.rand(5, 1, 8, 8), torch.rand(5, 2, 1, 8, 8)
    >>> accumulate_gradients(LocalELBO(OneStepMAP()), vae.model, vae.guide, query, support, micro_batch=2).shape
    torch.Size([])
    """
    if micro_batch < 1:
        raise ValueError(f"micro_batch is {micro_batch}: at least one neighbourhood at a time is needed")
    tensors, structure = tree_flatten((query, support))
    losses = []
    for pieces in zip(*(tensor.split(micro_batch) for tensor in tensors), strict=True):
        loss = scale * elbo.differentiable_loss(model, guide, *tree_unflatten(list(pieces), structure))
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum()

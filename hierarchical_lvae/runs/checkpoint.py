"""The checkpoint: the tensors that a fit needs to resume. Work since the last checkpoint is repeated."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hierarchical_lvae.files import moments, named, restore_moments
from hierarchical_lvae.types import Stateful


def pack(
    vae: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    others: Mapping[str, Stateful],
    step: int,
    losses: list[float],
) -> dict[str, Tensor]:
    """Collect all tensors that a fit needs to resume exactly, by name; the keys of `others` prefix their tensors."""
    tensors = {f"vae.{name}": value for name, value in vae.state_dict().items()}
    tensors |= moments(optimizer)
    tensors |= {prefix + name: value for prefix, one in others.items() for name, value in one.state_dict().items()}
    tensors |= {"step": torch.tensor(step), "losses": torch.tensor(losses, dtype=torch.float64)}
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_initialized():
        tensors["random.cuda"] = torch.cuda.get_rng_state()  # the current device is the fit's
    if next(vae.parameters()).device.type == "mps":
        tensors["random.mps"] = torch.mps.get_rng_state()
    return tensors


def unpack(
    tensors: Mapping[str, Tensor],
    vae: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    others: Mapping[str, Stateful],
) -> tuple[int, list[float]]:
    """Restore the tensors that `pack` collected.

    Returns the step and the losses not yet logged.

    Raises:
        ValueError: the tensors belong to another model, or some are missing.
    """
    try:
        vae.load_state_dict(named(tensors, "vae."))
        restore_moments(optimizer, tensors)
        for prefix, one in others.items():
            one.load_state_dict(named(tensors, prefix))
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random.cuda"])
        if "random.mps" in tensors and torch.backends.mps.is_available():
            torch.mps.set_rng_state(tensors["random.mps"])
        return int(tensors["step"]), tensors["losses"].tolist()
    except (KeyError, IndexError, TypeError, RuntimeError, ValueError) as error:  # not what `pack` returned
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ValueError(f"it is not a checkpoint of this model ({why})") from error

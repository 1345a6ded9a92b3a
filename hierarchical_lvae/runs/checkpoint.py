"""What a fit needs to continue, as one file of tensors: work since the last checkpoint is repeated."""

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
    """All that a fit needs to resume exactly: tensors by name, those of `others` behind a prefix."""
    tensors = {f"vae.{name}": value for name, value in vae.state_dict().items()}
    tensors |= moments(optimizer)
    tensors |= {prefix + name: value for prefix, one in others.items() for name, value in one.state_dict().items()}
    tensors |= {"step": torch.tensor(step), "losses": torch.tensor(losses, dtype=torch.float64)}
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_initialized():
        tensors["random.cuda"] = torch.cuda.get_rng_state()  # of the current device, which is the fit's
    return tensors


def unpack(
    tensors: Mapping[str, Tensor],
    vae: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    others: Mapping[str, Stateful],
) -> tuple[int, list[float]]:
    """Put what `pack` gave back in place.

    Returns the step and the losses not yet logged.

    Raises:
        ValueError: they are of another model, or not all there.
    """
    try:
        vae.load_state_dict(named(tensors, "vae."))
        restore_moments(optimizer, tensors)
        for prefix, one in others.items():
            one.load_state_dict(named(tensors, prefix))
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random.cuda"])
        return int(tensors["step"]), tensors["losses"].tolist()
    except (KeyError, IndexError, TypeError, RuntimeError, ValueError) as error:  # of whatever is not as it was packed
        raise ValueError(f"it is no checkpoint of this model ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"

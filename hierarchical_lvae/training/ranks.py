"""Several processes that train one model: `torchrun --nproc-per-node N -m hierarchical_lvae fit …`.

All draw the same batch by the same random state; each takes some of its neighbourhoods, and the gradients are summed.
So all have the same weights at each step, and the first process (rank 0) alone writes.
"""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import torch
import torch.distributed as dist
from torch import Tensor


class Ranks:
    """This process among those that train together; one that trains alone is rank 0 of 1."""

    def __init__(self) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if together else 0
        self.world = dist.get_world_size() if together else 1

    @property
    def writes(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Sum each tensor over all processes, in place.

        Raises:
            ConnectionError: a process was lost.
        """
        if self.world == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        try:
            dist.all_reduce(flat)
        except RuntimeError as error:
            raise ConnectionError(
                f"one of the {self.world} processes was lost ({str(error).splitlines()[0]}): "
                "the last checkpoint is kept: continue with `resume` and the run directory"
            ) from error
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let the first process go first: what it leaves in a cache, the others find there."""
        if self.world > 1 and self.rank > 0:
            dist.barrier()
        yield
        if self.world > 1 and self.rank == 0:
            dist.barrier()

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process."""
        if self.world == 1:
            return flag
        raised = torch.tensor(float(flag))
        self.sum([raised])
        return bool(raised.item())


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the other processes, if torchrun has started this one: by Gloo, and NCCL if they have a GPU each.

    Args:
        device: of the fit; "cpu" needs no GPU, "cuda" and "auto" mean that of this process.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    on_gpus = torch.cuda.is_available() and device != "cpu"
    if on_gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # what "cuda" means in this process
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo")
    try:
        yield Ranks()
        with suppress(RuntimeError):  # another has failed, and says why
            dist.barrier()  # all leave together: one that leaves earlier can be aborted by threads of Gloo
    except BaseException:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, that would come before our line is told
        raise
    finally:
        dist.destroy_process_group()

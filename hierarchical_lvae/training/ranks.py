"""Several processes that train one model: `torchrun --nproc-per-node N -m hierarchical_lvae fit …`.

All processes draw the same batch from the same random state. Each computes the gradient of some of its neighbourhoods,
and the gradients are summed. All therefore have the same weights at each step, and only the first process (rank 0)
writes files.
"""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import torch
import torch.distributed as dist
from torch import Tensor


class Ranks:
    """The rank of this process among those that train together; a process that trains alone has rank 0 of 1."""

    def __init__(self) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if together else 0
        self.world = dist.get_world_size() if together else 1

    @property
    def writes(self) -> bool:
        """Whether this process writes files and messages."""
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
                f"one of the {self.world} processes was lost ({str(error).splitlines()[0]}), but the last checkpoint "
                "is kept: continue with `resume` and the run directory"
            ) from error
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let the first process go first, so that the others find its results in the cache."""
        if self.world > 1 and self.rank > 0:
            dist.barrier()
        yield
        if self.world > 1 and self.rank == 0:
            dist.barrier()

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.world == 1:
            return flag
        raised = torch.tensor(float(flag))
        self.sum([raised])
        return bool(raised.item())


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the other processes, if torchrun started this one: with Gloo, and also NCCL if each has a GPU.

    Args:
        device: of the fit; "cpu" uses no GPU, "cuda" and "auto" mean the GPU of this process.

    Raises:
        ValueError: several processes are to share a batch on "mps".
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    if device == "mps":
        raise ValueError("several processes cannot share a batch on mps: train in one, or use the `device` cpu")
    on_gpus = torch.cuda.is_available() and device != "cpu"
    if on_gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # what "cuda" means in this process
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo")
    try:
        yield Ranks()
        with suppress(RuntimeError):  # another process failed and reports why
            dist.barrier()  # all leave together: Gloo's threads can abort a process that leaves early
    except BaseException:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, which would come before our message is printed
        raise
    finally:
        dist.destroy_process_group()

"""How much rounding a result in single precision may show: about as much as a slow, obvious computation of it does.

A fixed tolerance holds for the seeds and processors that it was tried on. Here the yardstick is measured instead: in
single precision the slow computation rounds about as often as the fast one, and is equally well conditioned. Both are
compared with the slow one in double precision.
"""

SLACK = 30  # over hundreds of seeds, threads and instruction sets, the ratio of errors is 1 in the median and 7 at most


def errors(found, exact):
    """The relative error of each tensor, by norms."""
    return [((a.double() - b).norm() / b.norm()).item() for a, b in zip(found, exact, strict=True)]


def assert_rounds_like(fast, slow, exact):
    """The largest relative error of `fast` tensors is not much larger than that of `slow` ones, and that is small."""
    assert max(errors(fast, exact)) < SLACK * max(errors(slow, exact)) < 1e-3

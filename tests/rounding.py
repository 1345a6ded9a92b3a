"""How much rounding a result in single precision may show: about as much as a slow, obvious computation of it does.

A fixed tolerance holds for the seeds and processors that it was tried on. Here the yardstick is measured instead: in
single precision the slow computation rounds about as often as the fast one, and is equally well conditioned. Both are
compared with the slow one in double precision.
"""

SLACK = 10  # over hundreds of seeds, on several instruction sets, the ratio of the errors was about 1 and at most 3.6


def errors(found, exact):
    """The relative error of each tensor, by norms."""
    return [((a.double() - b).norm() / b.norm()).item() for a, b in zip(found, exact, strict=True)]


def assert_rounds_like(fast, slow, exact):
    """The largest relative error of `fast` tensors is not much larger than that of `slow` ones, and that is small."""
    assert max(errors(fast, exact)) < SLACK * max(errors(slow, exact)) < 1e-3

"""What our programs have in common: parameters that do not collide in Pyro's global store."""

from itertools import count

from pyro.nn import PyroModule


class Program(PyroModule):
    """A PyroModule whose parameters have a name of their own for each instance.

    Pyro keeps parameters by name in one store, and the first to come stays: of two modules with a parameter `theta`
    each, `SVI` would train the first alone, without a word. Here they are `LocalVAE_0.theta`, `LocalVAE_1.theta`, …
    (in Pyro's store; in `state_dict` they are `theta`).
    """

    _instances = count()

    def __init__(self) -> None:
        super().__init__(f"{type(self).__name__}_{next(Program._instances)}")

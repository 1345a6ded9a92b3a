"""What our programs have in common: parameters that do not collide in Pyro's global store."""

from itertools import count
from typing import Any

from pyro.nn import PyroModule


class Program(PyroModule):
    """A PyroModule whose parameters have a name of their own for each instance.

    Pyro keeps parameters by name in one store, and the first to come stays: of two modules with a parameter `theta`
    each, `SVI` would train the first alone, without a word. Here they are `LocalVAE_0.theta`, `LocalVAE_1.theta`, …
    (in Pyro's store; in `state_dict` they are `theta`). A copy, or a module that was unpickled, is an instance of its
    own.
    """

    _instances = count()

    def __init__(self) -> None:
        super().__init__(self._own_name())

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a copied or unpickled instance under a name of its own."""
        super().__setstate__(state)
        own = PyroModule(self._own_name())
        for name, module in self.named_modules():
            if isinstance(module, PyroModule):
                full = f"{own._pyro_name}.{name}" if name else own._pyro_name
                module.__dict__.update(_pyro_name=full, _pyro_context=own._pyro_context)

    def __copy__(self) -> "Program":
        """A shallow copy shares its parts and parameters with the original, and so their names."""
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def _own_name(self) -> str:
        return f"{type(self).__name__}_{next(Program._instances)}"

"""The base class of our programs: their parameters do not collide in Pyro's global store."""

from itertools import count
from typing import Any

from pyro.nn import PyroModule


class Program(PyroModule):
    """A PyroModule whose parameter names are unique to each instance.

    Pyro stores parameters by name in one global store and keeps the first one registered under a name: if two modules
    both had a parameter `theta`, `SVI` would silently train only the first. Here the names are `LocalVAE_0.theta`,
    `LocalVAE_1.theta`, … in Pyro's store (and `theta` in `state_dict`). Deep copies and unpickled modules get names of
    their own.
    """

    _instances = count()

    def __init__(self) -> None:
        super().__init__(self._own_name())

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a deep-copied or unpickled instance under a new name."""
        super().__setstate__(state)
        own = PyroModule(self._own_name())
        for name, module in self.named_modules():
            if isinstance(module, PyroModule):
                full = f"{own._pyro_name}.{name}" if name else own._pyro_name
                module.__dict__.update(_pyro_name=full, _pyro_context=own._pyro_context)

    def __copy__(self) -> "Program":
        """Make a shallow copy, which shares submodules, parameters and their names with the original."""
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def _own_name(self) -> str:
        return f"{type(self).__name__}_{next(Program._instances)}"

"""Algorithm 1: the loop, the gradient of a step, and the processes and the memory that it runs in.

fit(FitOptions.of("quick", dataset="3dshapes"), out)    # writes a run directory
resume(out)                                             # continues after an interruption
run = load_run(out)                                     # reads it back
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Training by Algorithm 1: the loop, the meta-gradient, several processes, and memory.

fit(FitOptions.of("quick", dataset="3dshapes"), out)    # writes a run directory
resume(out)                                             # continues after an interruption
run = load_run(out)                                     # loads it
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

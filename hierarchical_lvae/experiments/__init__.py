"""The paper's tables and figures as records, and the runs that fill them, with the published values beside ours."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

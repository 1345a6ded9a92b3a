"""The paper's tables and figures as records, and the runs that reproduce them, with published values next to ours."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

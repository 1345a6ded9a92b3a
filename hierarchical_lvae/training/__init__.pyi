from .estimate import estimate_seconds as estimate_seconds
from .loop import fit as fit
from .loop import resume as resume

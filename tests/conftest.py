import os

import matplotlib as mpl
import pyro
import pytest
import torch

from hierarchical_lvae import progress

mpl.use("Agg")
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # one process a core


@pytest.fixture(autouse=True, scope="session")
def no_bars():
    """No progress bars, in this process."""
    with progress.hidden():
        yield


@pytest.fixture(autouse=True)
def fresh_state():
    """A seed, an empty parameter store and validated programs for each test."""
    torch.manual_seed(0)
    pyro.clear_param_store()
    pyro.enable_validation(True)


@pytest.fixture
def double():
    """Make float64 the default for one test."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)

import re

import pytest

from hierarchical_lvae import progress
from hierarchical_lvae.runs import FitOptions
from hierarchical_lvae.training import fit

SMALL = FitOptions.of("quick", dataset="digits", neighbourhood="noise", steps=3, batch=2, num_neighbours=2)


@pytest.fixture
def shown():
    """Bars, which the other tests hide."""
    token = progress._SHOWN.set(True)
    yield
    progress._SHOWN.reset(token)


def test_a_fit_shows_its_steps_and_the_time_that_is_left(shown, tmp_path, capsys):
    fit(SMALL, tmp_path / "run")
    last = capsys.readouterr().err.split("\r")[-1]
    assert re.search(r"fit: 100%.* 3/3 \[\d\d:\d\d<\d\d:\d\d", last)


def test_hidden_bars_leave_no_trace_and_come_back(shown, tmp_path, capsys):
    with progress.hidden():
        fit(SMALL, tmp_path / "run")
        with progress.hidden(False):  # does not show what is hidden around it
            assert not progress.shown()
    assert capsys.readouterr().err == ""
    assert progress.shown()

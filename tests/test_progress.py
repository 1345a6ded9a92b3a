import re
import sys
from dataclasses import replace

import pytest
import torch
from tqdm import tqdm

from hierarchical_lvae import progress
from hierarchical_lvae.inference.nuts import nuts
from hierarchical_lvae.models import LocalLinearRegression
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


@pytest.mark.parametrize("live", [False, True])
def test_a_log_file_gets_few_updates(shown, tmp_path, capsys, monkeypatch, live):
    """Without a terminal: the first and the last, with the loss."""
    if live:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fit(replace(SMALL, steps=150), tmp_path / "run")
    updates = re.findall("fit: [^\r]*", capsys.readouterr().err)
    assert len(updates) > 2 if live else len(updates) == 2
    assert re.search(r"150/150 .*nats per image", updates[-1])


@pytest.mark.parametrize("live", [False, True])
def test_the_bar_of_pyro_is_shown_only_where_it_can_be_updated(shown, capsys, monkeypatch, live):
    monkeypatch.setattr(progress, "live", lambda: live)
    for name in ("CI", "PYTEST_XDIST_WORKER"):  # Pyro hides its bar where one of them is set
        monkeypatch.delenv(name, raising=False)
    program, data = LocalLinearRegression(torch.randn(3), 0.4, 0.9), (torch.randn(1, 6, 3), torch.randn(1, 6))
    nuts(program.model, program.guide, data, num_samples=2, warmup_steps=2, num_chains=1)
    assert bool(capsys.readouterr().err) is live


def test_an_interval_that_is_set_applies_everywhere(shown, monkeypatch):
    usual = tqdm([], disable=False).mininterval
    with progress.bar() as bar:
        assert (bar.mininterval, progress.live()) == (progress.RARELY, False)
    monkeypatch.setenv("TQDM_MININTERVAL", "1")  # tqdm itself has read it when it was imported
    with progress.bar() as bar:
        assert (bar.mininterval, progress.live()) == (usual, True)


def test_hidden_bars_leave_no_trace_and_come_back(shown, tmp_path, capsys):
    with progress.hidden():
        fit(SMALL, tmp_path / "run")
        with progress.hidden():
            pass
        assert not progress.shown()  # the end of the inner block does not show what is hidden around it
    assert capsys.readouterr().err == ""
    assert progress.shown()

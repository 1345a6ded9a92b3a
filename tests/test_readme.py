"""The README says what is so: its code runs, its links lead somewhere, its options exist."""

import re
from pathlib import Path

from click.testing import CliRunner

from hierarchical_lvae.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_its_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL):  # from top to bottom
        exec(block, namespace)


def test_its_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_its_commands_have_these_options():
    for line in re.findall(r"\.venv/bin/hlvae ([^\n]+)", README):
        command, *args = line.split()
        help_text = CliRunner().invoke(main, [command, "--help"]).output
        assert all(arg in help_text for arg in args if arg.startswith("--"))


def test_the_links_at_the_top_are_the_rooms():
    for name in ("models", "inference"):
        assert (ROOT / name).resolve() == (ROOT / "hierarchical_lvae" / name).resolve()

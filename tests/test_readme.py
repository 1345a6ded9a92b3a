"""README and docs say what is so: their code runs, their links lead somewhere, their options exist."""

import csv
import re
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import pytest
from click.testing import CliRunner

from hierarchical_lvae.cli import main
from hierarchical_lvae.inference import LOCAL_INFERENCE
from hierarchical_lvae.neighbourhoods import NEIGHBOURHOODS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_CODE = [page for page in PAGES if "```python" in page.read_text()]


def name(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", WITH_CODE, ids=name)
def test_its_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = ModuleType("__main__")  # the blocks from top to bottom, as if they were one
    monkeypatch.setitem(sys.modules, "__main__", script)
    with patch.dict(NEIGHBOURHOODS), patch.dict(LOCAL_INFERENCE):
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
            exec(block, script.__dict__)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_its_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_every_page_and_notebook_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in PAGES[2:]:
        assert f"{page.relative_to(ROOT / 'docs')}\n" in navigation
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"notebooks/{notebook.stem}.md\n" in navigation


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_functions_that_it_quotes_exist(page):
    for path, function in re.findall(r"<!-- source: (\S+) (\w+) -->", page.read_text()):
        assert f"\ndef {function}(" in (ROOT / path).read_text(), function


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_its_commands_have_these_options(page):
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", page.read_text(), flags=re.DOTALL))
    for line in re.findall(r"(?:^|/|-m )(?:hlvae|hierarchical_lvae) ([^\n#]+)", shell, flags=re.MULTILINE):
        command, *args = line.split()
        help_text = CliRunner().invoke(main, [command, "--help"]).output
        assert [arg for arg in args if arg.startswith("-") and arg not in help_text] == []


def test_the_verdicts_give_the_range_of_the_plain_vae_at_32():
    page = (ROOT / "docs/results.md").read_text()
    (cells,) = re.findall(r"^\| α = 0 \| [\d., ]+ \| [\d., ]+ \| ([\d., ]+) \| [\d., ]+ \|$", page, flags=re.MULTILINE)
    with (ROOT / "docs/table1-quick.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["row"] == "alpha-0" and row["seed"] != "published"]
    found = [*map(float, cells.split(",")), *(float(row["informativeness, without colour"]) for row in rows)]
    assert len(found) == 10
    assert f"(five seeds each, 32×32), against {min(found):.2f} to {max(found):.2f} (paper" in page


def test_the_links_at_the_top_are_the_rooms():
    for room in ("models", "inference"):
        assert (ROOT / room).resolve() == (ROOT / "hierarchical_lvae" / room).resolve()

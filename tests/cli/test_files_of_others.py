"""Files that the program did not write stay as they are, wherever a command writes."""

import json

import pytest
from click.testing import CliRunner

from hierarchical_lvae.bench import step as benchmark
from hierarchical_lvae.cli import main
from hierarchical_lvae.experiments import TABLES
from hierarchical_lvae.presentation.tables import refuse_others, write

BENCH = ["bench", "--device", "cpu", "-B", "1", "-K", "1", "--image-size", "8", "--rounds", "1", "--json"]


def hlvae(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize("content", ["my notes", '{"mine": 1}', "[1]", '{"plain": 3}'])
def test_bench_replaces_only_its_own_results(content, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "bench", lambda *_, **__: pytest.fail("measured before the file was looked at"))
    file = tmp_path / "numbers.json"
    file.write_text(content, encoding="utf-8")
    result = hlvae(*BENCH, file)
    assert result.exit_code == 1
    assert result.stderr == f"Error: {file} exists and is not a result of hlvae bench: choose another --json\n"
    assert file.read_text(encoding="utf-8") == content


def test_bench_replaces_a_result_and_an_empty_file(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "find_spec", lambda name: None)
    file = tmp_path / "numbers.json"
    for before in ("", '{"plain": {"seconds": 1e9, "ratio": 1.0}}'):
        file.write_text(before, encoding="utf-8")
        result = hlvae(*BENCH, file)
        assert result.exit_code == 0, result.output
        assert json.loads(file.read_text(encoding="utf-8"))["plain"]["seconds"] < 1e9
    assert [path.name for path in tmp_path.iterdir()] == ["numbers.json"]


def test_render_replaces_nothing(tmp_path):
    file = tmp_path / "mine.h5"
    file.touch()
    result = hlvae("data", "render", "3dshapes", "--out", file)
    assert result.exit_code == 1
    assert result.stderr == f"Error: {file} already exists: choose another --out\n"
    result = hlvae("data", "render", "3dshapes", "--out", tmp_path / "mine.txt")
    assert result.exit_code == 1
    assert result.stderr == f"Error: {tmp_path}/mine.txt does not end in .h5 or .hdf5: `--dataset` could not read it\n"


@pytest.mark.parametrize(
    ("words", "file"),
    [
        (["table1"], "table.md"),
        (["table1"], "table.csv"),
        (["fig2"], "figures/fig2.png"),
        (["fig3", "--print-only"], "figures/fig3.png"),
    ],
)
def test_reproduce_refuses_a_directory_of_others(words, file, tmp_path, monkeypatch):
    monkeypatch.setattr("hierarchical_lvae.experiments.workers.Parallel", lambda **_: pytest.fail("trained"))
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("mine", encoding="utf-8")
    (tmp_path / "else-0").mkdir()
    (tmp_path / "else-0" / "options.json").write_text("{}", encoding="utf-8")  # of a run that is in no such table
    result = hlvae("reproduce", *words, "--steps", "1", "--out", tmp_path)
    assert result.exit_code == 1
    assert result.stderr == f"Error: {tmp_path / file} is not a result of hlvae reproduce: choose another --out\n"
    assert (tmp_path / file).read_text(encoding="utf-8") == "mine"


def test_reproduce_continues_in_a_directory_of_its_own(tmp_path):
    table, names = TABLES["table1"], ["table.md", "table.csv"]
    refuse_others(table, tmp_path / "new", names)
    write(table, [], tmp_path)  # as it is left where all runs failed
    refuse_others(table, tmp_path, names)
    with pytest.raises(FileExistsError, match=r"table\.md is not a result of hlvae reproduce"):
        refuse_others(TABLES["table2"], tmp_path, names)
    run = tmp_path / f"{TABLES['table2'].rows[0].name}-0"
    run.mkdir()
    (run / "options.json").write_text("{}", encoding="utf-8")
    refuse_others(TABLES["table2"], tmp_path, names)

"""Every kind of data is trained on with every neighbourhood, by the command line, and scored."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from hierarchical_lvae.cli import main
from hierarchical_lvae.data import load_dataset
from hierarchical_lvae.neighbourhoods import NEIGHBOURHOODS

FEW = ["--steps", "3", "-B", "2", "-K", "2", "--latent-dim", "3", "--image-size", "16", "--device", "cpu"]


def hlvae(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture
def source(request, tmp_path, make, small_sizes):
    """Write the files of a data set; give what --dataset and --data-dir are."""
    rng = np.random.default_rng(0)
    if request.param == "carsnorb":
        make.write_cars(tmp_path / "cars")
        make.write_norb(tmp_path)
    if request.param != "folder":
        return request.param, tmp_path
    for folder in ("cats", "dogs"):
        (tmp_path / "pets" / folder).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(256, size=(20 + i, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / folder / f"{i}.png")
    return tmp_path / "pets", tmp_path


@pytest.mark.parametrize("source", ["digits", "carsnorb", "folder"], indirect=True)
@pytest.mark.parametrize("neighbourhood", NEIGHBOURHOODS)
def test_a_fit_on_each_data_set_with_each_neighbourhood(source, neighbourhood, tmp_path):
    dataset, directory = source
    number = len(load_dataset(str(dataset), directory))
    name = neighbourhood
    if neighbourhood == "graph":
        np.savez(tmp_path / "ring.npz", ids=(np.arange(number)[:, None] + np.arange(1, 5)) % number)
        name = f"graph:{tmp_path / 'ring.npz'}"
    out = tmp_path / "run"
    fit = ["fit", "--dataset", dataset, "--data-dir", directory, "--neighbourhood", name, *FEW]
    fit += ["-K", "1"] if neighbourhood == "noise-mean" else []
    result = hlvae(*fit, "--preset", "quick", "--out", out)
    if (dataset, neighbourhood) == ("carsnorb", "labels"):
        assert result.exit_code == 1
        assert "the data have no labels" in result.stderr
        assert not out.exists()
        return
    assert result.exit_code == 0, result.output
    assert json.loads((out / "options.json").read_text())["neighbourhood"] == name
    assert hlvae("fit", "--resume", out, "--steps", "5").exit_code == 0
    assert len((out / "log.jsonl").read_text().splitlines()) == 2
    if neighbourhood == "noise":
        scored = hlvae("evaluate", out, "--metrics", "mig", "--points", "60", "30")
        assert scored.exit_code == 0, scored.output
        found = json.loads((out / "metrics.json").read_text())["mig"]
        assert set(found.get("parts", {"": 0})) == ({"cars3d", "smallnorb"} if dataset == "carsnorb" else {""})


def test_scores_of_a_union_are_those_of_its_parts(tmp_path, make, small_sizes):
    make.write_cars(tmp_path / "cars")
    make.write_norb(tmp_path)
    out = tmp_path / "run"
    assert hlvae("fit", "--dataset", "carsnorb", "--data-dir", tmp_path, *FEW, "--out", out).exit_code == 0
    result = hlvae("evaluate", out, "--metrics", "dci,mig", "--points", "120", "60")
    assert result.exit_code == 0, result.output
    rows = {line[:32].strip() for line in result.stdout.splitlines()}
    assert {"cars3d dci disentanglement", "smallnorb dci disentanglement", "smallnorb mig"} <= rows
    dci = json.loads((out / "metrics.json").read_text())["dci"]["parts"]
    assert dci["cars3d"]["factors"] == ["elevation", "azimuth", "object"]
    assert np.array(dci["smallnorb"]["importance"]).shape == (3, 4)
    for part in ("cars3d", "smallnorb"):
        assert (out / f"figures/importance-{part}-local.png").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-K", "12"], "K is 12 but there are 12 images, so input-knn has at most 11"),
        (["--index", "HNSWX"], "Faiss has no index 'HNSWX'"),
        (["--skip-bad", "--frame", "pad", "-K", "30"], "K is 30 but there are 12 images"),
    ],
)
@pytest.mark.parametrize("source", ["folder"], indirect=True)
def test_a_fit_that_finds_no_neighbours_leaves_nothing(source, args, message, tmp_path):
    result = hlvae(
        "fit", "--dataset", source[0], "--neighbourhood", "input-knn", *FEW, *args, "--out", tmp_path / "run"
    )
    assert result.exit_code == 1, result.output
    assert message in result.stderr.splitlines()[-1]
    assert not (tmp_path / "run").exists()

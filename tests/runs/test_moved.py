"""Where a run, its data and its device are says nothing about where it may be used: the fingerprint is the identity."""

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hierarchical_lvae.cli import main
from hierarchical_lvae.runs import FitOptions, load_run
from hierarchical_lvae.runs.devices import device_here, resolve_device
from hierarchical_lvae.training import fit, resume

COMMANDS = [["figures"], ["evaluate", "--metrics", "mig"], ["report"], ["fit", "--resume"]]
SMALL = {"batch": 2, "num_neighbours": 2, "latent_dim": 3, "steps": 2}


def hlvae(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def images(path, seed=0):
    rng = np.random.default_rng(seed)
    np.savez(path, images=rng.integers(256, size=(12, 8, 8), dtype=np.uint8), factors=rng.integers(2, size=(12, 2)))


@pytest.fixture
def run(tmp_path):
    """A run whose data were moved away."""
    images(tmp_path / "mine.npz")
    fit(FitOptions.of("quick", dataset=tmp_path / "mine.npz", **SMALL), tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "mine.npz").rename(tmp_path / "elsewhere/mine.npz")
    return tmp_path / "run"


class TestData:
    def test_the_error_says_what_helps(self, run):
        with pytest.raises(
            FileNotFoundError, match=r"are no longer at .*mine\.npz: give their new path with `dataset`$"
        ):
            load_run(run)

    def test_a_run_is_loaded_and_resumed_with_the_new_place(self, run, tmp_path):
        now = tmp_path / "elsewhere/mine.npz"
        assert len(load_run(run, dataset=now).dataset) == 12
        resume(run, steps=3, dataset=str(now))
        assert load_run(run).options.dataset == str(now)  # from now on it is known

    def test_relative_paths_work_from_another_directory(self, tmp_path, monkeypatch):
        images(tmp_path / "mine.npz")
        monkeypatch.chdir(tmp_path)
        fit(FitOptions.of("quick", dataset="mine.npz", data_dir=".", **SMALL), "run")
        monkeypatch.chdir("/")
        assert load_run(tmp_path / "run").options.data_dir == str(tmp_path)

    def test_other_data_are_refused(self, run, tmp_path):
        images(tmp_path / "other.npz", seed=1)
        with pytest.raises(ValueError, match=r"was trained on .* now holds other data .* with `dataset`$"):
            load_run(run, dataset=tmp_path / "other.npz")

    def test_own_data_of_a_run_are_not_replaced_by_a_named_data_set(self, run):
        with pytest.raises(ValueError, match=r"now holds other data .*: give their path with `dataset`$"):
            load_run(run, dataset="digits")

    @pytest.mark.parametrize("name", ["mine.npz", "nowhere.npz", "3dshapes"])
    def test_the_data_of_a_named_data_set_have_no_place(self, tmp_path, monkeypatch, name):
        images(tmp_path / "mine.npz")
        monkeypatch.chdir(tmp_path)
        fit(FitOptions.of("quick", dataset="digits", **SMALL), tmp_path / "digits")
        for use in (load_run, resume):
            with pytest.raises(ValueError, match=rf"was trained on digits, not on .*{name}: leave out `dataset`$"):
                use(tmp_path / "digits", dataset=name)

    @pytest.mark.parametrize("command", COMMANDS)
    def test_each_command_takes_the_new_place(self, run, tmp_path, command):
        assert hlvae(*command, run).exit_code == 1
        result = hlvae(*command, run, "--dataset", tmp_path / "elsewhere/mine.npz")
        assert result.exit_code == 0, result.output

    def test_a_path_means_own_data_even_if_a_data_set_has_that_name(self, run, tmp_path, monkeypatch):
        (tmp_path / "elsewhere/mine.npz").rename(tmp_path / "digits.npz")
        monkeypatch.chdir(tmp_path)
        Path("digits.npz").rename("digits")
        assert FitOptions(Path("digits")).dataset == str(tmp_path / "digits")
        with pytest.raises(
            ValueError, match=r"digits is not a folder and does not end in"
        ):  # and not: holds other data
            load_run(run, dataset=Path("digits"))

    def test_a_data_directory_that_is_gone_is_named_if_it_is_needed(self, tmp_path):
        (tmp_path / "data").mkdir()
        options = FitOptions.of("quick", dataset="digits", data_dir=tmp_path / "data", **SMALL)
        fit(options, tmp_path / "run")
        (tmp_path / "data").rmdir()
        assert len(load_run(tmp_path / "run").dataset) == 1797
        file = tmp_path / "run/options.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "dataset": "cars3d"}))
        with pytest.raises(FileNotFoundError, match=r"is no longer at .*data: give its new path with `data_dir`$"):
            load_run(tmp_path / "run")

    def test_the_command_that_began_a_run_resumes_it(self, tmp_path):
        words = ["--dataset", "digits", "--preset", "quick", "-B", "2", "-K", "2", "--steps", "2"]
        assert hlvae("fit", *words, "--out", tmp_path / "run").exit_code == 0
        assert hlvae("fit", *words, "--resume", tmp_path / "run").exit_code == 0
        result = hlvae("fit", "--preset", "paper", "--resume", tmp_path / "run")
        assert result.exit_code == 2
        assert "--preset paper contradicts" in result.stderr

    def test_a_data_set_of_another_name_contradicts(self, run):
        result = hlvae("fit", "--resume", run, "--dataset", "digits")
        assert result.exit_code == 2
        assert "--dataset digits contradicts" in result.stderr


class TestDevice:
    @pytest.fixture
    def of_a_gpu(self, tmp_path):
        fit(FitOptions.of("quick", dataset="digits", **SMALL), tmp_path / "run")
        file = tmp_path / "run/options.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "device": "cuda:3"}))
        return tmp_path / "run"

    @pytest.fixture(autouse=True)
    def no_gpu(self, monkeypatch):
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
        monkeypatch.setattr("torch.backends.mps.is_available", cache(lambda: False))
        monkeypatch.setattr("torch.backends.mps.is_built", lambda: False)

    def test_a_run_of_a_gpu_is_loaded_and_resumed_without_one(self, of_a_gpu, caplog):
        assert load_run(of_a_gpu).options.device == "cpu"
        assert caplog.messages == ["device 'cuda:3' is not available: using cpu"]
        assert resume(of_a_gpu, steps=3, device="cpu").options.device == "cpu"

    @pytest.mark.parametrize("command", COMMANDS)
    def test_each_command_takes_it(self, of_a_gpu, command):
        result = hlvae(*command, of_a_gpu, *(["--points", "40", "20"] if "evaluate" in command else []))
        assert result.exit_code == 0, result.output
        assert hlvae(*command, of_a_gpu, "--device", "cpu").exit_code == 0

    @pytest.mark.parametrize("command", ["figures", "evaluate", "compare", "report", "bench", "fit", "reproduce"])
    def test_a_wrong_name_is_wrong_usage_and_a_missing_device_a_failure(self, of_a_gpu, command, tmp_path):
        words = {
            "bench": ["bench"],
            "fit": ["fit", "--dataset", "digits", "--out", tmp_path / "new"],
            "reproduce": ["reproduce", "table1", "--out", tmp_path / "new"],
        }.get(command, [command, of_a_gpu])
        for device, code, message in (
            ("bogus", 2, "'bogus' is not a device: give auto, cpu, cuda, cuda:1 or mps"),
            ("meta", 2, "'meta' is not a device"),
            ("cuda:9", 1, "device 'cuda:9' is not available (0 GPUs): use cpu instead"),
            ("mps", 1, "device 'mps' is not available (this PyTorch is built without MPS): use cpu instead"),
        ):
            result = hlvae(*words, "--device", device)
            assert result.exit_code == code, result.output
            assert message in result.stderr.splitlines()[-1]
        assert not os.path.exists(tmp_path / "new")

    def test_names(self):
        assert resolve_device("auto") == resolve_device() == "cpu"
        assert device_here("cpu") == "cpu"
        with pytest.raises(ValueError, match="is not a device"):
            device_here("cpu:1")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    ("option", "kind"),
    [
        ("neighbourhood", "neighbourhood 'shifts'"),
        ("local", "local inference 'shifts'"),
        ("penalty", "penalty 'shifts'"),
        ("likelihood", "likelihood 'shifts'"),
        ("activation", "activation 'shifts'"),
    ],
)
def test_a_run_with_a_name_of_a_script_is_for_that_script(option, kind, command, tmp_path):
    fit(FitOptions.of("quick", dataset="digits", **SMALL), tmp_path / "run")
    saved = json.loads((tmp_path / "run/options.json").read_text())
    (tmp_path / "run/options.json").write_text(json.dumps({**saved, option: "shifts"}))
    found = hlvae(*command, tmp_path / "run", *(["--steps", "3"] if "--resume" in command else []))
    assert found.exit_code == 1
    assert f"the {kind}, which is not part of the library: use the run in a Python script" in found.output

"""`hlvae doctor`: a report that comes to its end whatever is wrong."""

import json

import pytest
from click.testing import CliRunner

from hierarchical_lvae import __version__
from hierarchical_lvae.cli import main
from hierarchical_lvae.data.sources import SOURCES
from hierarchical_lvae.presentation.environment import inspect_environment, lines


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("HLVAE_DATA", str(tmp_path))
    return tmp_path


def doctor(*args):
    result = CliRunner().invoke(main, ["doctor", *map(str, args)])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_it_fits_on_one_screen_and_into_json(tmp_path):
    text, report = doctor(), json.loads(doctor("--json"))
    assert len(text.splitlines()) < 60
    assert list(report) == ["versions", "machine", "devices", "directories", "data sets", "optional parts"]
    assert report["versions"]["hierarchical-lvae"] == __version__
    assert {"torch", "pyro-ppl", "numpy", "click"} <= report["versions"].keys()
    assert report["devices"]["cpu"] == "available"
    assert report["directories"]["data and caches"] == f"{tmp_path} (0 bytes)"
    assert all(f"  {name} " in text for facts in report.values() for name in facts)
    assert not [value for facts in report.values() for value in facts.values() if str(value).startswith("unknown")]


def test_data_sets_are_looked_for_where_they_would_be(tmp_path, monkeypatch):
    before = json.loads(doctor("--json"))["data sets"]
    assert before["digits"] == "available"
    assert before["3dshapes"].endswith("the rendered replica is used instead")
    assert before["carsnorb"].endswith("a rendered stand-in is used instead")
    for source in SOURCES["cars3d"]:
        (tmp_path / source.file).touch()
    half = json.loads(doctor("--json"))["data sets"]
    assert half["carsnorb"] == "not downloaded (hlvae data download carsnorb)"
    assert before["dsprites"] == "not downloaded (hlvae data download dsprites)"
    for source in SOURCES["dsprites"]:
        (tmp_path / source.file).write_bytes(b"12345")
    after = json.loads(doctor("--json"))
    assert after["data sets"]["dsprites"] == "available"
    assert after["directories"]["data and caches"] == f"{tmp_path} (5 bytes)"
    monkeypatch.setenv("HLVAE_DATA", str(tmp_path / "none"))
    assert f"{tmp_path / 'none'} (does not exist)" in doctor()
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_found_out_is_unknown(monkeypatch):
    def broken():
        raise RuntimeError("the driver\nis broken")

    monkeypatch.setattr("torch.cuda.is_available", broken)
    monkeypatch.setattr("torch.backends.mps.is_available", broken)
    monkeypatch.setattr("os.cpu_count", broken)
    report = inspect_environment()
    assert report["devices"]["cuda"] == "unknown (unexpected RuntimeError: the driver is broken)"
    assert report["machine"]["CPU cores"] == report["devices"]["mps"] == report["devices"]["cuda"]
    assert any("the driver is broken" in line for line in lines(report))


@pytest.mark.parametrize("number", [0, 1023, 1024, 2**40, 2**60])
def test_sizes_have_a_unit(number):
    from hierarchical_lvae.presentation.environment import _size

    value, unit = _size(number).split()
    assert float(value) * 1024 ** ["bytes", "KiB", "MiB", "GiB", "TiB"].index(unit) == pytest.approx(number)

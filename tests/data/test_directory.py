"""The data directory: the default one, none at home, and ones that cannot be written to."""

import logging
import shlex
from pathlib import Path

import pytest

from hierarchical_lvae.data import default_data_dir, directory, load_dataset


def test_the_data_directory_can_be_set(tmp_path, monkeypatch):
    monkeypatch.setenv("HLVAE_DATA", str(tmp_path))
    assert default_data_dir() == tmp_path
    monkeypatch.delenv("HLVAE_DATA")
    assert default_data_dir().name == "hlvae"


@pytest.fixture(params=["raises", "returns ~"])
def homeless(request, monkeypatch):
    """A process without a home directory, under new and old versions of platformdirs."""

    def cache_path(name):
        if request.param == "raises":
            raise RuntimeError("could not determine the home directory")
        return Path("~/.cache") / name

    monkeypatch.delenv("HLVAE_DATA", raising=False)
    monkeypatch.setattr(directory, "user_cache_path", cache_path)
    directory._temporary_dir.cache_clear()
    yield
    directory._temporary_dir.cache_clear()


def test_without_a_home_caches_are_temporary(homeless, caplog):
    place = default_data_dir()
    assert place.is_dir()
    assert default_data_dir() == place
    (message,) = caplog.messages
    assert f"using {place} until this process ends" in message
    assert message.endswith("set HLVAE_DATA or give `data_dir`")


def test_digits_need_no_directory(homeless, caplog):
    assert len(load_dataset("digits")) == 1797
    assert caplog.messages == []


def test_a_file_is_not_a_directory(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    message = "the data directory .*file is not a directory: set `data_dir` or HLVAE_DATA to a directory$"
    with pytest.raises(NotADirectoryError, match=message):
        load_dataset("dsprites", file)
    monkeypatch.setenv("HLVAE_DATA", str(file))
    with pytest.raises(NotADirectoryError, match=message):
        load_dataset("dsprites")


def test_what_cannot_be_cached_is_read(tmp_path, make, small_sizes, caplog):
    """A folder stands where the cache would be: nobody can write there."""
    make.write_cars(tmp_path / "cars")
    make.write_norb(tmp_path)
    for name, file in (("cars3d", "hlvae-cars3d-64.npz"), ("smallnorb", "hlvae-smallnorb-64.npz")):
        (tmp_path / file).mkdir()
        caplog.clear()
        assert len(load_dataset(name, tmp_path)) > 0
        assert {record.levelno for record in caplog.records} == {logging.WARNING}
        assert f"nothing is cached: {tmp_path / file}" in caplog.text


def test_commands_in_messages_can_be_pasted(tmp_path):
    place = tmp_path / "my data; rm"
    place.mkdir()
    with pytest.raises(FileNotFoundError) as info:
        load_dataset("dsprites", place)
    command = str(info.value).split("`")[1]
    assert shlex.split(command) == ["hlvae", "data", "download", "dsprites", "--data-dir", str(place)]

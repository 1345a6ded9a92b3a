"""Downloads against a server of our own: whole, broken and gone on with, and wrong."""

import hashlib
import http.server
import io
import re
import threading

import h5py
import numpy as np
import pytest
import torch

from hierarchical_lvae.data import DATASETS, FactorImages, load_dataset
from hierarchical_lvae.data.export import write_h5
from hierarchical_lvae.data.factor_images import factor_grid
from hierarchical_lvae.data.shapes3d import FACTOR_NAMES, load_h5
from hierarchical_lvae.data.sources import SOURCES, Source, download

CONTENT = bytes(range(256)) * 5000


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `content`, with ranges; breaks off after `limit` bytes if there is one."""

    content = CONTENT
    limit = None
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self):
        span = self.headers.get("Range", "")
        type(self).asked.append(span)
        start = int(re.sub(r"\D", "", span) or 0)
        content = type(self).content
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if span else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : type(self).limit])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    Handler.content, Handler.limit, Handler.asked = CONTENT, None, []
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{httpd.server_port}/data.bin"
    monkeypatch.setitem(SOURCES, "test", (Source("data.bin", url, "md5:" + hashlib.md5(CONTENT).hexdigest(), "1 MB"),))
    yield Handler
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_a_file_is_downloaded_once(server, tmp_path):
    (path,) = download("test", tmp_path / "new")
    assert path.read_bytes() == CONTENT
    assert download("test", tmp_path / "new") == [path]
    assert server.asked == [""]
    assert [file.name for file in path.parent.iterdir()] == ["data.bin"]


def test_a_broken_download_is_gone_on_with(server, tmp_path):
    server.limit = 700_000
    with pytest.raises(OSError, match="it goes on where it broke"):
        download("test", tmp_path)
    have = (tmp_path / "data.bin.part").stat().st_size
    assert 0 < have <= 700_000
    assert not (tmp_path / "data.bin").exists()
    server.limit = None
    (path,) = download("test", tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.asked == ["", f"bytes={have}-"]


def test_a_wrong_file_is_refused_and_not_kept(server, tmp_path, monkeypatch):
    monkeypatch.setitem(SOURCES, "test", (SOURCES["test"][0]._replace(checksum="md5:" + "0" * 32),))
    with pytest.raises(ValueError, match="has not the published checksum"):
        download("test", tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_a_checksum_the_npz_must_open(server, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(SOURCES, "test", (SOURCES["test"][0]._replace(file="data.npz", checksum=""),))
    with pytest.raises(ValueError, match=r"data\.bin is no whole \.npz: try again, or get it by hand$"):
        download("test", tmp_path)
    assert not list(tmp_path.iterdir())
    assert not caplog.text
    buffer = io.BytesIO()
    np.savez(buffer, x=np.arange(3))
    server.content, server.asked = buffer.getvalue(), []
    (path,) = download("test", tmp_path)
    assert np.load(path)["x"].tolist() == [0, 1, 2]
    assert "no checksum of data.npz is published: all that is known is that it opens" in caplog.text
    download("test", tmp_path)
    assert server.asked == [""]


def test_a_server_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setitem(SOURCES, "test", (Source("data.bin", "http://127.0.0.1:9/data.bin", "md5:0", "1 MB"),))
    with pytest.raises(OSError, match="cannot be fetched"):
        download("test", tmp_path)


def test_every_data_set_has_its_sources():
    assert SOURCES.keys() == DATASETS.keys()
    with pytest.raises(ValueError, match="did you mean '3dshapes'"):
        download("3dshape", None)
    assert SOURCES["carsnorb"] == SOURCES["cars3d"] + SOURCES["smallnorb"]
    for source in (source for sources in SOURCES.values() for source in sources):
        assert source.url.endswith("/" + source.file)
        assert re.fullmatch(r"(md5:[0-9a-f]{32})?", source.checksum)


def test_what_is_downloaded_is_what_is_looked_for(tmp_path):
    """The files of the sources, as empty ones, are found (and refused) under the names that the loaders look for."""
    for name in ("cars3d", "smallnorb", "carsnorb", "dsprites"):
        for source in SOURCES[name]:
            (tmp_path / source.file).touch()
        with pytest.raises(ValueError, match="cannot be read"):
            load_dataset(name, tmp_path)


def test_an_exported_replica_reads_back_as_the_official_layout(tmp_path):
    grid = (2, 2, 1, 2, 2, 3)
    images = torch.randint(0, 256, (48, 3, 64, 64), dtype=torch.uint8)
    write_h5(
        FactorImages(images, factor_grid(grid), FACTOR_NAMES, grid, "replica of a test"), tmp_path / "out.h5", rows=20
    )
    back = load_h5(tmp_path / "out.h5", grid)
    assert torch.equal(back.images[torch.arange(48)], images)
    np.testing.assert_array_equal(back.factors, factor_grid(grid))
    assert back.source == "replica of a test"
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["labels"][-1].tolist() == [0.9, 0.9, 0.0, 1.25, 3.0, 30.0]
    assert [file.name for file in tmp_path.iterdir()] == ["out.h5"]

"""Downloads from a server of our own: complete, resumed, and wrong."""

import gzip
import hashlib
import http.server
import io
import random
import re
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from hierarchical_lvae.data import DATASETS, FactorImages, load_dataset
from hierarchical_lvae.data.export import write_h5
from hierarchical_lvae.data.factor_images import factor_grid
from hierarchical_lvae.data.shapes3d import FACTOR_NAMES, load_h5
from hierarchical_lvae.data.sources import SOURCES, Source, _fetch, download
from hierarchical_lvae.files import locked

CONTENT = bytes(range(256)) * 5000


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `content`, with ranges unless `whole`; breaks off after `limit` bytes if there is one.

    If `packs`, it is sent in a gzip to whoever accepts that. If `labels`, it is called a gzip of something else.
    """

    content = CONTENT
    limit = None
    whole = packs = labels = False
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self):
        span = self.headers.get("Range", "")
        type(self).asked.append(span)
        span = "" if type(self).whole else span
        start = int(re.sub(r"\D", "", span) or 0)
        content = type(self).content
        packs = type(self).packs and "gzip" in self.headers.get("Accept-Encoding", "")
        content = gzip.compress(content, mtime=0) if packs else content
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if span else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if packs or type(self).labels:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(content[start : type(self).limit])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    Handler.content, Handler.limit, Handler.asked = CONTENT, None, []
    Handler.whole = Handler.packs = Handler.labels = False
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


@pytest.mark.parametrize("whole", [False, True])
def test_an_incomplete_download_is_continued(whole, server, tmp_path):
    server.limit, server.whole = 700_000, whole
    with pytest.raises(OSError, match="try again to continue where it stopped"):
        download("test", tmp_path)
    have = (tmp_path / "data.bin.hlvae-part").stat().st_size
    assert 0 < have <= 700_000
    assert not (tmp_path / "data.bin").exists()
    server.limit = None
    (path,) = download("test", tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.asked == ["", f"bytes={have}-"]
    assert [file.name for file in tmp_path.iterdir()] == ["data.bin"]


def test_an_incomplete_download_is_continued_from_a_server_that_packs(server, tmp_path, monkeypatch):
    server.content, server.limit, server.packs = random.Random(0).randbytes(2**20), 700_000, True
    checksum = "md5:" + hashlib.md5(server.content).hexdigest()
    monkeypatch.setitem(SOURCES, "test", (SOURCES["test"][0]._replace(checksum=checksum),))
    with pytest.raises(OSError, match="try again to continue where it stopped"):
        download("test", tmp_path)
    have = (tmp_path / "data.bin.hlvae-part").stat().st_size
    server.limit = None
    (path,) = download("test", tmp_path)
    assert path.read_bytes() == server.content
    assert server.asked == ["", f"bytes={have}-"]


def test_a_gzip_is_not_unpacked_if_the_server_calls_it_an_encoding(server, tmp_path, monkeypatch):
    server.content, server.labels = gzip.compress(CONTENT), True
    checksum = "md5:" + hashlib.md5(server.content).hexdigest()
    monkeypatch.setitem(SOURCES, "test", (SOURCES["test"][0]._replace(file="data.mat.gz", checksum=checksum),))
    (path,) = download("test", tmp_path)
    assert path.read_bytes() == server.content


@pytest.mark.parametrize("there", [b"other content" * 1000, CONTENT + b"more"])
def test_a_beginning_of_another_file_is_not_continued(there, server, tmp_path):
    (tmp_path / "data.bin.hlvae-part").write_bytes(there)
    (path,) = download("test", tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(there)}-", ""]


def test_files_of_others_stay_as_they_are(server, tmp_path):
    (tmp_path / "data.bin").write_bytes(b"a replica of mine")
    with pytest.raises(FileExistsError, match=r"data\.bin is not the published file: move it away, or give another"):
        download("test", tmp_path)
    assert (tmp_path / "data.bin").read_bytes() == b"a replica of mine"
    (tmp_path / "data.bin").rename(tmp_path / "data.bin.part")  # a browser's partial download is called so
    (path,) = download("test", tmp_path)
    assert path.read_bytes() == CONTENT
    assert (tmp_path / "data.bin.part").read_bytes() == b"a replica of mine"
    assert server.asked == [""]


def test_a_directory_in_the_place_of_a_file_is_refused(server, tmp_path):
    (tmp_path / "data.bin").mkdir()
    with pytest.raises(FileExistsError, match="is not the published file"):
        download("test", tmp_path)


def test_two_processes_do_not_write_one_file(server, tmp_path):
    lock = tmp_path / "data.bin.hlvae-lock"
    with locked(lock), pytest.raises(BlockingIOError, match=r"another process is downloading .*data\.bin: wait for it"):
        download("test", tmp_path)
    assert lock.exists()
    assert server.asked == []


def test_a_place_that_cannot_be_written_is_refused_before_a_download(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"data\.bin cannot be written \(Not a directory\): make that location writable"):
        download("test", tmp_path / "file")
    assert server.asked == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a file that is always full is needed")
def test_a_full_disk_is_named(server, tmp_path):
    part = tmp_path / "data.bin.hlvae-part"
    part.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"hlvae-part cannot be written \(No space left on device\): free up space there"):
        _fetch(SOURCES["test"][0].url, part)


def test_a_wrong_file_is_refused_and_not_kept(server, tmp_path, monkeypatch):
    monkeypatch.setitem(SOURCES, "test", (SOURCES["test"][0]._replace(checksum="md5:" + "0" * 32),))
    with pytest.raises(ValueError, match="does not have the published checksum"):
        download("test", tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_a_checksum_the_npz_must_open(server, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(SOURCES, "test", (SOURCES["test"][0]._replace(file="data.npz", checksum=""),))
    with pytest.raises(ValueError, match=r"data\.bin is not a complete \.npz: try again, or download it manually$"):
        download("test", tmp_path)
    assert not list(tmp_path.iterdir())
    assert not caplog.text
    buffer = io.BytesIO()
    np.savez(buffer, x=np.arange(3))
    server.content, server.asked = buffer.getvalue(), []
    (path,) = download("test", tmp_path)
    assert np.load(path)["x"].tolist() == [0, 1, 2]
    assert "no checksum is published for data.npz: only those inside the file were verified" in caplog.text
    download("test", tmp_path)
    assert server.asked == [""]
    content = bytearray(path.read_bytes())
    content[content.index(b"NUMPY") + 130] ^= 1  # one bit of the array: the .npz opens all the same
    path.write_bytes(content)
    with pytest.raises(FileExistsError, match="is not the published file"):
        download("test", tmp_path)


def test_a_server_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setitem(SOURCES, "test", (Source("data.bin", "http://127.0.0.1:9/data.bin", "md5:0", "1 MB"),))
    with pytest.raises(OSError, match="cannot be downloaded"):
        download("test", tmp_path)
    assert not list(tmp_path.iterdir())


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
    before = (tmp_path / "out.h5").read_bytes()
    with pytest.raises(FileExistsError, match=r"out\.h5 already exists: choose another file"):
        write_h5(back, tmp_path / "out.h5")
    assert (tmp_path / "out.h5").read_bytes() == before

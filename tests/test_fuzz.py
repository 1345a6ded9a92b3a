"""Files from strangers: a hundred damaged ones of each format (`python -m tests.fuzz` for more), bombs, no pickles."""

import ast
import gzip
import re
import subprocess
import sys
import tarfile
import tracemalloc
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.sparse import csr_array, save_npz

import hierarchical_lvae
from hierarchical_lvae.data import cars3d, load_own
from hierarchical_lvae.data.archive import read_members
from hierarchical_lvae.neighbourhoods import graph

ROOT = Path(__file__).parent.parent
PACKAGE = Path(hierarchical_lvae.__file__).parent


def test_damaged_files_are_read_or_refused_in_one_line():
    words = [sys.executable, "-m", "tests.fuzz", "--inputs", "2500"]
    found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    assert re.search(r"^2,5\d\d inputs, 0 failed$", found.stdout, re.MULTILINE)


def calls():
    """Every call in the package: its file, its function's last name, and its keywords."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                yield path, name, {word.arg: word.value for word in node.keywords}, node


def test_nothing_is_unpickled():
    loads = 0
    for path, name, keywords, node in calls():
        allowed = keywords.get("allow_pickle")
        assert allowed is None or (isinstance(allowed, ast.Constant) and allowed.value is False), path
        library = getattr(getattr(node.func, "value", None), "id", "")
        if name == "load" and library in ("np", "torch"):
            assert ("allow_pickle" if library == "np" else "weights_only") in keywords, path
            loads += 1
    assert loads == 2
    for path in PACKAGE.rglob("*.py"):
        assert not re.search(r"^\s*(import|from) (pickle|cPickle|dill|shelve|marshal)\b", path.read_text(), re.M), path


def peak(work):
    """The most bytes that numpy and Python held for a piece of work."""
    tracemalloc.start()
    try:
        work()
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return most


def refuse(match, read, *args):
    """It is refused, by these words, and costs no memory to find out."""

    def work():
        with pytest.raises(ValueError, match=match):
            read(*args)

    assert peak(work) < 2**26 + 2**24


def test_bombs_of_arrays_are_refused(tmp_path):
    zeros = np.zeros((20_000, 64, 64), np.uint8)  # 82 MB, in 80 KB
    np.savez_compressed(tmp_path / "bomb.npz", images=zeros)
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        file.create_dataset("images", data=zeros, compression="gzip", chunks=(2000, 64, 64))
    for name in ("bomb.npz", "bomb.h5"):
        refuse("save it uncompressed", load_own, tmp_path / name)
    np.savez_compressed(tmp_path / "small.npz", images=zeros[:200])
    assert len(load_own(tmp_path / "small.npz")) == 200


def test_bombs_of_graphs_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "dense.npz", ids=np.zeros((20, 10**6), np.int64))
    edges = csr_array((np.zeros(10**7, np.int8), np.zeros(10**7, np.int64), [0, *[10**7] * 20]), shape=(20, 20))
    save_npz(tmp_path / "sparse.npz", edges)
    for name in ("dense.npz", "sparse.npz"):
        refuse("save it uncompressed", graph._read, tmp_path / name, 20)


def test_indices_that_point_elsewhere_are_refused(tmp_path):
    """scipy expands them unchecked, and so writes where it should not."""
    parts = {"format": np.array(b"csr"), "shape": np.array([4, 4]), "data": np.ones(4), "indices": np.arange(4)}
    for indptr in ([0, 10**9, 2, 3, 4], [0, -5, 2, 3, 4], [0, 1, 2, 3, 9], [0, 4]):
        np.savez(tmp_path / "wild.npz", indptr=np.array(indptr), **parts)
        refuse("does not match its 'indices'", graph._read, tmp_path / "wild.npz", 4)


def test_chunks_that_are_packed_twice_are_refused(tmp_path):
    with h5py.File(tmp_path / "twice.h5", "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((4, 8, 8))
        properties.set_deflate(9)
        properties.set_lzf() if hasattr(properties, "set_lzf") else properties.set_filter(h5py.h5z.FILTER_LZF)
        space = h5py.h5s.create_simple((4, 8, 8))
        h5py.h5d.create(file.id, b"images", h5py.h5t.NATIVE_UINT8, space, properties)
        file["images"][...] = 1
    refuse("is compressed more than once", load_own, tmp_path / "twice.h5")


def test_bombs_of_archives_are_refused(tmp_path):
    """A member that is not wanted, and a header, are unpacked too."""
    member = tarfile.TarInfo("data/other.bin")
    member.size = 2**27
    header = tarfile.TarInfo("header")
    header.type, header.size = tarfile.XHDTYPE, 2**27
    for kind in (member, header):
        content = kind.tobuf(tarfile.USTAR_FORMAT) + bytes(2**27 + 1024)
        (tmp_path / "bomb.tar.gz").write_bytes(gzip.compress(content, 9))
        refuse("250 times its size", lambda: list(read_members(tmp_path / "bomb.tar.gz", lambda name: False, 2**20)))


def test_bombs_of_matlab_files_are_refused():
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    packed = zlib.compress(bytes(2**26), 9)
    bomb = header + np.array([15, len(packed)], "<u4").tobytes() + packed
    refuse(r"a car cannot be read .*unpacks to more than 33,554,432 bytes", cars3d.read_views, bomb, Path("a car"))


def test_bombs_of_matrices_cost_nothing(tmp_path):
    """A NORB matrix is read by its known shape: what is packed behind it is never asked for."""
    from hierarchical_lvae.data.norb_matrix import read_blocks

    content = np.array([0x1E3D4C54, 2, 2, 2, 1], "<i4").tobytes() + bytes(2**27)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(content, 9))
    refuse("continues after", lambda: list(read_blocks(tmp_path / "bomb.gz", "int32", (2, 2), 2)))


def test_json_that_is_nested_without_end_is_refused(tmp_path):
    from hierarchical_lvae.files import read_json

    (tmp_path / "options.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"options\.json is not a JSON object"):
        read_json(tmp_path / "options.json")

"""The command line where its surroundings are poor: closed pipes, other encodings, no home, directories of others."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from hierarchical_lvae.cli import main
from hierarchical_lvae.runs import FitOptions
from hierarchical_lvae.training import fit

FIT = ["fit", "--dataset", "digits", "--preset", "quick", "--steps", "2", "-B", "2", "-K", "3", "--device", "cpu"]
FIT += ["--neighbourhood", "noise"]
NOT_UTF8 = os.fsdecode(b"r\xe9 x")


def hlvae(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def program(*words, **given):
    """The command line as another process."""
    return subprocess.Popen([sys.executable, "-m", "hierarchical_lvae", *words], stderr=subprocess.PIPE, **given)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of two steps; data files lie in a directory of this test."""
    monkeypatch.setenv("HLVAE_DATA", str(tmp_path / "data"))
    options = FitOptions.of("quick", dataset="digits", steps=2, batch=2, num_neighbours=3, neighbourhood="noise")
    fit(options, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["data", "list"], ["fit", "--help"]])
def test_a_pipe_whose_reader_has_gone_ends_the_program_silently(words):
    reader, writer = os.pipe()
    os.close(reader)
    with program(*words, stdout=writer) as process:
        os.close(writer)
        assert process.communicate()[1] == b""
        assert process.returncode == 1


def test_closed_streams_are_ignored():
    code = "import sys; sys.stdout = sys.stderr = None; from hierarchical_lvae.cli import main; main(['data', 'list'])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_characters_that_stdout_cannot_encode_are_escaped(encoding):
    with program("fit", "--help", stdout=subprocess.PIPE, env={**os.environ, "PYTHONIOENCODING": encoding}) as process:
        out, error = process.communicate()
    assert (process.returncode, error) == (0, b"")
    assert ("cuda:1, …" if encoding == "utf-8" else r"cuda:1, \u2026") in out.decode(encoding)


ALL = """
import sys, warnings
warnings.filterwarnings("error", category=EncodingWarning, module="hierarchical_lvae")
from hierarchical_lvae.cli import main
for words in ({fit}, ["evaluate", {out}, "--metrics", "mig", "--points", "60", "30"],
              ["compare", {out}, "--local", "one-step", "--neighbourhoods", "1", "--draws", "50"],
              ["report", {out}],
              ["bench", "-B", "1", "-K", "1", "--image-size", "8", "--rounds", "1", "--json", {out} + ".json"]):
    main([*words], standalone_mode=False)
"""


def test_files_are_utf_8_in_a_latin_1_locale(tmp_path):
    out = str(tmp_path / "run")
    code = ALL.format(fit=[*FIT, "--out", out], out=repr(out))
    latin = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "latin-1"}
    command = [sys.executable, "-X", "warn_default_encoding", "-c", code]
    result = subprocess.run(command, capture_output=True, env={**os.environ, **latin}, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert b"\\u03b1 = 1" in result.stdout
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "α = 1" in page
    assert "k̂" in page


def test_a_run_directory_whose_name_is_not_utf_8(tmp_path, monkeypatch):
    monkeypatch.setenv("HLVAE_DATA", str(tmp_path / "data"))
    out = tmp_path / NOT_UTF8
    for words in (
        [*FIT, "--out", out],
        ["fit", "--resume", out, "--steps", "3"],
        ["evaluate", out, "--metrics", "mig", "--points", "60", "30"],
        ["report", out],
    ):
        result = hlvae(*words)
        assert result.exit_code == 0, result.output
    assert r"r\udce9 x" in result.stdout
    assert r"r\udce9 x" in (out / "report.html").read_text(encoding="utf-8")
    again = hlvae(*FIT, "--out", out)
    assert again.exit_code == 1
    assert rf"continue that run with `hlvae fit --resume '{tmp_path}/r\udce9 x'`" in again.stderr


def test_without_a_home_directory_a_fit_and_arviz_work(tmp_path):
    code = (
        "import pwd, sys\n"
        "def getpwuid(user): raise KeyError(user)\n"
        "pwd.getpwuid = getpwuid\n"
        "from hierarchical_lvae.cli import main\n"
        f"main({[*FIT, '--out', 'run']}, standalone_mode=False)\n"
        "from hierarchical_lvae.evaluation import to_arviz\n"
        "print(to_arviz({'z': [[1.0, 2.0]]}, inference_method='laplace').posterior.z.shape)\n"
    )
    kept = {name: value for name, value in os.environ.items() if name != "HOME" and not name.startswith("XDG_")}
    environment = {**kept, "HLVAE_DATA": str(tmp_path / "data")}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, env=environment, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.endswith(b"(1, 2)\n")
    assert {path.name for path in tmp_path.iterdir()} <= {"run", "data"}  # none is called "~"


def test_a_directory_that_cannot_be_written_is_one_line(run, monkeypatch):
    def refuse(self, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.chdir(run.parent)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        fitted = hlvae(*FIT)
        drawn = hlvae("figures", run)
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
        others = [
            hlvae("bench", "--json", "numbers.json"),
            hlvae("reproduce", "table1"),
            hlvae("data", "render", "3dshapes", "--out", "file.h5"),
            hlvae("data", "download", "3dshapes", "--data-dir", "."),
        ]
    for result in (fitted, drawn, *others):
        assert result.exit_code == 1
        line = result.stderr.splitlines()[-1]
        assert line.startswith("Error: ")
        assert "cannot be written (Permission denied): make that location writable, or choose another" in line
    assert [path.name for path in run.parent.iterdir()] == ["run"]


def test_completion_in_a_shell_does_not_load_torch():
    code = (
        "import sys\n"
        "from hierarchical_lvae.cli import main\n"
        "try: main(prog_name='hlvae')\n"
        "finally: print('loaded:', 'torch' in sys.modules)\n"
    )
    asked = {"_HLVAE_COMPLETE": "bash_complete", "COMP_WORDS": "hlvae fit --lo", "COMP_CWORD": "2"}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, env={**os.environ, **asked}, text=True, check=False)
    assert result.stdout.splitlines()[0] == "plain,--local"
    assert result.stdout.splitlines()[-1].endswith("loaded: False")

"""Who may import whom (the rooms, from the command line down to the types), read off the source files."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import hierarchical_lvae

PACKAGE = Path(hierarchical_lvae.__file__).parent
BELOW = {"evaluation", "files", "layout", "progress", "types"}
SCIENCE = BELOW | {"models", "inference", "data", "penalties"}
RUNS = SCIENCE | {"neighbourhoods", "runs"}
WORK = RUNS | {"analysis", "training"}
ALLOWED = {
    "layout": set(),
    "types": {"layout"},
    "files": set(),
    "progress": set(),
    "mini": set(),
    "evaluation": {"progress", "types"},
    "models": {"layout", "types"},
    "inference": {"layout", "progress", "types"},
    "data": {"files", "progress", "types"},
    "penalties": {"files", "types"},
    "neighbourhoods": {"data", "files", "progress", "types"},
    "runs": SCIENCE | {"neighbourhoods"},
    "training": RUNS,
    "analysis": RUNS,
    "experiments": WORK,
    "bench": WORK,
    "presentation": WORK | {"experiments", "bench"},
    "cli": WORK | {"experiments", "bench", "presentation"},
    "__main__": {"cli"},
    "__init__": set(),
}
"""Rooms, from the bottom up, and what each may import."""
ROOMS = set(ALLOWED) - {"__init__", "__main__"}
FILES = sorted(path for path in PACKAGE.rglob("*.py*") if path.suffix in (".py", ".pyi"))


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path, top_level_only=False, source=None):
    """Full names of what a file imports."""
    package = ["hierarchical_lvae", *path.relative_to(PACKAGE).parts[:-1]]
    tree = ast.parse(path.read_text() if source is None else source)
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (module, *(f"{module}.{alias.name}" for alias in node.names))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    room = room_of(path)
    own = {name.split(".")[1] for name in imported(path) if name.startswith("hierarchical_lvae.")}
    assert own & ROOMS <= ALLOWED[room] | {room}


def module_of(path):
    return ".".join(["hierarchical_lvae", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


def faces():
    """What each room's face gives, by the file that it comes from."""
    found = {}
    for path in FILES:
        if path.suffix == ".pyi":
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ImportFrom):
                    for alias in node.names:
                        found[f"{module_of(path)}.{alias.name}"] = f"{module_of(path)}.{node.module}"
    return found


def test_files_import_each_other_one_way():
    """No circle between files, inside a room or outside, through the face of a room or not."""
    links, modules = faces(), {module_of(path) for path in FILES}
    sources = [path for path in FILES if path.suffix == ".py" and path.name != "__init__.py"]
    needs = {module_of(path): {links.get(name, name) for name in imported(path)} & modules for path in sources}
    TopologicalSorter(needs).prepare()  # raises CycleError, with the circle


def test_an_import_of_a_room_is_seen_in_each_form():
    path = PACKAGE / "data" / "imaginary.py"
    forms = (
        "import hierarchical_lvae.training",
        "from hierarchical_lvae import training",
        "from hierarchical_lvae.training import fit",
        "from ..training import fit",
        "from .. import training",
    )
    for form in forms:
        assert "hierarchical_lvae.training" in set(imported(path, source=form)), form


def test_mini_imports_torch_alone():
    outside = {name.split(".")[0] for name in imported(PACKAGE / "mini.py")} - sys.stdlib_module_names
    assert outside == {"torch"}
    assert len((PACKAGE / "mini.py").read_text().splitlines()) <= 150


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_libraries_are_imported_where_they_are_used(path):
    heavy = {"faiss", "torch_fidelity", "arviz", "matplotlib", "h5py", "sklearn", "jinja2"}
    if room_of(path) == "cli" or path.name == "__init__.py":
        heavy |= {"torch", "pyro", "numpy"}
    assert not heavy & {name.split(".")[0] for name in imported(path, top_level_only=True)}


def test_nobody_imports_through_the_links():
    for path in FILES:
        assert not {"models", "inference"} & {name.split(".")[0] for name in imported(path)}


def test_no_module_asks_the_network_as_it_is_imported():
    code = (
        "import importlib, pkgutil, socket\n"
        "def refuse(*args, **kwargs): raise RuntimeError('the network was asked')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "import hierarchical_lvae\n"
        "for module in pkgutil.walk_packages(hierarchical_lvae.__path__, 'hierarchical_lvae.'):\n"
        "    if not module.name.endswith('__main__'):\n"
        "        importlib.import_module(module.name)\n"
        "        print(module.name)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert len(found.stdout.split()) > 80

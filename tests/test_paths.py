"""Every public function that takes a path takes a string."""

import importlib
import inspect
import pkgutil

import pytest

import hierarchical_lvae

ROOMS = ("data", "models", "inference", "neighbourhoods", "penalties", "evaluation", "analysis", "experiments",
         "training", "runs", "runs.run", "runs.directory", "files", "presentation.figures", "presentation.report",
         "presentation.graphical_model")  # fmt: skip
INTERNAL = {
    "append_json_line", "append_log", "claimed", "delete_lock", "explained", "is_run", "load_data", "locked",
    "occupied", "read_checkpoint", "read_json", "read_weights", "sweep", "truncate_log", "write_checkpoint",
    "write_options", "write_state",
}  # fmt: skip
"""Parts of the writing of a run: they are given paths by the functions that people call."""


def public(room):
    module = importlib.import_module(f"hierarchical_lvae.{room}")
    for name in getattr(module, "__all__", dir(module)):
        entry = getattr(module, name)
        if not name.startswith("_") and inspect.isfunction(entry) and getattr(entry, "__module__", "").startswith(
            "hierarchical_lvae"
        ):  # fmt: skip
            yield name, entry


@pytest.mark.parametrize("room", ROOMS)
def test_paths_may_be_strings(room):
    alone = []
    for name, entry in public(room):
        if name in INTERNAL:
            continue
        for parameter in inspect.signature(entry).parameters.values():
            annotation = str(parameter.annotation)
            if "Path" in annotation and "str" not in annotation:
                alone.append(f"{name}({parameter.name})")
    assert not alone


def test_the_rooms_are_there():
    found = {module.name for module in pkgutil.walk_packages(hierarchical_lvae.__path__, "hierarchical_lvae.")}
    assert {f"hierarchical_lvae.{room}" for room in ROOMS} <= found
    assert {name for room in ROOMS for name, _ in public(room)} >= INTERNAL | {"fit", "resume", "load_run", "draw_all"}

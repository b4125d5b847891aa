"""Imports run one way: app -> studio -> diffusion, and inside studio from room to room."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = sorted((ROOT / "diffusion").rglob("*.py"))
STUDIO = sorted((ROOT / "studio").rglob("*.py"))

# Rooms of both packages, and the rooms below them that each may use. "" is what lies beside the
# rooms, and the ground are those files there that every room may use.
ROOMS = {
    "diffusion": {
        "cli": {"distillation", "codecs", "training", "evaluation", "data", "output", ""},
        "distillation": {"codecs", "training", "data", "networks", ""},
        "codecs": {"training", "data", "networks", ""},
        "training": {"data", "output", "networks", ""},
        "evaluation": {"data", "output", ""},
        "data": {""},
        "output": {""},
        "": {"networks"},
        "networks": set(),
    },
    "studio": {
        "": {"admin", "page", "training", "drawing", "safety"},  # serve.py and what is beside it
        "admin": {"page", "training", "drawing", "safety"},
        "page": {"training", "drawing", "safety"},
        "training": {"drawing", "safety"},
        "drawing": {"safety"},
        "safety": set(),
    },
}
GROUND = {
    "diffusion": {"checkpoint", "config", "device", "files", "names", "presets", "processes"},
    "studio": {"disk", "settings", "space"},
}
WITHOUT = {"drawing": {"gradio"}, "training": {"gradio"}, "safety": {"torch"}}
DOORS = {"__main__"}  # what starts a program may use all of it

# Modules of the core that can be read alone, and what the others may build on.
ALONE = {
    "names": set(),
    "files": set(),
    "device": set(),
    "config": {"names"},
    "presets": {"config"},
    "checkpoint": {"config", "files", "names"},
    "schedules": set(),
    "fitted": set(),
    "guidance": set(),
    "samplers": {"fitted"},
    "parameterizations": {"config", "schedules"},
    "codec": {"config", "networks.autoencoder", "networks.upscaler"},
    "networks.layers": set(),
    "networks.unet": {"networks.layers"},
    "networks.autoencoder": {"config", "networks.layers"},
    "networks.upscaler": {"config", "networks.autoencoder", "networks.layers"},
    "data.augment": set(),
    "data.changes": set(),
    "data.containers": set(),
    "data.decoding": set(),
    "data.images": {"data.containers"},
    "data.copies": {"data.images"},
    "data.sources": {"names"},
    "output.pictures": {"files"},
    "training.ema": set(),
    "training.optim": set(),
    "training.perceptual": set(),
    "evaluation.features": set(),
    "evaluation.metrics": set(),
}


def imported(path: Path) -> set[str]:
    """Full names of all modules that a file imports anywhere."""
    package = path.relative_to(ROOT).parent.parts
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            parent = ROOT / module.replace(".", "/")
            for alias in node.names:  # a module of the package, or a name in a module
                is_module = (parent / f"{alias.name}.py").exists() or (parent / alias.name).is_dir()
                names.add(f"{module}.{alias.name}" if is_module else module)
    return names


def below(path: Path) -> set[str]:
    """What a file imports from its own package, without the package's name; itself as ""."""
    package = path.relative_to(ROOT).parts[0]
    names = {name for name in imported(path) if name.split(".")[0] == package}
    return {name.removeprefix(package).removeprefix(".") for name in names}


def room(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return parts[1] if len(parts) > 2 else ""


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_there_are_modules_to_check():
    for package, files in (("diffusion", CORE), ("studio", STUDIO)):
        assert {room(path) for path in files} == set(ROOMS[package])


@pytest.mark.parametrize("path", CORE + STUDIO, ids=label)
def test_a_room_imports_only_rooms_below_it(path):
    package, own = path.relative_to(ROOT).parts[0], room(path)
    ground = GROUND[package]
    for name in below(path) if path.stem not in DOORS else ():
        first = name.split(".")[0]
        sentence = f"{label(path)} imports {package}.{name}"
        if (ROOT / package / f"{first}.py").exists():  # it lies beside the rooms
            assert own == "" or "" in ROOMS[package][own] or first in ground, sentence
            assert own or path.stem not in ground or first in ground, sentence
        elif first:
            assert first == own or first in ROOMS[package][own], sentence
            assert own or path.stem not in ground, f"{label(path)} lies below every room"


@pytest.mark.parametrize("name", ALONE)
def test_a_module_that_can_be_read_alone_imports_little(name):
    path = ROOT / "diffusion" / f"{name.replace('.', '/')}.py"
    assert below(path) <= ALONE[name]


@pytest.mark.parametrize("path", CORE, ids=label)
def test_the_core_imports_no_web_code(path):
    tops = {name.split(".")[0] for name in imported(path)}
    assert not tops & {"gradio", "studio", "app", "starlette", "fastapi"}


@pytest.mark.parametrize("path", STUDIO, ids=label)
def test_a_room_does_without_what_it_need_not_know(path):
    tops = {name.split(".")[0] for name in imported(path)}
    assert not tops & WITHOUT.get(room(path), set())
    assert "app" not in tops


@pytest.mark.parametrize("module", ["diffusion", "diffusion.cli.main"])
def test_importing_the_core_loads_no_web_code_and_nothing_slow(module):
    code = f"import sys, {module}; print(*{{m.split('.')[0] for m in sys.modules}})"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(run.stdout.split())
    assert "diffusion" in loaded
    assert not loaded & {"gradio", "studio", "accelerate", "diffusers", "torchvision"}

"""Imports run one way: app -> studio -> diffusion, and inside studio from room to room."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = sorted((ROOT / "diffusion").glob("*.py"))
STUDIO = sorted((ROOT / "studio").rglob("*.py"))

# Modules of the core that can be read alone, and what the others may build on.
ALLOWED = {
    "schedules": set(),
    "fitted": set(),
    "samplers": {"fitted"},
    "ema": set(),
    "augment": set(),
    "changes": set(),
    "device": set(),
    "optim": set(),
    "config": {"sources"},
    "presets": {"config"},
    "containers": set(),
    "decoding": set(),
    "images": {"containers"},
    "copies": {"images"},
    "metrics": set(),
    "features": set(),
    "files": set(),
    "layers": set(),
    "sources": set(),
    "perceptual": set(),
    "guidance": set(),
    "unet": {"layers"},
    "autoencoder": {"config", "layers"},
    "parameterizations": {"config", "schedules"},
    "checkpoint": {"config", "files", "sources"},
    "upscaler": {"autoencoder", "config", "layers"},
    "codec": {"autoencoder", "config", "upscaler"},
    "pictures": {"files"},
    "data": {"changes", "codec", "copies", "images", "sources"},
}

# Rooms of the studio, and the rooms below them that each may use.
ROOMS = {
    "": {"admin", "page", "training", "drawing", "safety"},  # serve.py and what lies beside it
    "admin": {"page", "training", "drawing", "safety", ""},
    "page": {"training", "drawing", "safety", ""},
    "training": {"drawing", "safety", ""},
    "drawing": {"safety", ""},
    "safety": {""},
}
GROUND = {"disk", "settings", "space"}  # files beside the rooms that every room may use
WITHOUT = {"drawing": {"gradio"}, "training": {"gradio"}, "safety": {"torch"}}


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


def below(path: Path, package: str) -> set[str]:
    """What a file imports from a package, without the package's name; itself as ""."""
    names = {name for name in imported(path) if name.split(".")[0] == package}
    return {name.removeprefix(package).removeprefix(".") for name in names}


def room(path: Path) -> str:
    parts = path.relative_to(ROOT / "studio").parts
    return parts[0] if len(parts) > 1 else ""


def test_there_are_modules_to_check():
    assert {path.stem for path in CORE} >= set(ALLOWED)
    assert {room(path) for path in STUDIO} == set(ROOMS)


@pytest.mark.parametrize("name", ALLOWED)
def test_a_layer_of_the_core_imports_only_layers_below_it(name):
    assert below(ROOT / "diffusion" / f"{name}.py", "diffusion") <= ALLOWED[name]


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_the_core_imports_no_web_code(path):
    tops = {name.split(".")[0] for name in imported(path)}
    assert not tops & {"gradio", "studio", "app", "starlette", "fastapi"}


@pytest.mark.parametrize("path", STUDIO, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_of_the_studio_imports_only_rooms_below_it(path):
    own = room(path)
    for name in below(path, "studio"):
        first = name.split(".")[0]
        if (ROOT / "studio" / f"{first}.py").exists():
            assert own == "" or first in GROUND, f"{path.name} imports studio.{name}"
            assert path.stem not in GROUND or first in GROUND
        elif first:
            assert first == own or first in ROOMS[own], f"{path.name} imports studio.{name}"
            assert path.stem not in GROUND, f"{path.name} lies below every room"


@pytest.mark.parametrize("path", STUDIO, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_does_without_what_it_need_not_know(path):
    tops = {name.split(".")[0] for name in imported(path)}
    assert not tops & WITHOUT.get(room(path), set())
    assert "app" not in tops


@pytest.mark.parametrize("module", ["diffusion", "diffusion.cli"])
def test_importing_the_core_loads_no_web_code_and_nothing_slow(module):
    code = f"import sys, {module}; print(*{{m.split('.')[0] for m in sys.modules}})"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(run.stdout.split())
    assert "diffusion" in loaded
    assert not loaded & {"gradio", "studio", "accelerate", "diffusers", "torchvision"}

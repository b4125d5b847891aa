"""Imports run one way, and the core pulls in no web code."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "diffusion").glob("*.py"))

# Modules that can be read alone, and what the others may build on.
ALLOWED = {
    "unet": set(),
    "schedules": set(),
    "samplers": set(),
    "ema": set(),
    "augment": set(),
    "device": set(),
    "optim": set(),
    "config": set(),
    "images": set(),
    "metrics": set(),
    "features": set(),
    "data": {"images"},
    "checkpoint": {"config"},
    "pictures": {"checkpoint"},
    "denoiser": {"checkpoint", "config", "device", "schedules", "unet"},
}


def imports(path: Path) -> tuple[set[str], set[str]]:
    """Modules of this package, and the top names of all others, that a file imports anywhere."""
    own, others = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names, level = [alias.name for alias in node.names], 0
        elif isinstance(node, ast.ImportFrom):
            level = node.level
            names = [node.module] if node.module else [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if level == 1:
                own.add(parts[0])
            elif level > 1:
                others.add("outside the package")
            elif parts[0] == "diffusion":
                own.add(".".join(parts[1:]) or "diffusion")
            else:
                others.add(parts[0])
    return own, others


def test_there_are_modules_to_check():
    assert {path.stem for path in MODULES} >= set(ALLOWED)


@pytest.mark.parametrize("name", ALLOWED)
def test_a_layer_imports_only_layers_below_it(name):
    own, _ = imports(ROOT / "diffusion" / f"{name}.py")
    assert own <= ALLOWED[name]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_core_imports_no_web_code(path):
    _, others = imports(path)
    assert not others & {"gradio", "studio", "app", "outside the package"}


@pytest.mark.parametrize("module", ["diffusion", "diffusion.cli"])
def test_importing_the_core_loads_no_web_code_and_nothing_slow(module):
    code = f"import sys, {module}; print(*{{m.split('.')[0] for m in sys.modules}})"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(run.stdout.split())
    assert "diffusion" in loaded
    assert not loaded & {"gradio", "studio", "accelerate", "diffusers", "torchvision"}

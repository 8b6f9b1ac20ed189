"The folders show the architecture: imports run downwards, a folder holds few modules, a module is short."
import ast
from pathlib import Path

import pytest

from conftest import ROOT

PACKAGE = ROOT / "infoprompt"
FLOORS = "command", "study", "theory", "core", "engine", "method", "data", "tokens", "nano", "show", "base"
BESIDE = {"nano", "show"}  # these two stand side by side: neither may use the other
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("[!_]*.py")}


def imported(path: Path) -> set[str]:
    "The modules of this package that a module imports, anywhere in it, as dotted names below `infoprompt`."
    found, here = set(), ["infoprompt", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import): found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = here[:len(here) - node.level + 1] if node.level else []
            found.add(".".join(base + ([node.module] if node.module else [])))
            found |= {".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names}
    names = {name.removeprefix("infoprompt.") for name in found if name.startswith("infoprompt.")}
    return names & set(MODULES)


def floor(name: str) -> str: return name.partition(".")[0]


def test_every_module_stands_on_a_floor():
    assert {floor(name) for name in MODULES} == set(FLOORS)
    assert [name for name in MODULES if "." not in name] == ["core"]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_run_downwards(name):
    mine = floor(name)
    for other in map(floor, imported(MODULES[name])):
        assert FLOORS.index(other) >= FLOORS.index(mine), f"{name} imports from {other}, which stands above it"
        assert {mine, other} != BESIDE, f"{name} imports from {other}, which stands beside it"


def test_imports_are_found_however_they_are_written():
    assert {"base.checks", "nano.grammar", "data.sources"} <= imported(MODULES["data.tasks"])
    assert {"command.runs", "command.options", "base.files"} <= imported(MODULES["command.cli"])


def test_no_room_imports_itself_round_a_corner():
    seen, done = [], set()

    def visit(name):
        assert name not in seen, f"a circle: {' -> '.join(seen[seen.index(name):] + [name])}"
        if name in done: return
        seen.append(name)
        for other in sorted(imported(MODULES[name])): visit(other)
        done.add(seen.pop())

    for name in MODULES: visit(name)


@pytest.mark.parametrize("folder", [f for f in FLOORS if f != "core"])
def test_a_folder_holds_two_to_eight_modules(folder):
    assert 2 <= sum(floor(name) == folder for name in MODULES) <= 8


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_is_short(name):
    lines = [line for line in MODULES[name].read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(lines) <= 300


def test_reference_pages_mirror_the_folders():
    pages = {path.relative_to(ROOT / "nbs/reference") for path in (ROOT / "nbs/reference").rglob("*.ipynb")}
    pages = {page for page in pages if page.parts[0][0] not in "._"}
    assert {".".join(page.with_suffix("").parts) for page in pages} <= set(MODULES)


def test_a_script_has_one_door():
    from infoprompt.core import InfoPromptModel, InputError, Task, load_data
    from infoprompt.base import checks
    from infoprompt.data import tasks
    assert (InputError, Task, load_data) == (checks.InputError, tasks.Task, tasks.load_data)
    assert InfoPromptModel.__module__ == "infoprompt.core"

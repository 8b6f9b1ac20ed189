"""The notebooks are the source: each runs, is clean, and is in step with the module exported from it."""
import copy
import json
import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
from nbdev.clean import clean_nb

from conftest import ROOT

NOTEBOOKS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "nbs").rglob("*.ipynb")
                   if not any(part[0] in "._" for part in path.relative_to(ROOT).parts))
LESSONS = [path for path in NOTEBOOKS if re.match(r"nbs/\d", path)]
WIDGETS = "application/vnd.jupyter.widget-view+json"


def load(path: str) -> dict:
    "A notebook as plain data."
    return json.loads((ROOT / path).read_text(encoding="utf-8"))


def outputs(notebook: dict) -> list[dict]:
    "All outputs that a notebook stores."
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def nbdev(command: str,  # its name, as nbdev-test
          *arguments: str,
          cwd: Path  # a folder inside an nbdev project
          ) -> subprocess.CompletedProcess:
    "Run one of nbdev's commands and keep what it prints."
    program = Path(sysconfig.get_path("scripts")) / command
    environment = {key: value for key, value in os.environ.items() if key != "IN_TEST"}  # in it, export does nothing
    return subprocess.run([program, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("path", NOTEBOOKS)
def test_notebook_runs(path):
    done = nbdev("nbdev-test", path, cwd=ROOT)
    assert done.returncode == 0 and "Success." in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("path", NOTEBOOKS)
def test_notebook_is_clean(path):
    notebook = load(path)
    cleaned = copy.deepcopy(notebook)
    clean_nb(cleaned)
    assert cleaned == notebook, f"run nbdev-clean --fname {path}"


@pytest.mark.parametrize("path", NOTEBOOKS)
def test_notebook_stores_no_errors_and_no_widgets(path):
    notebook = load(path)
    assert "widgets" not in notebook["metadata"]
    assert not [output for output in outputs(notebook) if output["output_type"] == "error"]
    assert not [output for output in outputs(notebook) if WIDGETS in output.get("data", {})]


@pytest.mark.parametrize("path", LESSONS)
def test_lesson_keeps_itself_honest(path):
    code = "".join("".join(cell["source"]) + "\n" for cell in load(path)["cells"] if cell["cell_type"] == "code")
    assert re.search(r"^\s*(assert |test_\w+\()", code, re.M), "no cell of this lesson asserts anything"


def test_modules_are_in_step_with_notebooks(tmp_path):
    for name in "nbs", "infoprompt":
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "assets", "_*.yml"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    done = nbdev("nbdev-export", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    exported = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "infoprompt").glob("*.py")}
    committed = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "infoprompt").glob("*.py")}
    stale = [name for name in exported if exported[name] != committed.get(name)]
    assert not stale, f"run nbdev-export: {stale} differ from their notebooks"


def test_every_module_has_a_notebook():
    sources = {cell.strip() for path in NOTEBOOKS for cell in exports(load(path))}
    modules = {path.stem for path in (ROOT / "infoprompt").glob("[!_]*.py")}
    assert modules <= sources


def exports(notebook: dict) -> list[str]:
    "The modules that a notebook's default_exp names."
    code = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    return re.findall(r"^#\|\s*default_exp:? (\S+)", code, re.M)

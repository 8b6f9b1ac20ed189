"""The notebooks are the source: each runs, is clean, and is in step with the module exported from it."""
import copy
import json
import os
import re
import shutil
import subprocess
import sys
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


def code(path: str) -> str:
    "All code of a notebook."
    return "\n".join("".join(cell["source"]) for cell in load(path)["cells"] if cell["cell_type"] == "code")


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
    assert re.search(r"^\s*(assert |test_\w+\()", code(path), re.M), "no cell of this lesson asserts anything"


@pytest.fixture
def project(tmp_path):
    "A copy of what nbdev reads, that a test may write into."
    for name in "nbs", "infoprompt":
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "_*.yml"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def sources(root: Path) -> dict[str, str]:
    "The text of each module of the package under a folder."
    return {path.name: path.read_text(encoding="utf-8") for path in (root / "infoprompt").glob("*.py")}


def test_modules_are_in_step_with_notebooks(project):
    done = nbdev("nbdev-export", cwd=project)
    exported, committed = sources(project), sources(ROOT)
    stale = [name for name in exported if exported[name] != committed.get(name)]
    assert done.returncode == 0 and not stale, f"run nbdev-export: {stale} differ from their notebooks {done.stderr}"


def test_docs_process_every_notebook(project):
    "All of the docs' build but Quarto itself: it runs each cell that imports or exports."
    command = [sys.executable, "-c", "from nbdev.serve import proc_nbs; proc_nbs(n_workers=0)"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {f"nbs/{path.relative_to(project / '_proc').as_posix()}"
            for path in (project / "_proc").rglob("*.ipynb")} == set(NOTEBOOKS)


def exports(path: str) -> list[str]:
    "The modules that a notebook's default_exp names."
    return re.findall(r"^#\|\s*default_exp:? (\S+)", code(path), re.M)


def test_every_module_has_one_notebook():
    modules = [path.stem for path in (ROOT / "infoprompt").glob("[!_]*.py")]
    assert sorted(modules) == sorted(module for path in NOTEBOOKS for module in exports(path))

"""The notebooks are the source: each runs, is clean, and is in step with the module exported from it."""
import ast
import copy
import json
import os
import re
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import plotly.graph_objects as go
import pytest
from nbdev.clean import clean_nb

import outputs
from address import placed, repository
from conftest import ROOT, copied
from infoprompt.show.explore import show

NOTEBOOKS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "nbs").rglob("*.ipynb")
                   if not any(part[0] in "._" for part in path.relative_to(ROOT).parts))
LESSONS = [path for path in NOTEBOOKS if re.match(r"nbs/\d", path)]
ROOMS = {"nbs/07_convergence.ipynb": .3,  # draws gaps down to 1e-16, where the last bits decide
         "nbs/reference/engine/instruments.ipynb": .4}  # directions of gradients, late in a run
COLAB = """\
#| hide
if "google.colab" in str(get_ipython()):
    from google.colab import output
    output.enable_custom_widget_manager()"""
WIDGETS = "application/vnd.jupyter.widget-view+json"


def load(path: str) -> dict:
    "A notebook as plain data."
    return json.loads((ROOT / path).read_text(encoding="utf-8"))


def code(path: str) -> str:
    "All code of a notebook."
    return "\n".join("".join(cell["source"]) for cell in load(path)["cells"] if cell["cell_type"] == "code")


def stored(notebook: dict) -> list[dict]:
    "All outputs that a notebook stores."
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def nbdev(command: str,  # its name, as nbdev-test
          *arguments: str,
          cwd: Path  # a folder inside an nbdev project
          ) -> subprocess.CompletedProcess:
    "Run one of nbdev's commands and keep what it prints."
    program = Path(sysconfig.get_path("scripts")) / command
    environment = {key: value for key, value in os.environ.items() if key != "IN_TEST"}  # in it, export does nothing
    environment["OMP_NUM_THREADS"] = "1"  # two at a time, and sums in one order
    return subprocess.run([program, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


SOLUTION = re.compile(r"<details><summary>Solution</summary>\n.*?```python\n(.*?)```\n.*?</details>", re.S)


def exercises(notebook: dict) -> list[tuple[dict, str]]:
    "A notebook's exercises: the cell that checks an answer, and the solution's code."
    cells = notebook["cells"]
    found = [(check, SOLUTION.search("".join(told["source"]))) for check, told in zip(cells, cells[1:])]
    return [(check, match[1]) for check, match in found if match and check["cell_type"] == "code"]


def with_solutions(notebook: dict) -> dict:
    "The notebook, and below it each solution with its check, which must then say that all is well."
    def solved(check, code):
        *before, last = ast.parse("".join(check["source"])).body
        return "\n".join([code, *map(ast.unparse, before), f"assert ({ast.unparse(last)}) == 'solved'"])
    cells = [dict(cell_type="code", id=f"solution{i}", source=solved(*exercise), metadata={}, outputs=[],
                  execution_count=None) for i, exercise in enumerate(exercises(notebook))]
    return notebook | dict(cells=notebook["cells"] + cells)


@pytest.fixture(scope="module")
def runs(request, tmp_path_factory):
    "Each notebook that this session asks for, run on a copy of the project, two at a time, with its solutions."
    folder = copied(tmp_path_factory.mktemp("runs"))
    for path in LESSONS: (folder / path).write_text(json.dumps(with_solutions(load(path))), encoding="utf-8")
    (folder / "benchmarks").symlink_to(ROOT / "benchmarks", target_is_directory=True)
    paths = dict.fromkeys(item.callspec.params["path"] for item in request.session.items
                          if "runs" in getattr(item, "fixturenames", ()))
    with ThreadPoolExecutor(2) as pool:
        yield folder, {path: pool.submit(nbdev, "nbdev-test", path, "--save", cwd=folder) for path in paths}


@pytest.mark.parametrize("path", NOTEBOOKS)
def test_notebook_runs_and_gives_what_it_stores(runs, path):
    folder, jobs = runs
    done = jobs[path].result()
    assert done.returncode == 0 and "Success." in done.stdout, done.stdout + done.stderr
    fresh = json.loads((folder / path).read_text(encoding="utf-8"))
    fresh["cells"] = [cell for cell in fresh["cells"] if not cell["id"].startswith("solution")]
    stale = outputs.differences(load(path), fresh, ROOMS.get(path, outputs.ROOM))
    told = f"run INFOPROMPT_STATIC=1 nbdev-test {path} --save, then nbdev-clean; these cells give something else:"
    assert not stale, "\n\n".join([told, *stale])


@pytest.mark.parametrize("path", LESSONS)
def test_exercises_are_unsolved(path):
    "A stub's check says what is wrong; `test_notebook_runs_and_gives_what_it_stores` runs the solutions."
    found = exercises(load(path))
    assert len(found) >= 2, "a lesson has two exercises: text, stub, check, the solution's code in <details>"
    for check, _ in found:
        shown = "".join("".join(output.get("data", {}).get("text/plain", "")) for output in check["outputs"])
        assert shown and "solved" not in shown, f"the stub passes: {''.join(check['source'])}"


@pytest.mark.parametrize("one, other, alike", [
    ("loss 0.61 <a at 0x7f12>", "loss 0.62 <a at 0x7f34>", True), ("loss 0.61", "loss 0.66", False),
    ("12 rows", "13 rows", False), ("took 3.2 s", "took 9.8 s", True), ("61.0%", "62.5%", True), ("good", "bad", False),
    ("1.2e-07", "8.1e-08", True), ("a   b\n-----", "a b\n---", True)])
def test_outputs_are_compared_as_a_reader_would(one, other, alike):
    assert outputs.same([one], [other]) == alike


@pytest.mark.parametrize("height, alike", [(1.05, True), (1.3, False), (None, False)])
def test_figures_are_compared_by_what_they_draw(height, alike):
    drawn = lambda y: show(go.Figure(go.Scatter(y=[0., y, .5])))._repr_mimebundle_()
    assert [outputs.same(drawn(1.)[kind], drawn(height)[kind]) for kind in drawn(1.)] == [alike, alike]


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
    assert not [output for output in stored(notebook) if output["output_type"] == "error"]
    assert not [output for output in stored(notebook) if WIDGETS in output.get("data", {})]


@pytest.mark.parametrize("path", LESSONS)
def test_lesson_installs_itself_in_colab(path):
    cells = ["".join(cell["source"]) for cell in load(path)["cells"] if cell["cell_type"] == "code"]
    want = placed(COLAB, repository())
    assert cells[1] == want, f"put this cell after the default_exp of {path}:\n{want}"


@pytest.mark.parametrize("path", NOTEBOOKS)
def test_a_page_uses_what_every_viewer_shows(path):
    "Quarto's ::: blocks are raw text in JupyterLab and Colab."
    text = ["".join(cell["source"]) for cell in load(path)["cells"] if cell["cell_type"] == "markdown"]
    assert not [cell for cell in text if re.search(r"^:::", cell, re.M)]


@pytest.mark.parametrize("path", NOTEBOOKS)
def test_a_star_of_mathematics_is_escaped(path):
    "Pandoc takes the star of u* for the beginning of italics, which then reach to the next star."
    text = "\n\n".join("".join(cell["source"]) for cell in load(path)["cells"] if cell["cell_type"] == "markdown")
    text = re.sub(r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$", "", text, flags=re.S)
    stars = [part.split("*") for part in re.sub(r"(?m)\\\*|\*\*|^\s*\* ", "", text).split("\n\n")]
    assert not ["*".join(parts) for parts in stars if len(parts) % 2 == 0 or max(map(len, parts[1::2] or [""])) > 120]


@pytest.mark.parametrize("path", LESSONS)
def test_lesson_keeps_itself_honest(path):
    assert re.search(r"^\s*(assert |test_\w+\()", code(path), re.M), "no cell of this lesson asserts anything"


def sources(root: Path) -> dict[str, str]:
    "The text of each module of the package under a folder."
    modules = (root / "infoprompt").rglob("*.py")
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in modules}


def test_modules_are_in_step_with_notebooks(project):
    done = nbdev("nbdev-export", cwd=project)
    exported, committed = sources(project), sources(ROOT)
    stale = [name for name in exported if exported[name] != committed.get(name)]
    assert done.returncode == 0 and not stale, f"run nbdev-export: {stale} differ from their notebooks {done.stderr}"


def test_docs_process_every_notebook(processed):
    "All of the docs' build but Quarto itself."
    assert {f"nbs/{path.relative_to(processed).as_posix()}" for path in processed.rglob("*.ipynb")} == set(NOTEBOOKS)


def exports(path: str) -> list[str]:
    "The modules that a notebook's default_exp names."
    return re.findall(r"^#\|\s*default_exp:? (\S+)", code(path), re.M)


def test_every_module_has_one_notebook():
    package = ROOT / "infoprompt"
    modules = [".".join(path.relative_to(package).with_suffix("").parts) for path in package.rglob("[!_]*.py")]
    assert sorted(modules) == sorted(module for path in NOTEBOOKS for module in exports(path))

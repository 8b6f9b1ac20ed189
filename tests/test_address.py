"""The repository's address: one setting, written where it is needed, left out while nobody knows it."""
import json
import os
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml
from setuptools import build_meta

import address
from conftest import REPOSITORY, ROOT, addressed, copied


def sources(path) -> str:
    "The text of all cells."
    return "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"])


def written(folder, *arguments: str) -> subprocess.CompletedProcess:
    "Run the tool on a copy of the project."
    command = [sys.executable, "tools/address.py", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_notebooks_say_what_the_setting_says(project):
    before = {path: path.read_bytes() for path in (project / "nbs").rglob("*.ipynb")}
    assert written(project).returncode == 0
    changed = [path.name for path, text in before.items() if path.read_bytes() != text]
    assert not changed, "run python tools/address.py"


def test_an_address_is_written_and_taken_away_again(tmp_path):
    folder = copied(tmp_path)
    before = {path: path.read_bytes() for path in (folder / "nbs").rglob("*.ipynb")}
    settings = (folder / "settings.ini").read_text()
    written(addressed(folder))
    assert f"```sh\ngit clone {REPOSITORY} && cd somewhere\n```" in sources(folder / "nbs/index.ipynb")
    door = f"[Open a lesson in Colab]({address.in_colab(REPOSITORY, '01_soft_prompts.ipynb')})"
    assert sources(folder / "nbs/index.ipynb").count(door) == 1
    for path in (folder / "nbs").glob("[0-9]*.ipynb"):
        assert sources(path).count(f"    %pip install -q git+{REPOSITORY}\n") == 1
    (folder / "settings.ini").write_text(settings)
    written(folder)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.skipif(bool(address.repository()), reason="the address is known")
def test_an_unknown_address_is_left_out(project):
    "No badge, no clone line, no installation that fails; the site's settings name none."
    assert subprocess.run([sys.executable, "tools/docs.py"], cwd=project).returncode == 0
    text = "".join(sources(path) for path in (project / "nbs").rglob("*.ipynb"))
    assert "git clone" not in text and "images/colab.svg" not in text and "%pip" not in text
    assert "colab.research" not in text
    assert "[project.urls]" not in (project / "pyproject.toml").read_text()
    assert "repo-actions" not in (project / "_quarto.yml").read_text()


def test_the_site_learns_the_address(processed):
    site = yaml.safe_load((processed.parent / "_quarto.yml").read_text())["website"]
    assert site["navbar"]["right"] == [dict(text="source", href=REPOSITORY)]
    assert site["repo-actions"] == ["source"] and site["repo-subdir"] == "nbs"
    urls = tomllib.loads((processed.parent / "pyproject.toml").read_text())["project"]["urls"]
    assert urls == dict(Repository=REPOSITORY, Documentation="https://somebody.github.io/somewhere/")


@pytest.mark.parametrize("known", [True, False])
def test_the_package_learns_the_address(tmp_path, monkeypatch, known):
    for name in "pyproject.toml", "setup.py", "settings.ini", "README.md", "LICENSE": shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "infoprompt").mkdir()
    (tmp_path / "infoprompt/__init__.py").touch()
    if known: addressed(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["setup.py"])
    made = build_meta.prepare_metadata_for_build_wheel(os.fspath(tmp_path))
    told = (tmp_path / made / "METADATA").read_text(encoding="utf-8")
    assert (f"Project-URL: Repository, {REPOSITORY}\n" in told) == known or address.repository()


def test_a_release_needs_the_address(project):
    wanting = written(project, "--needed")
    if not address.repository():
        assert wanting.returncode == 1 and wanting.stderr.count("\n") == 1 and "settings.ini" in wanting.stderr
    assert written(addressed(project), "--needed").returncode == 0


def test_an_address_of_another_form_is_refused(project):
    path = project / "settings.ini"
    path.write_text(path.read_text().replace("repository =", "repository = somebody/somewhere #", 1))
    done = written(project)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "https://github.com/owner/name" in done.stderr


@pytest.mark.parametrize("name, job", [("docs", "docs"), ("release", "release")])
def test_what_publishes_asks_for_the_address_first(name, job):
    steps = yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text())["jobs"][job]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    assert commands[0] == "python tools/address.py --needed"

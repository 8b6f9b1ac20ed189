"""What several files state is the same in all: version, requirements, flags, README, commands, citation."""
import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from configparser import ConfigParser
from email.parser import Parser

import pytest
import yaml
from packaging.requirements import Requirement

from conftest import ROOT

YAML_FILES = ["_quarto.yml", "CITATION.cff", "nbs/nbdev.yml", ".github/workflows/test.yml",
              ".github/workflows/docs.yml", ".github/workflows/release.yml"]
IN_WHEEL = "infoprompt", "README.md", "LICENSE", "MANIFEST.in", "pyproject.toml", "settings.ini", "setup.py"


def read(path: str) -> str:
    "A file of the project."
    return (ROOT / path).read_text(encoding="utf-8")


def settings():
    "settings.ini, read as setup.py reads it."
    config = ConfigParser()
    config.read_string(read("settings.ini"))
    return config["DEFAULT"]


def requirements(key: str) -> list[Requirement]:
    "The requirements under a key of settings.ini."
    return [Requirement(line) for line in settings()[key].strip().splitlines()]


def commands(markdown: str) -> list[str]:
    "The shell commands that a text shows as blocks."
    return [block.strip() for block in re.findall(r"^```sh\n(.*?)^```", markdown, re.S | re.M)]


def script(path: str) -> list[str]:
    "The lines of a shell script that do something."
    return [line for line in read(path).splitlines() if line and not line.startswith("#")]


def test_one_version():
    tree = ast.parse(read("infoprompt/__init__.py"))
    names = {node.targets[0].id: ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)}
    newest = re.search(r"^## (\S+)", read("CHANGELOG.md"), re.M)[1]
    cited = yaml.safe_load(read("CITATION.cff"))["version"]
    assert {settings()["version"]} == {names["__version__"], newest, str(cited)}


def test_pyproject_leaves_version_and_requirements_to_settings():
    project = tomllib.loads(read("pyproject.toml"))["project"]
    assert set(project["dynamic"]) == {"version", "dependencies", "optional-dependencies", "urls"}
    assert not set(project["dynamic"]) & project.keys()


def test_pyproject_agrees_with_settings():
    toml, ini = tomllib.loads(read("pyproject.toml")), settings()
    assert toml["project"]["name"] == ini["lib_name"]
    assert toml["project"]["description"] == ini["description"]
    assert toml["project"]["license"] == ini["license"]
    assert toml["project"]["requires-python"] == f">={ini['min_python']}"
    assert toml["tool"]["nbdev"]["tst_flags"] == ini["tst_flags"]


def test_each_requirement_has_its_reason():
    lines = [line.strip() for line in read("settings.ini").split("requirements =\n", 1)[1].splitlines()]
    lines = [line for line in lines if line and not line.endswith("=")]
    assert all(lines[i - 1].startswith("#") for i, line in enumerate(lines) if not line.startswith("#"))


@pytest.mark.parametrize("key", ["requirements", "notebook_requirements", "dev_requirements"])
def test_each_requirement_is_pinned_within_its_range(key):
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", read("constraints.txt"), re.M))
    for need in requirements(key):
        if need.name not in ("infoprompt", "setuptools"):
            assert need.specifier.contains(pins[need.name]), f"{need} is not served by {pins[need.name]}"


def test_installed_versions_are_the_pinned_ones():
    from importlib.metadata import PackageNotFoundError, version
    for name, pin in re.findall(r"^([\w-]+)==(\S+)$", read("constraints.txt"), re.M):
        try:
            found = version(name)
        except PackageNotFoundError:
            pytest.fail(f"{name} is pinned and not needed: take it out of constraints.txt")
        assert found.split("+")[0] == pin, f"{name} {found} is installed, {pin} is pinned: run tests/run.sh"


@pytest.mark.parametrize("path", YAML_FILES)
def test_yaml_is_valid(path):
    assert isinstance(yaml.safe_load(read(path)), dict)


@pytest.mark.skipif(os.name == "nt", reason="git makes no links on Windows unless told to")
def test_quarto_settings_are_linked_into_the_notebooks_folder():
    assert os.readlink(ROOT / "nbs/_quarto.yml") == "../_quarto.yml"


def test_readme_is_made_from_the_index_notebook():
    spec = importlib.util.spec_from_file_location("readme", ROOT / "tools/readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert read("README.md") == module.readme(), "run python tools/readme.py"


def test_links_of_readme_lead_somewhere():
    text = re.sub(r"<!--.*?-->", "", read("README.md"), flags=re.S)
    links = re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", text)
    assert links and not [link for link in links if not (ROOT / link).exists()]


def test_readme_shows_a_figure_and_says_what_it_shows():
    assert re.search(r"^!\[[^\]]{20,}\]\(nbs/images/", read("README.md"), re.M)


def test_readme_has_two_commands_and_ci_runs_the_second():
    first, second = [command for command in commands(read("README.md")) if not command.startswith("git clone")]
    assert first.endswith("infoprompt train") and "-c constraints.txt" in first
    assert script(".ci/run") == ["set -euo pipefail", 'cd "$(dirname "${BASH_SOURCE[0]}")/.."', second]
    steps = yaml.safe_load(read(".github/workflows/test.yml"))["jobs"]["test"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["bash .ci/run"]


def test_the_test_command_ends_with_pytest():
    assert script("tests/run.sh")[-1] == '.venv/bin/python -m pytest "$@"'


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    "The wheel that pip builds from this tree, opened; it is built from a copy, so that the tree stays clean."
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in IN_WHEEL:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tree / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", out, tree]
    subprocess.run(command, check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    with zipfile.ZipFile(next(out.glob("*.whl"))) as opened:
        yield opened


def test_wheel_holds_every_module_and_asset(wheel):
    files = [path for path in (ROOT / "infoprompt").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.relative_to(ROOT).as_posix() for path in files} <= set(wheel.namelist())


def test_wheel_says_what_settings_say(wheel):
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(wheel.read(name).decode())
    needed = {Requirement(line) for line in metadata.get_all("Requires-Dist")}
    assert metadata["Version"] == settings()["version"]
    assert {need for need in needed if need.marker is None} == set(requirements("requirements"))
    assert set(metadata.get_all("Provides-Extra")) == {"notebook", "dev"}


def ours() -> dict[str, list[str]]:
    "Lines of the code that people read, by file; not the list of names that nbdev writes into each module."
    folders, names = ("tests", "benchmarks", "tools", "infoprompt"), re.compile(r"^__all__ = \[.*?\]", re.S | re.M)
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py") if path.name != "_modidx.py"]
    return {path.relative_to(ROOT).as_posix(): names.sub("", path.read_text(encoding="utf-8")).splitlines()
            for path in files}


def test_lines_are_at_most_120_characters_long():
    long = [f"{path}: {line.strip()}" for path, lines in ours().items() for line in lines if len(line) > 120]
    assert not long, "wrap these lines:\n" + "\n".join(long)


def test_modules_have_at_most_300_lines():
    sizes = {path: sum(map(bool, map(str.strip, read(path).splitlines()))) for path in ours() if path[:4] == "info"}
    assert len(sizes) > 10 and max(sizes.values()) <= 300, sizes

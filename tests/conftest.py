"""What all tests share: nothing reaches a network, figures are static, and a test that lacks its means says which."""
import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"
BROWSERS = "chromium", "chromium-browser", "google-chrome"

# Set before any library is imported, and inherited by subprocesses. Threads that spin while they wait starve each other
# on a busy machine: nano then trained a hundred times slower.
os.environ.update(HF_HUB_OFFLINE="1", INFOPROMPT_STATIC="1", TOKENIZERS_PARALLELISM="false", OMP_WAIT_POLICY="passive")


@pytest.fixture(scope="session")
def root() -> Path:
    "The project's folder."
    return ROOT


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> Path:
    "A copy of what nbdev reads, that tests may write into."
    folder = tmp_path_factory.mktemp("project")
    for name in "nbs", "infoprompt":
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "_*.yml"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.fixture(scope="session")
def processed(project) -> Path:
    "The notebooks as nbdev hands them to Quarto: it runs each cell that imports or exports."
    command = [sys.executable, "-c", "from nbdev.serve import proc_nbs; proc_nbs(n_workers=0)"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return project / "_proc"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    "The folder of public test sets beside the project, or a skip."
    if not SHARED_DATA.is_dir():
        pytest.skip("no public test sets at ../shared/data")
    return SHARED_DATA


@pytest.fixture(scope="module")  # not session: while it lives, asyncio.run fails in this process
def browser():
    "A headless chromium, or a skip that says what is missing."
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no browser: install chromium, or run tests/run.sh as root on Debian")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def is_outside(url: str) -> bool:
    "Would this address leave the machine?"
    return urlsplit(url).hostname not in (None, "", "127.0.0.1", "localhost")


@pytest.fixture
def page(browser):
    "A fresh page that reaches this machine and nothing else."
    context = browser.new_context()
    context.route(is_outside, lambda route: route.abort())
    yield context.new_page()
    context.close()

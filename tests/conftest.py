"""What all tests share: nothing reaches a network, figures are static, and a test that lacks its means says which."""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
SHARED_DATA = ROOT.parent / "shared" / "data"
REPOSITORY = "https://github.com/somebody/somewhere"  # made up
BROWSERS = "chromium", "chromium-browser", "google-chrome"

# Set before any library is imported, and inherited by subprocesses. Workers share the cores, so each has one thread,
# whatever the shell says: sums of equal runs then have one order. Threads that spin while they wait starve each other
# on a busy machine: nano then trained a hundred times slower.
os.environ.update(HF_HUB_OFFLINE="1", INFOPROMPT_STATIC="1", TOKENIZERS_PARALLELISM="false", OMP_WAIT_POLICY="passive",
                  OMP_NUM_THREADS="1")


# No test looks at a clock: how long an example takes depends on the machine.
settings.register_profile("infoprompt", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("infoprompt")


@pytest.fixture(scope="session")
def root() -> Path:
    "The project's folder."
    return ROOT


def copied(folder: Path  # an empty one
           ) -> Path:
    "A copy of what nbdev reads, that tests may write into."
    shutil.copy(ROOT / "settings.ini", folder)
    for name in "nbs", "infoprompt", "tools":
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in "pyproject.toml", "_quarto.yml":
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture
def project(tmp_path) -> Path:
    "A copy of what nbdev reads."
    return copied(tmp_path)


BEFORE_QUARTO = """
from nbdev.doclinks import _build_modidx
from nbdev.quarto import refresh_quarto_yml
from nbdev.serve import proc_nbs
refresh_quarto_yml(); _build_modidx(); proc_nbs(n_workers=0)
"""


def addressed(folder: Path  # a copy
              ) -> Path:
    "The same copy, of a repository that is made up."
    path = folder / "settings.ini"
    path.write_text(re.sub("(?m)^repository =.*", f"repository = {REPOSITORY}", path.read_text(encoding="utf-8")))
    return folder


@pytest.fixture(scope="session")
def processed(tmp_path_factory) -> Path:
    "What Quarto would be given, for a repository that is made up; each cell that imports or exports has been run."
    folder = addressed(copied(tmp_path_factory.mktemp("processed")))
    for command in ["tools/docs.py"], ["-c", BEFORE_QUARTO]:
        done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return folder / "_proc"


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
    context.set_default_timeout(600_000)  # ms, so that a busy machine fails no test: what never comes is still reported
    context.route(is_outside, lambda route: route.abort())
    yield context.new_page()
    context.close()

"""Figures under the oldest versions that settings.ini allows, plotly 5.24 and ipywidgets 7.7, as hosted notebooks have.

They stand in an environment of their own, without torch: explore and figures need none of it.
"""
import json
import os
import subprocess
import sys

import pytest

from conftest import ROOT

NEEDED = ["plotly==5.24.*", "pandas<3", "numpy", "ipykernel", "psygnal", "typing_extensions"]
BARE = ["ipywidgets==7.7.*", "anywidget", "ipython_genutils"]  # without notebook and all that it brings
UNREACHED = "No matching distribution found", "ConnectionError", "Failed to establish", "Temporary failure"
CODE = """\
import plotly, ipywidgets, plotly.graph_objects as go
from infoprompt.explore import Stops, Typed, explore
from infoprompt.figures import say

def fig_line(slope=1, text="a"):
    fig = go.Figure(go.Scatter(x=[0, 1, 2], y=[0, slope, 2 * slope], mode="lines"))
    return say(fig, "to {end:d}, {text}", "A line that ends at {end:d}.", end=2 * slope, text=text)

line = explore(fig_line, slope=Stops([1, 2, 4], "slope"), text=Typed("your text"))
"""
STATIC = CODE + """
import json, sys
from plotly.offline import get_plotlyjs
versions = [plotly.__version__, ipywidgets.__version__]
torch, bundle = "torch" in sys.modules, line._repr_mimebundle_()
print(json.dumps(dict(versions=versions, torch=torch, bundle=bundle, js=get_plotlyjs())))
"""
LIVE = f"""\
import json
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="python3")

def heard(kind):
    while (message := client.get_iopub_msg(timeout=60))["msg_type"] != kind: pass
    return message["content"]["data"]

client.execute({CODE + "line"!r})
bundle = heard("execute_result")
model = bundle["application/vnd.jupyter.widget-view+json"]["model_id"]
asked = dict(id=1, want="frame", state=dict(slope=3, text="typed"))
data = dict(method="custom", content=asked)
client.shell_channel.send(client.session.msg("comm_msg", dict(comm_id=model, data=data)))
answer = heard("comm_msg")["content"]
client.stop_channels()
manager.shutdown_kernel(now=True)
print(json.dumps(dict(types=sorted(bundle), answer=answer)))
"""


def run(*command, **more) -> subprocess.CompletedProcess:
    "A program outside this environment, with the package's own source and a kernel that may be live."
    hidden = "INFOPROMPT_STATIC", "IN_TEST", "PYTHONPATH"
    kept = {key: value for key, value in os.environ.items() if key not in hidden}
    return subprocess.run(command, env=kept | more | dict(PYTHONPATH=str(ROOT)), capture_output=True, text=True)


def installed(python, *arguments):
    "Install into an environment; skip where pip reaches no index."
    flags = "-q", "--disable-pip-version-check", "--retries=1", "--timeout=30"
    done = run(python, "-m", "pip", "install", *flags, *arguments)
    if any(word in done.stderr for word in UNREACHED) and done.returncode:
        pytest.skip(f"pip reaches no index for the old versions: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    "A Python whose packages are old."
    folder = tmp_path_factory.mktemp("old")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    installed(python, *NEEDED)
    installed(python, "--no-deps", *BARE)
    return python


def told(done: subprocess.CompletedProcess) -> dict:
    "What a script printed, as JSON."
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def static(old):
    "A figure without a kernel."
    return told(run(old, "-c", STATIC))


def test_versions_are_old_and_torch_is_not_needed(static):
    plotly, ipywidgets = static["versions"]
    assert plotly.startswith("5.24.") and ipywidgets.startswith("7.7.") and not static["torch"]
    assert set(static["bundle"]) == {"application/vnd.plotly.v1+json", "text/html"}


def test_live_view_answers(old):
    found = told(run(old, "-c", LIVE))
    assert {"application/vnd.jupyter.widget-view+json", "text/html"} < set(found["types"])
    assert found["answer"]["answer"]["numbers"] == dict(end=6, text="typed")


def test_fragment_is_drawn_and_moved(static, page, tmp_path):
    (tmp_path / "plotly.min.js").write_text(static["js"], encoding="utf-8")
    text = static["bundle"]["text/html"]
    (tmp_path / "page.html").write_text(f"<!doctype html><title>old</title>{text}", encoding="utf-8")
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_selector(".main-svg .scatterlayer .trace")
    page.get_by_label("slope").press("ArrowRight")
    assert page.inner_text("figcaption") == "to 4, a"
    assert page.evaluate("[...document.querySelector('.plot').data[0].y]") == [0, 2, 4]
    assert page.evaluate("Plotly.version").startswith("2.") and said == []

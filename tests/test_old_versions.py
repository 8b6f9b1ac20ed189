"""The oldest versions that settings.ini allows install together, and with them the package trains, predicts and draws.

They stand in an environment of their own; torch alone, and what it needs, is that of the tests. Figures are drawn as in
hosted notebooks, with plotly 5.24 and ipywidgets 7.7; explore and figures import no torch.
"""
import json
import os
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

from conftest import ROOT
from test_project import requirements

NEEDED = ["ipykernel", "psygnal", "typing_extensions"]  # of the live figures
BARE = ["ipywidgets", "anywidget"]  # installed without what they need: notebook, and all that it brings
UNREACHED = "No matching distribution found", "ConnectionError", "Failed to establish", "Temporary failure"
CODE = """\
import plotly, ipywidgets, plotly.graph_objects as go
from infoprompt.show.explore import Stops, Typed, explore
from infoprompt.show.figures import say

def fig_line(slope=1, text="a"):
    fig = go.Figure(go.Scatter(x=[0, 1, 2], y=[0, slope, 2 * slope], mode="lines"))
    return say(fig, "to {end:d}, {text}", "A line that ends at {end:d}.", end=2 * slope, text=text)

line = explore(fig_line, slope=Stops([1, 2, 4], "slope"), text=Typed("your text"))
"""
TRAINS = """\
import json, sys
from infoprompt.command.cli import app
from infoprompt.core import InfoPromptModel, load_data
data = load_data("nano/sentiment", shots=16, seed=0)
model = InfoPromptModel("nano", "nano/sentiment")
history = model.fit(data["train"], data["validation"], epochs=1, progress=False)
model.save_pretrained(sys.argv[1])
back = InfoPromptModel.from_pretrained(sys.argv[1])
rows = data["test"].select(range(20))
found = dict(notes=len(history), same=back.predict(rows) == model.predict(rows), scores=back.evaluate(rows))
try: app(["tasks"])
finally: print(json.dumps(found))
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
    while (message := client.get_iopub_msg(timeout=600))["msg_type"] != kind: pass
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
    flags = "-q", "--disable-pip-version-check", "--no-compile", "--retries=1", "--timeout=30"
    done = run(sys.executable, "-m", "pip", "--python", python, "install", *flags, *arguments)
    if any(word in done.stderr for word in UNREACHED) and done.returncode:
        pytest.skip(f"pip reaches no index for the old versions: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


def linked(site: Path, *names: str):
    "Put packages of this environment into another one, by links."
    for name in names:
        ours = {path.parts[0] for path in distribution(name).files if not path.parts[0].startswith(("..", "__"))}
        for part in ours: (site / part).symlink_to(distribution(name).locate_file(part))


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    "A Python with the lowest version of everything that settings.ini names, but torch."
    folder = tmp_path_factory.mktemp("old")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
    linked(Path(site), "torch", "infoprompt")
    lowest = {need.name: str(need).replace(">=", "==") for need in requirements("requirements")} | dict(torch="torch")
    bare = [lowest.pop(name) for name in BARE]
    installed(python, *lowest.values(), *NEEDED)
    installed(python, "--no-deps", *bare, "ipython_genutils")
    return python


def told(done: subprocess.CompletedProcess) -> dict:
    "What a script printed, as JSON."
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def static(old):
    "A figure without a kernel."
    return told(run(old, "-c", STATIC))


def test_it_trains_and_predicts_under_the_lowest_versions(old, tmp_path):
    done = run(old, "-c", TRAINS, tmp_path / "prompt", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["same"] and found["notes"] > 10 and "nano/sentiment" in done.stdout


def test_versions_are_old_and_figures_need_no_torch(static):
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
    assert page.evaluate("[...document.querySelector('.plot').data.at(-1).y]") == [0, 2, 4]
    assert page.evaluate("Plotly.version").startswith("2.") and said == []

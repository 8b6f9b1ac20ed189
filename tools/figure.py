"""Writes nbs/images/convergence.svg, README's figure: five seeds of `infoprompt train`, drawn by headless chromium.

usage: python tools/figure.py
"""
import base64
import json
import shutil
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
from playwright.sync_api import sync_playwright
from plotly.offline import get_plotlyjs

from infoprompt.core import InfoPromptModel
from infoprompt.figures import fig_convergence
from infoprompt.runs import learning_rate
from infoprompt.tasks import load_data

FILE = Path(__file__).resolve().parent.parent / "nbs/images/convergence.svg"


def five_runs() -> pd.DataFrame:
    "History of the default training with five seeds of data, start and order."
    parts = []
    for seed in range(5):
        data = load_data("nano/sentiment", shots=64, seed=seed)
        model = InfoPromptModel("nano", task="nano/sentiment", seed=seed)
        history = model.fit(data["train"], data["validation"], lr=learning_rate(None, "nano"), seed=seed)
        parts.append(history.assign(run=seed))
    return pd.concat(parts, ignore_index=True)


def svg(fig  # a plotly figure
        ) -> bytes:
    "Draw a figure with the chromium that is there."
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as driver:
        page = driver.chromium.launch(executable_path=path, args=["--no-sandbox"]).new_page()
        page.set_content("<div id=figure></div>")
        page.add_script_tag(content=get_plotlyjs())
        url = page.evaluate("fig => Plotly.newPlot('figure', fig.data, fig.layout)"
                            ".then(() => Plotly.toImage('figure', {format: 'svg', width: 900, height: 420}))",
                            json.loads(fig.to_json()))
    head, body = url.split(",", 1)
    return base64.b64decode(body) if head.endswith("base64") else unquote(body).encode()


if __name__ == "__main__":
    history = five_runs()
    start = history.query("step == 0 and quantity == 'val_accuracy'").value.mean()
    fig = fig_convergence(history, majority=.5, untrained=start)
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_bytes(svg(fig))
    print(fig.layout.meta)

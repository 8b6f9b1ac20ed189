"""Writes nbs/images/weights.svg, README's figure: the explorer's first frame, drawn by headless chromium.

usage: python tools/figure.py
"""
import base64
import json
import shutil
from pathlib import Path
from urllib.parse import unquote

from playwright.sync_api import sync_playwright
from plotly.offline import get_plotlyjs

from infoprompt.show.weights import fig_weights

FILE = Path(__file__).resolve().parent.parent / "nbs/images/weights.svg"


def svg(fig  # a plotly figure
        ) -> bytes:
    "Draw a figure with the chromium on this machine."
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
    fig = fig_weights()
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_bytes(svg(fig))
    print(fig.layout.meta["about"])

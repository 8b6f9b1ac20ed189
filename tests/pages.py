"""The site without Quarto: processed notebooks as plain pages, made by nbconvert, and a server for them."""
import contextlib
import functools
import http.server
import json
import re
import threading
from pathlib import Path

import nbformat
import yaml
from nbconvert.exporters import TemplateExporter
from plotly.offline import get_plotlyjs

KEPT = {"markdown": ("cell_type", "id", "metadata", "source"),
        "code": ("cell_type", "id", "metadata", "source", "outputs", "execution_count")}
NOTEBOOK = re.compile(r'href="((?:[\w.-]*/)*)(?:\d+_)?(\w+)\.ipynb')
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{{ resources.front.title }}</title>
<style>
  :root { color-scheme: light dark; }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 0 auto; padding: 1rem; }
  a { color: #1a56c4; }
  pre, code { overflow-wrap: anywhere; white-space: pre-wrap; }
  img { max-width: 100%; }
  td, th { text-align: left; padding: .1rem .6rem; }
  @media (prefers-color-scheme: dark) { body { background: #16191d; color: #dfe3e8; } a { color: #82b1ff; } }
</style>
<script src="{{ resources.up }}plotly.min.js"></script>
</head>
<body>
<main>
<h1>{{ resources.front.title }}</h1>
<p>{{ resources.front.description }}</p>
{% for cell in nb.cells %}
{% if cell.cell_type == "markdown" %}{{ cell.source | markdown2html }}
{% elif cell.source and "#| echo: false" not in cell.source %}<pre>{{ cell.source | escape }}</pre>{% endif %}
{% for output in cell.outputs %}
{% if "text/html" in output.data %}{{ output.data["text/html"] }}
{% elif "text/markdown" in output.data %}{{ output.data["text/markdown"] | markdown2html }}
{% else %}<pre>{{ (output.text or output.data["text/plain"]) | ansi2html }}</pre>{% endif %}
{% endfor %}
{% endfor %}
</main>
</body>
</html>
"""


def front(notebook: dict) -> dict:
    "What nbdev put before a processed notebook: title, description, output-file."
    return yaml.safe_load("".join(notebook["cells"][0]["source"]).strip().strip("-"))


def plain(notebook: dict) -> nbformat.NotebookNode:
    "A processed notebook with nothing in it that nbformat does not know."
    cells = [{key: cell[key] for key in KEPT[cell["cell_type"]]} | dict(metadata={})
             for cell in notebook["cells"] if cell["cell_type"] in KEPT]
    return nbformat.reads(json.dumps(notebook | dict(cells=cells, metadata={})), as_version=4)


def written(proc: Path,  # processed notebooks
            site: Path  # where the pages go
            ):
    "Make a page of each processed notebook."
    exporter = TemplateExporter(raw_template=PAGE)
    for path in sorted(proc.rglob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        about, folder = front(notebook), path.parent.relative_to(proc)
        up = dict(front=about, up="../" * len(folder.parts))
        (site / folder).mkdir(parents=True, exist_ok=True)
        text, _ = exporter.from_notebook_node(plain(notebook), up)
        (site / folder / about["output-file"]).write_text(NOTEBOOK.sub(r'href="\1\2.html', text), encoding="utf-8")
    (site / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")


class Quiet(http.server.SimpleHTTPRequestHandler):
    "A server that keeps its log to itself."
    def log_message(self, *_): pass


@contextlib.contextmanager
def served(folder: Path  # with an index.html
           ):
    "The address of a folder, served on this machine."
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()

"""The site without Quarto: processed notebooks as plain pages, made by nbconvert, and a server for them.

The pages follow Quarto where it once went wrong: colours out of the scss, Quarto's own where none is set; a picture
that stands alone becomes a figure whose caption takes its alt text; tables of fixed shares; the scripts of _quarto.yml.
"""
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
from nbconvert.filters import Highlight2HTML
from plotly.offline import get_plotlyjs

NBS = Path(__file__).resolve().parent.parent / "nbs"
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
<style>{{ resources.style }}</style>
<script src="{{ resources.up }}plotly.min.js"></script>
</head>
<body>
<main>
<h1>{{ resources.front.title }}</h1>
<p>{{ resources.front.description }}</p>
{% for cell in nb.cells %}
{% if cell.cell_type == "markdown" %}{{ cell.source | markdown2html }}
{% elif cell.source and "#| echo: false" not in cell.source %}<div class="code">{{ cell.source | highlight_code }}</div>
{% endif %}
{% for output in cell.outputs %}
<div class="cell-output">
{% if "text/html" in output.data %}{{ output.data["text/html"] }}
{% elif "text/markdown" in output.data %}{{ output.data["text/markdown"] | markdown2html }}
{% else %}<pre>{{ (output.text or output.data["text/plain"]) | ansi2html }}</pre>{% endif %}
</div>
{% endfor %}
{% endfor %}
</main>
{{ resources.after }}
</body>
</html>
"""
STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 0 auto; padding: 1rem; }
img { max-width: 100%; }
td, th { text-align: left; padding: .1rem .6rem; }
:is(table, .table) a { word-break: break-word; }
code, pre { white-space: pre; }
.cell-output { overflow-x: auto; }
.code { padding: .4em; }
"""
THEME = """
body { background: $body-bg; color: $body-color; }
a { color: $link-color; }
.code, pre, .highlight { background: $code-block-bg; color: $code-block-color; }
.cell-output pre { background: $body-bg; color: $pre-color; }
p code, li code, td code { background: $code-bg; }
p code, li code, td code { color: $code-color; }
a code { color: inherit !important; }
"""
# What Quarto 1.11 takes where the scss sets nothing.
LIGHT = {"body-bg": "#ffffff", "body-color": "#212529", "link-color": "#0d6efd", "code-bg": "#f1f3f5",
         "code-color": "#7d12ba", "pre-color": "#000000", "code-block-bg": "#f1f3f5", "code-block-color": "#545454"}
DARK = LIGHT | {"code-block-bg": "#9fa2a6", "code-block-color": "#f8f8f2"}
# Of its highlight style a11y, by the classes that Pygments gives: keywords, strings, numbers, operators, comments.
KINDS = ".k, .kn, .kc, .ow", ".s, .s1, .s2, .sa, .si, .sd", ".mi, .mf, .mb", ".o", ".c, .c1"
INK = ("#d91e18", "#008000", "#7928a1", "#00769e", "#696969"), ("#ffa07a", "#abe338", "#dcc6e0", "#00e0e0", "#d4d0ab")


def colours(*names: str  # of files in nbs/, a later one wins
            ) -> dict[str, str]:
    "The colours that scss files set."
    texts = [(NBS / name).read_text(encoding="utf-8") for name in names]
    return {name: value for text in texts for name, value in re.findall(r"^\$([\w-]+): (#\w{6});", text, re.M)}


def themed(found: dict[str, str],  # colours
           ink: tuple[str, ...]  # of code
           ) -> str:
    "The rules of a theme."
    rules = re.sub(r"\$([\w-]+)", lambda name: found[name[1]], THEME)
    return rules + "".join(f":is({kind}) {{ color: {colour}; }}\n" for kind, colour in zip(KINDS, ink))


def quarto() -> dict:
    "The settings of pages in _quarto.yml."
    return yaml.safe_load((NBS.parent / "_quarto.yml").read_text(encoding="utf-8"))["format"]["html"]


def style() -> str:
    "The rules of a page, in the light and in the dark: those of Quarto that matter here, then our own."
    files = {kind: [name for name in quarto()["theme"][kind] if name != "default"] for kind in ("light", "dark")}
    light, dark = (themed(own | colours(*files[kind]), ink)
                   for own, kind, ink in zip((LIGHT, DARK), ("light", "dark"), INK))
    rules = [(NBS / name).read_text(encoding="utf-8").partition("scss:rules --*/")[2]
             for name in dict.fromkeys(files["light"] + files["dark"])]
    ours = re.sub(r"(?m)^\s*//.*", "", "".join(rules))
    return f"{STYLE}{light}@media (prefers-color-scheme: dark) {{ {dark} }}\n{ours}"


def captioned(text: str  # of a cell, in Markdown
              ) -> str:
    "A picture that stands alone, in a link or not, becomes a figure whose caption takes its alt text."
    linked = re.sub(r"(?m)^\[!\[(.*?)\]\((.*?)\)\]\((.*?)\)$",
                    r'<figure><a href="\3"><img src="\2"></a><figcaption>\1</figcaption></figure>', text)
    return re.sub(r"(?m)^!\[(.*?)\]\((.*?)\)$", r'<figure><img src="\2"><figcaption>\1</figcaption></figure>', linked)


def front(notebook: dict) -> dict:
    "What nbdev puts before a processed notebook: title, description, output-file."
    return yaml.safe_load("".join(notebook["cells"][0]["source"]).strip().strip("-"))


def plain(notebook: dict) -> nbformat.NotebookNode:
    "A processed notebook with nothing in it that nbformat does not know."
    cells = [{key: cell[key] for key in KEPT[cell["cell_type"]]} | dict(metadata={})
             for cell in notebook["cells"] if cell["cell_type"] in KEPT]
    for cell in cells:
        if cell["cell_type"] == "markdown": cell["source"] = captioned("".join(cell["source"]))
    return nbformat.reads(json.dumps(notebook | dict(cells=cells, metadata={})), as_version=4)


def written(proc: Path,  # processed notebooks
            site: Path  # where the pages go
            ):
    "Make a page of each processed notebook."
    exporter = TemplateExporter(raw_template=PAGE)
    exporter.register_filter("highlight_code", Highlight2HTML())
    after = "".join(part["text"] for part in quarto().get("include-after-body", ()))
    shared = dict(style=style(), after=after)
    for path in sorted(proc.rglob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        about, folder = front(notebook), path.parent.relative_to(proc)
        up = shared | dict(front=about, up="../" * len(folder.parts))
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

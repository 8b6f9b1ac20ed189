"""Writes README.md from nbs/index.ipynb, with nbconvert, because Quarto may be missing: `python tools/readme.py`."""
import html
import posixpath
import re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(\]\(|src=\")(?![a-z]+:|[#/])([^)\"\s]+)")
PICTURE = "images/weights.svg"  # of the figure on the home page, drawn by tools/figure.py
STILL = "(Nothing moves on this page. In the notebook and on the site the figures do.)"
NOTE = "<!-- Made from nbs/index.ipynb by tools/readme.py: edit the notebook, not this file. -->\n\n"


def from_root(link: re.Match  # a link of the notebook, relative to nbs/
              ) -> str:
    "The same link, relative to the root, where README.md stands."
    return link[1] + posixpath.normpath(posixpath.join("nbs", link[2]))


def still(output: nbformat.NotebookNode  # of a cell
          ) -> nbformat.NotebookNode:
    "A figure's picture and sentence, or what says it in words, because GitHub runs no scripts; else the output itself."
    page = output.get("data", {}).get("text/html", "")
    found = re.match(r"<figure[^>]*><figcaption>(.*?)</figcaption><div role=\"img\" aria-label=\"(.*?)\">", page, re.S)
    if "<script" in page and not found: return nbformat.v4.new_output("display_data", {
        "text/markdown": f"*{output['data']['text/plain']}*"})
    if not found: return output
    sentence, about = map(html.unescape, found.groups())
    return nbformat.v4.new_output("display_data", {"text/markdown": f"![{about}]({PICTURE})\n\n*{sentence}.* {STILL}"})


def readme() -> str:
    "The text that README.md must have."
    notebook = nbformat.read(ROOT / "nbs/index.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type != "code": continue
        cell.outputs = [still(output) for output in cell.outputs]
        if cell.source.startswith("#| echo: false"): cell.source = ""
    notebook.metadata["language_info"] = {"name": "python"}  # nbdev's clean drops it; it colours the code
    body, _ = MarkdownExporter().from_notebook_node(notebook)
    body = re.sub(r"```python\s*```", "", LINK.sub(from_root, body))  # what is not echoed
    return NOTE + re.sub(r"\n{3,}", "\n\n", body).strip() + "\n"


if __name__ == "__main__":
    (ROOT / "README.md").write_text(readme(), encoding="utf-8")

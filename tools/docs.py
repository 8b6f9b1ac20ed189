"""Readies this checkout for the docs' build, or tidies what was built.

usage: python tools/docs.py            before nbdev-docs: plotly.min.js, llms.txt; with GITHUB_REPOSITORY=owner/name in
                                       the environment also the addresses of the site, and a Colab badge in each lesson
       python tools/docs.py --built    after it: pages load nothing from other servers

It writes into tracked files (pyproject.toml, the lessons): run it on a checkout that is thrown away.
"""
import ast
import json
import os
import re
import sys
from pathlib import Path

from nbdev.config import get_config, nbpath2html
from plotly.offline import get_plotlyjs

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
COLAB = "https://colab.research.google.com/github"
# What Quarto adds to a page with html outputs, for libraries that need require.js; ours needs none.
REQUIRE = re.compile(r"<script[^>]*(?:/require(?:\.min)?\.js|/jquery(?:\.min)?\.js)[^>]*></script>\s*"
                     r"|<script[^>]*>define\('jquery'[^<]*</script>\s*")


def notebooks() -> list[Path]:
    "All pages, lessons first."
    found = [path for path in NBS.rglob("*.ipynb") if not any(part[0] in "._" for part in path.relative_to(NBS).parts)]
    return sorted(found, key=lambda path: (len(path.parts), path.name))


def load(path: Path) -> dict:
    "A notebook as plain data."
    return json.loads(path.read_text(encoding="utf-8"))


def sources(notebook: dict, kind: str) -> list[str]:
    "The cells of a kind, as text."
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def module(notebook: dict) -> str:
    "The module that a notebook exports, empty where there is none."
    found = re.search(r"^#\|\s*default_exp:? (\S+)", "\n".join(sources(notebook, "code")), re.M)
    return found[1] if found else ""


def names(name: str  # of a module
          ) -> list[str]:
    "The functions and classes of a module."
    tree = ast.parse((ROOT / "infoprompt" / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8"))
    found = [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    return list(dict.fromkeys(name for name in found if name[0] != "_"))


def line(path: Path  # of a notebook
         ) -> str:
    "What llms.txt says of a page: its address in Markdown, what it teaches, and what its module holds."
    notebook = load(path)
    title, about = re.match(r"# (.+?)\n+> (.+)", sources(notebook, "markdown")[0]).groups()
    name = module(notebook)
    held = f" Module `infoprompt.{name}`: {', '.join(names(name))}." if name else ""
    return f"- [{title}]({nbpath2html(path.relative_to(NBS)).as_posix()}.md): {about.rstrip('.')}.{held}"


def llms() -> str:
    "The site for those who read it as text."
    home, *pages = sorted(notebooks(), key=lambda path: path.name != "index.ipynb")
    title, about = re.match(r"# (.+?)\n+> (.+)", sources(load(home), "markdown")[0]).groups()
    lessons, reference = ([p for p in pages if (p.parent == NBS) == top] for top in (True, False))
    parts = [f"# {title}", f"> {about}", "## Lessons", "\n".join(map(line, lessons)),
             "## Reference", "\n".join(map(line, reference))]
    return "\n\n".join(parts) + "\n"


def addresses(repository: str  # owner/name on GitHub
              ) -> str:
    "What pyproject.toml tells nbdev of where source and site are."
    owner, name = repository.split("/")
    folder = "" if name.lower() == f"{owner.lower()}.github.io" else f"{name}/"
    return (f'[project.urls]\nRepository = "https://github.com/{repository}"\n'
            f'Documentation = "https://{owner.lower()}.github.io/{folder}"\n\n')


def badge(path: Path,  # of a lesson
          repository: str  # owner/name on GitHub
          ) -> dict:
    "A cell that opens a lesson in Colab."
    link = f"{COLAB}/{repository}/blob/main/nbs/{path.name}"
    return dict(cell_type="markdown", id="colab", metadata={}, source=f"[![Run in Colab](images/colab.svg)]({link})")


def before(repository: str  # owner/name on GitHub; empty where it is not known
           ):
    "Write what the build needs and git does not hold."
    (NBS / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    (NBS / "llms.txt").write_text(llms(), encoding="utf-8")
    if not repository: return
    toml = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (ROOT / "pyproject.toml").write_text(toml.replace("[project.scripts]", addresses(repository) + "[project.scripts]"),
                                         encoding="utf-8")
    for path in NBS.glob("[0-9]*.ipynb"):
        notebook = load(path)
        notebook["cells"].insert(1, badge(path, repository))
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def built(site: Path,  # what nbdev-docs wrote
          home: str  # the address that pages have for one another
          ):
    "Pages load nothing from other servers, and lead to each other wherever they stand."
    for path in site.rglob("*.html"):
        up = "../" * len(path.relative_to(site).parent.parts) or "./"
        text = REQUIRE.sub("", path.read_text(encoding="utf-8"))
        path.write_text(re.sub(rf'(<a[^>]* href="){re.escape(home)}/', rf"\1{up}", text), encoding="utf-8")


if __name__ == "__main__":
    config = get_config(ROOT)
    if "--built" in sys.argv: built(ROOT / "_docs", f"{config.doc_host}{config.doc_baseurl}".rstrip("/"))
    else: before(os.environ.get("GITHUB_REPOSITORY", ""))

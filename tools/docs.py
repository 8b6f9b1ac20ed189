"""Prepares this checkout for building the docs, or tidies the result.

usage: python tools/docs.py            before nbdev-docs: plotly.min.js, llms.txt; lessons that show code once; where
                                       settings.ini names the repository, links to it and a Colab badge in each lesson
       python tools/docs.py --built    after it: pages load nothing from other servers, lead to each other wherever
                                       they stand, and their Markdown is text alone

It writes into tracked files (pyproject.toml, _quarto.yml, the lessons): run it on a checkout that is thrown away.
"""
import ast
import html
import json
import re
import sys
from functools import lru_cache
from pathlib import Path

from nbdev.config import get_config, nbpath2html
from nbdev.doclinks import patch_name
from plotly.offline import get_plotlyjs

from address import in_colab, repository, site

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
# What Quarto adds to a page with html outputs, for libraries that need require.js; ours needs none.
REQUIRE = re.compile(r"<script[^>]*(?:/require(?:\.min)?\.js|/jquery(?:\.min)?\.js)[^>]*></script>\s*"
                     r"|<script[^>]*>define\('jquery'[^<]*</script>\s*")
EXPORT = re.compile(r"(?:\s*#\|\s*(?:exports?|exporti)\s*\n)+")
LINK = re.compile(r"(\[[^\[\]]*`[^\[\]]*)(\]\()")  # a link whose text holds code
TICKS = re.compile(r"`([^`\s]+)`")
# nbdev's link to the source of a function, where the repository's address is not known.
NOWHERE = re.compile(r'(?:<p>)?<a\s[^>]*?href="(?:\.{0,2}/)*blob/[^>]*>source</a>(?:</p>)?\s*')
SCRIPTS = re.compile(r"<(script|style)\b.*?</\1>\s*", re.S)
FIGURE = re.compile(r"<figure\b[^>]*>\s*<figcaption>(.*?)</figcaption>(.*?)(?:<noscript>.*?)?</figure>", re.S)
TABLE = re.compile(r"(?:^<div>\s*)?<table\b.*?</table>(?:\s*^</div>$)?", re.S | re.M)
FENCED = re.compile(r"(^```.*?^```$)", re.S | re.M)
NOTHING = re.compile(r'<!-- WARNING.*?-->\s*|<div id="[^"]*">\s*</div>\s*')


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


def addresses(address: str  # of the repository
              ) -> str:
    "What pyproject.toml tells nbdev of where source and site are."
    return f'[project.urls]\nRepository = "{address}"\nDocumentation = "{site(address)}"\n\n'


def linked(address: str  # of the repository
           ):
    "The source's address in the site's bar, and on each page a link to its notebook."
    path = ROOT / "_quarto.yml"
    text = path.read_text(encoding="utf-8")
    told = (f"    search: true\n    right: [{{text: source, href: '{address}'}}]\n"
            "  repo-subdir: nbs\n  repo-actions: [source]\n")
    path.write_text(text.replace("    search: true\n", told, 1), encoding="utf-8")


def badge(path: Path,  # of a lesson
          address: str  # of the repository
          ) -> dict:
    "A cell that opens a lesson in Colab; in HTML, for Quarto takes a picture's alt text in Markdown for a caption."
    source = f'<p><a href="{in_colab(address, path.name)}"><img src="images/colab.svg" alt="Run in Colab"></a></p>'
    return dict(cell_type="markdown", id="colab", metadata={}, source=source)


def defined(code: str  # of a cell
            ) -> list[str]:
    "The functions and classes that a cell defines, as nbdev names them: `Class.method` for one that is patched in."
    found = [node for node in ast.parse(code).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    names = [patch_name(node) for node in found]
    return [name for entry in names for name in ([entry] if isinstance(entry, str) else entry)]


def unseen(code: str  # of a cell
           ) -> bool:
    "Has it nothing to read: only imports, and the `_all_` of nbdev?"
    return all(isinstance(node, (ast.Import, ast.ImportFrom)) or ast.unparse(node).startswith("_all_ =")
               for node in ast.parse(code).body)


def once(cell: dict  # of a lesson
         ) -> list[dict]:
    "An exported cell as plain code under the anchors that nbdev links to; imports stay hidden, other cells alone."
    found = EXPORT.match(text := "".join(cell["source"]))
    if cell["cell_type"] != "code" or not found: return [cell]
    code = text[found.end():]
    if unseen(code): return [cell | dict(source=f"#| hide\n{code}")]
    anchors = "".join(f'<div id="{name.lower()}"></div>\n' for name in defined(code))
    above = dict(cell_type="markdown", id=f"{cell['id']}-at", metadata={}, source=anchors)
    return [above, cell | dict(source=code)] if anchors else [cell | dict(source=code)]


def unnested(text: str  # Markdown
             ) -> str:
    "Code inside a link with spaces in its ticks, which Markdown drops: nbdev would make a link of it inside the link."
    return LINK.sub(lambda link: TICKS.sub(r"` \1 `", link[1]) + link[2], text)


def lesson(cells: list[dict]  # of a notebook
           ) -> list[dict]:
    "The cells of a text, where a function is code to read and not an entry of a reference."
    return [part for cell in cells for part in once(cell)]


def before(address: str  # of the repository; empty where it is not known
           ):
    "Write what the build needs but git does not hold."
    (NBS / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    (NBS / "llms.txt").write_text(llms(), encoding="utf-8")
    if address:
        toml = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        (ROOT / "pyproject.toml").write_text(
            toml.replace(', "urls"]', "]").replace("[project.scripts]", addresses(address) + "[project.scripts]"),
            encoding="utf-8")
        linked(address)
    for path in notebooks():
        notebook, is_lesson = load(path), path.parent == NBS and path.name[0].isdigit()
        if is_lesson: notebook["cells"] = lesson(notebook["cells"])
        if is_lesson and address: notebook["cells"].insert(1, badge(path, address))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown": cell["source"] = unnested("".join(cell["source"]))
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@lru_cache(None)
def places(path: Path  # of a page
           ) -> set[str]:
    "What a link can lead to on a page."
    return set(re.findall(r'\bid="([^"]+)"', path.read_text(encoding="utf-8")))


def alive(text: str,  # of a page
          path: Path  # where it stands
          ) -> str:
    "The page without the places in its links that other pages lack: nbdev links private names too."
    def shorter(link: re.Match) -> str:
        target = (path.parent / link[2]).resolve()
        return link[1] + link[2] + (f"#{link[3]}" if not target.exists() or link[3] in places(target) else "") + '"'
    return re.sub(r'(<a\b[^>]*? href=")((?![a-z]+:)[^"#]+\.html)#([^"]+)"', shorter, text)


def page(text: str,  # HTML
         up: str,  # from the page to the site's root
         home: str  # the address that pages have for one another
         ) -> str:
    "A page that loads nothing from elsewhere, names no missing source, and whose tables can scroll."
    text = re.sub(rf'(<a\b[^>]* href="){re.escape(home)}/', rf"\1{up}", NOWHERE.sub("", REQUIRE.sub("", text)))
    return re.sub(r"<table\b.*?</table>", r'<div class="wide">\g<0></div>', text, flags=re.S)


def text_of(part: str  # HTML
            ) -> str:
    "Its words, with commas between paragraphs."
    part = re.sub(r"</(?:p|strong|output)>", ", ", part)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", part)).split()).replace(" ,", ",").rstrip(", ")


def words(figure: re.Match  # in HTML
          ) -> str:
    "A figure's sentence and its description, for those who read."
    sentence, rest = html.unescape(figure[1]).strip(), figure[2]
    label = re.search(r'role="img"[^>]* aria-label="(.*?)"', rest, re.S)
    about = html.unescape(label[1]).strip() if label else text_of(rest)
    return f"*Figure: {sentence.rstrip('.')}.*" + (f" {about}" if about != sentence else "") + "\n"


def lines(part: str  # HTML, rows of a table
          ) -> list[list[str]]:
    "The words of each cell; one that spans several columns or rows stands in each of them."
    found, held = [], {}
    for row in re.findall(r"<tr\b.*?</tr>", part, re.S):
        cells, line = iter(re.findall(r"<t[hd]\b([^>]*)>(.*?)</t[hd]>", row, re.S)), []
        while True:
            text, rows = held.get(len(line), ("", 0))
            if rows: held[len(line)] = text, rows - 1
            elif cell := next(cells, None):
                span = lambda name: int((re.search(rf'{name}="(\d+)"', cell[0]) or [0, 1])[1])
                text = text_of(cell[1]).replace("|", r"\|")
                held |= {len(line) + i: (text, span("rowspan") - 1) for i in range(span("colspan"))}
                line += [text] * (span("colspan") - 1)
            else: break
            line.append(text)
        found.append(line)
    return found


def table(found: re.Match  # in HTML
          ) -> str:
    "A table in Markdown: the rows of its head in one."
    head, body = map(lines, found[0].split("<tbody", 1)) if "<tbody" in found[0] else ([], lines(found[0]))
    names = [" ".join(dict.fromkeys(filter(None, column))) for column in zip(*head)] or [""] * len(body[0])
    return "\n".join("| " + " | ".join(row) + " |" for row in (names, ["---"] * len(names), *body)) + "\n"


def plain(text: str,  # Markdown as Quarto writes it
          up: str,  # from the page to the site's root
          home: str  # the address that pages have for one another
          ) -> str:
    "The Markdown of a page as text: no scripts and styles, figures in words, links to other pages' Markdown."
    for part in SCRIPTS, NOWHERE, REQUIRE, NOTHING: text = part.sub("", text)
    read = lambda part: TABLE.sub(table, FIGURE.sub(words, part))
    text = "".join(part if i % 2 else read(part) for i, part in enumerate(FENCED.split(text)))
    text = re.sub(rf"\]\({re.escape(home)}/(?=[\w./-]+\.html)", f"]({up}", text)
    text = re.sub(r'(\]\(|href=")((?:[\w.-]+/)*)(?:\d+_)?(\w+)\.ipynb', r"\1\2\3.html", text)
    text = re.sub(r'((?:\]\(|href=")(?![a-z]+:)[\w./-]+\.html)(?!\.md)(?:#[^)"]*)?(?=[)"])', r"\1.md", text)
    return re.sub(r"\n{3,}", "\n\n", text)


def built(folder: Path,  # what nbdev-docs wrote
          home: str  # the address that pages have for one another
          ):
    "Tidy all pages, and their Markdown."
    places.cache_clear()
    pages, texts = (sorted(folder.rglob(f"*.{kind}")) for kind in ("html", "html.md"))
    for paths, tidy in (pages, page), (texts, plain):
        for path in paths:
            up = "../" * len(path.relative_to(folder).parent.parts) or "./"
            path.write_text(tidy(path.read_text(encoding="utf-8"), up, home), encoding="utf-8")
    for path in pages: path.write_text(alive(path.read_text(encoding="utf-8"), path), encoding="utf-8")


if __name__ == "__main__":
    config = get_config(ROOT)
    if "--built" in sys.argv: built(ROOT / "_docs", f"{config.doc_host}{config.doc_baseurl}".rstrip("/"))
    else: before(repository(ROOT))

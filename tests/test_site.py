"""The pages as a reader without a kernel gets them: drawn, moved by mouse and by keyboard, read by axe, on a phone."""
import base64
import contextlib
import json
import math
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from nbdev.config import get_config, nbpath2html

import docs
import pages
from conftest import REPOSITORY, ROOT, addressed, copied
from infoprompt.show.explore import frame
from infoprompt.show.figures import CELLS, told
from infoprompt.show.weights import fig_weights

NOTEBOOKS = [path for path in sorted((ROOT / "nbs").rglob("*.ipynb"))
             if not any(part[0] in "._" for part in path.relative_to(ROOT).parts)]
LESSONS = [path for path in NOTEBOOKS if path.name[0].isdigit()]
NAMES = {nbpath2html(path.relative_to(ROOT / "nbs")).as_posix(): path for path in NOTEBOOKS}
FRAGMENT = re.compile(r'<figure id=\\?"(fig-[0-9a-f]+)')
WITH_FIGURES = [name for name, path in NAMES.items() if FRAGMENT.search(path.read_text(encoding="utf-8"))]
SHOTS = ROOT / "build/screenshots"
FIGURE = "figure.infoprompt:has(.plot)"  # the page that trains and asks has tests of its own: test_playground.py
HOME = "https://somebody.github.io/somewhere"  # of a repository that is made up
MEGABYTE = 2**20

DRAWN = """count => document.querySelectorAll("figure.infoprompt .plot .main-svg:first-child").length >= count"""
STATE = """figure => {
  const plot = figure.querySelector(".plot"), text = name => figure.querySelector(name)?.textContent ?? "";
  return {says: text("figcaption"), settings: text(".settings code"), about: plot.getAttribute("aria-label"),
          data: JSON.parse(JSON.stringify(plot.data.filter(t => t.line?.color !== "#80848c") // no ghosts
            .map(({x, y, z, text}) => ({x, y, z, text}))))};
}"""
OVERFLOW = """() => [...document.querySelectorAll("figure.infoprompt, figure.infoprompt :not(svg *)")]
  .filter(node => node.checkVisibility() && node.getBoundingClientRect().right > innerWidth + 1)
  .map(node => node.outerHTML.slice(0, 200))"""
PAGE_OVERFLOW = """() => document.documentElement.scrollWidth <= innerWidth ? [] :
  [...document.querySelectorAll("main *")]
  .filter(node => node.getBoundingClientRect().right > innerWidth + 1 && !node.closest(".wide, .cell-output, svg"))
  .map(node => node.outerHTML.slice(0, 200))"""
# Words of a table or a heading that stand on two lines.
CUT = """() => [...document.querySelectorAll("main :is(th, td, h1, h2)")].flatMap(node => {
  const texts = document.createTreeWalker(node, NodeFilter.SHOW_TEXT), range = document.createRange(), found = [];
  while (texts.nextNode()) for (const word of texts.currentNode.data.matchAll(/[A-Za-z]{3,}/g)) {
    range.setStart(texts.currentNode, word.index);
    range.setEnd(texts.currentNode, word.index + word[0].length);
    if (new Set([...range.getClientRects()].map(box => Math.round(box.top))).size > 1) found.push(word[0]);
  }
  return found;
})"""
# The text of axes and legends, whose contrast axe does not measure in an svg.
FAINT = """() => {
  const probe = document.createElement("p"), rgb = colour => colour.match(/[\\d.]+/g).map(Number);
  probe.style.color = "canvas"; document.body.append(probe);
  const body = getComputedStyle(document.body).backgroundColor, canvas = getComputedStyle(probe).color;
  probe.remove();
  const light = colour => {
    const [r, g, b] = rgb(colour).map(c => (c /= 255) <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = light(rgb(body)[3] === 0 ? canvas : body);
  const ratio = at => (Math.max(at, ground) + .05) / (Math.min(at, ground) + .05);
  return [...document.querySelectorAll(".main-svg :is(.xtick, .ytick, .g-xtitle, .g-ytitle, .legend) text")]
    .filter(node => ratio(light(getComputedStyle(node).fill)) < 4.5)
    .map(node => `${node.textContent} ${getComputedStyle(node).fill}`);
}"""


def built_by_quarto(folder: Path  # a copy of the project
                    ) -> Path:
    "Build the real site, as .github/workflows/docs.yml does."
    program, tool = Path(sysconfig.get_path("scripts")) / "nbdev-docs", [sys.executable, "tools/docs.py"]
    for command in tool, [program, "--n-workers=1"], [*tool, "--built"]:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "_docs"


@pytest.fixture(scope="session")
def plain_site(processed, tmp_path_factory) -> Path:
    "The site as plain pages."
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(processed / "images", folder / "images")
    pages.written(processed, folder)
    docs.built(folder, HOME)
    return folder


@pytest.fixture(scope="session")
def real_site(tmp_path_factory) -> Path:
    "The site as it is published, where Quarto is."
    if not shutil.which("quarto"):
        pytest.skip("no quarto on the PATH: the real site is not built here, its pages are tried without it")
    return built_by_quarto(addressed(copied(tmp_path_factory.mktemp("real"))))


@pytest.fixture(scope="module", params=["plain", "real"])
def built(request) -> Path:
    "The folder of a site."
    return request.getfixturevalue(f"{request.param}_site")


@pytest.fixture(scope="module")
def site(built):
    "The address of the site."
    with pages.served(built) as address:
        yield address


@contextlib.contextmanager
def opened(browser, site: str, name: str):
    "A page of the site with its figures drawn; it must say nothing on the console, and ask for nothing elsewhere."
    here = lambda url: url.startswith((site, "data:", "blob:"))
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    context.route(lambda url: not here(url), lambda route: route.abort())
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{site}/{name}")
    page.wait_for_function(DRAWN, arg=len(set(FRAGMENT.findall(page.content()))))
    yield page
    assert not said
    assert all(map(here, asked)), "a page asks for what is elsewhere"
    context.close()


def faults(page,
           part=None  # a selector; else all of the page
           ) -> list[str]:
    "What axe finds that keeps people out, and text of figures that is hard to see."
    found = Axe().run(page, part).response["violations"]
    told = [f"{fault['id']}: {node['html']}" for fault in found if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"]]
    return told + page.evaluate(FAINT)


def shot(page, kind: str):
    "Keep pictures of a page's figures."
    SHOTS.mkdir(parents=True, exist_ok=True)
    name = page.name.replace("/", "-").removesuffix(".html")
    for i, figure in enumerate(page.locator(FIGURE).all()):
        figure.screenshot(path=SHOTS / f"{name}-{i + 1}-{kind}.png")


@pytest.mark.parametrize("name", NAMES)
def test_page_keeps_nobody_out(browser, site, name):
    with opened(browser, site, name) as page:
        assert not faults(page)
        assert page.get_attribute("html", "lang") == "en" and page.title() and page.locator("main h1").count() == 1
        assert page.locator("img:not([alt]), img[alt='']").count() == 0


@pytest.mark.parametrize("name", NAMES)
def test_page_in_the_dark_on_a_phone(browser, site, name):
    with opened(browser, site, name) as page:
        page.emulate_media(color_scheme="dark")
        page.set_viewport_size(dict(width=390, height=844))
        page.wait_for_function("[...document.querySelectorAll('.plot .main-svg')].every(s => s.clientWidth <= 390)")
        assert page.evaluate(PAGE_OVERFLOW) == []
        assert page.evaluate(CUT) == []
        assert not faults(page)


def state(figure) -> dict:
    "What a figure says, its settings, its description and the numbers that it draws."
    return figure.evaluate(STATE)


def settle(figure, before: dict) -> dict:
    "The state after a control was touched: its settings must differ from those before."
    figure.page.wait_for_function("([f, before]) => f.querySelector('.settings code').textContent !== before",
                                  arg=[figure.element_handle(), before["settings"]])
    return state(figure)


def differs(one: dict, other: dict) -> bool:
    "Is something else said or drawn?"
    return one["says"] != other["says"] or one["data"] != other["data"][:len(one["data"])]


def size(node) -> float:
    "The largest number in nested lists."
    if isinstance(node, list): return max(map(size, node), default=0)
    return abs(node) if isinstance(node, (int, float)) else 0


def close(found,  # nested lists of numbers and texts
          told,  # the same
          most: float  # the largest number that this part of the figure shows at any setting
          ) -> bool:
    "Are these the same, numbers within what two bytes hold?"
    if isinstance(told, list): return len(found) == len(told) and all(close(*p, most) for p in zip(found, told))
    if not isinstance(told, (int, float)): return found == told
    return math.isclose(found, told, rel_tol=1e-3, abs_tol=2e-4 * most)


def computed(figure) -> dict:
    "What the copied lines of Python define; empty where the function is the page's own."
    figure.get_by_role("button", name="copy these settings").click()
    figure.get_by_role("button", name="copied").wait_for()
    text, names = figure.page.evaluate("navigator.clipboard.readText()"), {}
    if text.count("import") > 1: exec(text, names)
    return names


def assert_as_computed(found: list[dict],  # states of a figure
                       names: dict,  # where their settings, a call, can be evaluated
                       every: list[dict]  # states of the figure, at all stops of all controls
                       ):
    "A page shows what Python computes for its settings, at both ends of a control."
    for state in found[0], found[-1]:
        want = frame(eval(state["settings"], names))
        assert state["says"] == told(want["sentence"], want["numbers"])
        assert state["about"] == told(want["about"], want["numbers"])
        for i, trace in enumerate(want["data"]):
            for part, shown in state["data"][i].items():
                most = max(size(other["data"][i].get(part)) for other in every if i < len(other["data"]))
                assert close(shown, values(trace[part]), most), f"{part} of trace {i} at {state['settings']}"


def values(array):
    "A trace's array as a list: plotly may pack numbers in base64."
    if not isinstance(array, dict): return array
    return np.frombuffer(base64.b64decode(array["bdata"]), array["dtype"]).tolist()


def walked(figure, control) -> list[dict]:
    "States at all stops of a slider or a list, reached with the keyboard."
    places = control.evaluate("node => node.options?.length ?? Number(node.max) + 1")
    control.press("Home")
    found = [state(figure)]
    for _ in range(1, places):
        control.press("ArrowDown" if control.evaluate("node => node.tagName") == "SELECT" else "ArrowRight")
        found.append(settle(figure, found[-1]))
    return found


@pytest.fixture(scope="module", params=WITH_FIGURES)
def page(request, browser, site):
    "A page with figures; each test leaves it as it was."
    with opened(browser, site, request.param) as found:
        found.name = request.param
        yield found


@pytest.fixture
def moving(page):
    "The figures of a page that have controls."
    return [figure for figure in page.locator(FIGURE).all() if figure.locator(".controls").count()]


def test_keyboard_moves_every_control(moving):
    for figure in moving:
        names, walks = computed(figure), []
        for control in figure.locator("input[type=range], select").all():
            start = state(figure)
            found = walked(figure, control)
            walks.append(found)
            assert len({s["settings"] for s in found}) == len(found), "each stop has its own settings"
            assert any(differs(start, s) for s in found), f"{start['settings']}: a control that changes nothing"
            figure.get_by_role("button", name="reset").press("Enter")
            assert state(figure) == start
        for found in walks * bool(names): assert_as_computed(found, names, sum(walks, []))


def test_mouse_moves_every_control(moving):
    for figure in moving:
        start = state(figure)
        for control in figure.locator("input[type=range]").all():
            box = control.bounding_box()
            at_end = control.evaluate("node => node.value === node.max")
            control.click(position=dict(x=2 if at_end else box["width"] - 2, y=box["height"] / 2))
            settle(figure, start)
            figure.get_by_role("button", name="reset").click()
            assert state(figure) == start
        for control in figure.locator("select").all():
            last = control.evaluate("node => node.selectedIndex === node.length - 1 ? 0 : node.length - 1")
            control.select_option(index=last)
            settle(figure, start)
            figure.get_by_role("button", name="reset").click()
            assert state(figure) == start
        assert figure.locator("input[type=text]:enabled").count() == 0, "nobody answers a typed text here"


def test_every_preset_by_mouse_and_keyboard(moving):
    for figure in moving:
        start = state(figure)
        for button in figure.locator(".controls button").all():
            if button.inner_text() == "reset": continue
            guessed = lambda: figure.locator(".guess button").count() and figure.locator(".guess button").first.click()
            button.click()
            guessed()
            clicked = settle(figure, start)
            assert differs(start, clicked), f"{button.inner_text()} changes nothing"
            figure.get_by_role("button", name="reset").click()
            button.press("Enter")
            guessed()
            assert settle(figure, start) == clicked
            figure.get_by_role("button", name="reset").click()
            assert state(figure) == start and "#" not in figure.page.url


def test_figures_in_the_dark_and_on_a_phone(page):
    wide = page.viewport_size
    page.emulate_media(color_scheme="dark")
    assert not faults(page, FIGURE)
    shot(page, "dark")
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(dict(width=390, height=844))
    page.wait_for_function("[...document.querySelectorAll('.plot .main-svg')].every(s => s.clientWidth <= 390)")
    assert page.evaluate(OVERFLOW) == []
    shot(page, "phone")
    page.set_viewport_size(wide)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_first_figure_of_a_lesson_stands_within_two_screens(browser, site, path):
    with opened(browser, site, nbpath2html(path.relative_to(ROOT / "nbs")).as_posix()) as page:
        page.set_viewport_size(dict(width=1280, height=900))
        assert page.locator("figure.infoprompt").first.bounding_box()["y"] <= 1800


def test_figures_are_told_in_words(page):
    about = [plot.get_attribute("aria-label") for plot in page.locator(f"{FIGURE} [role=img]").all()]
    assert about and all(len(text) > 20 for text in about)


@pytest.mark.parametrize("name", WITH_FIGURES)
def test_figures_of_a_page_are_light(name):
    cells = json.loads(NAMES[name].read_text(encoding="utf-8"))["cells"]
    found = [html for cell in cells for output in cell.get("outputs", ())
             if FRAGMENT.search(html := "".join(output.get("data", {}).get("text/html", "")))]
    assert sum(len(html.encode()) for html in found) <= MEGABYTE


@pytest.mark.parametrize("name", NAMES)
def test_links_between_pages_lead_somewhere(built, name):
    text = (built / name).read_text(encoding="utf-8").replace(f"{HOME}/", "../" * name.count("/") or "./")
    links = set(re.findall(r'<a[^>]* href="(?![a-z]+:|#)([^"#?]+)', text)) - {"./", "../"}
    assert not [link for link in links if not ((built / name).parent / link).exists()]


def minutes(path) -> float:
    "How long a page takes: 200 words and 30 lines of code a minute."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    words = sum(len("".join(cell["source"]).split()) for cell in cells if cell["cell_type"] == "markdown")
    code = [line for cell in cells if cell["cell_type"] == "code" for line in "".join(cell["source"]).splitlines()]
    return words / 200 + sum(bool(line.strip()) for line in code) / 30


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_home_leads_to_every_page(path):
    home = "".join("".join(cell["source"]) for cell in json.loads(NAMES["index.html"].read_text())["cells"])
    assert path.stem == "index" or f"]({path.relative_to(ROOT / 'nbs').as_posix()})" in home


def pages_of(contents: list) -> list[str]:
    "The pages of a part of the sidebar, in order."
    pages = lambda part: [part] if isinstance(part, str) else pages_of(part.get("contents", []))
    return [page for part in contents for page in pages(part)]


def test_sidebar_holds_every_page_once_and_the_lessons_in_order():
    contents = yaml.safe_load((ROOT / "nbs/sidebar.yml").read_text())["website"]["sidebar"]["contents"]
    every = [path.relative_to(ROOT / "nbs").as_posix() for path in NAMES.values()]
    assert sorted(pages_of(contents)) == sorted(every)
    lessons = [page for page in pages_of(contents) if page[0].isdigit()]
    assert lessons == sorted(lessons) == [path.name for path in LESSONS]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_has_its_number_in_its_title_and_on_the_home_page(path):
    number = int(path.name[:2])
    first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
    home = "\n".join("".join(cell["source"]) for cell in json.loads(NAMES["index.html"].read_text())["cells"])
    title = first.splitlines()[0].partition(" · ")[2]
    assert first.startswith(f"# {number} · ") and f"| {number} [{title}]({path.name})" in home


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_home_says_how_long_a_lesson_takes(path):
    home = "\n".join("".join(cell["source"]) for cell in json.loads(NAMES["index.html"].read_text())["cells"])
    told = int(re.search(rf"\({path.name}\) \|.*\| (\d+) min", home)[1])
    assert abs(told - minutes(path)) <= max(5, told / 3), f"{path.name} takes {minutes(path):.0f} minutes"


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_shows_each_function_once_as_code(processed, path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    exported = [name for cell in cells if re.match(r"#\|\s*export", text := "".join(cell["source"]))
                for name in docs.defined(re.sub("(?m)^#\\|.*", "", text))]
    found = json.loads((processed / path.name).read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in found if cell["cell_type"] == "code")
    shown = [name for cell in found if cell["cell_type"] == "code" and "source" in cell
             for name in docs.defined(re.sub("(?m)^[#%].*", "", "".join(cell["source"])))]
    assert not [name for name in exported if shown.count(name) != 1]
    assert "show_doc(" not in code and "Exported source" not in code


def test_an_exported_cell_is_code_under_its_anchor():
    cell = lambda text: dict(cell_type="code", id="a", metadata={}, outputs=[], source=text)
    anchor, code = docs.once(cell("#| exports\n@patch\ndef fit(self:Model, rows): return rows"))
    assert anchor["source"] == '<div id="model.fit"></div>\n' and code["source"].startswith("@patch\ndef fit")
    assert [made["source"] for made in docs.once(cell("#| export\nRATE = 1e-2"))] == ["RATE = 1e-2"]
    for text in "import re\nfrom pathlib import Path", '_all_ = ["Task"]':
        assert [made["source"] for made in docs.once(cell(f"#| export\n{text}"))] == [f"#| hide\n{text}"]


def slug(heading: str) -> str:
    "The anchor that Quarto gives a heading."
    text = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).lower()
    return re.sub(r"^[^a-z]+", "", re.sub(r"\s+", "-", re.sub(r"[^\w\s.-]", "", text).strip()))


def anchors(path: Path  # of a notebook
            ) -> set[str]:
    "Where a link into a page can lead: its headings, and what it defines."
    sources = ["".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    headings = [line for text in sources for line in re.findall(r"(?m)^#{2,} (.+)$", text)]
    names = re.findall(r"(?m)^(?:def|class) (\w+)", "\n".join(sources))
    return {slug(heading) for heading in headings} | {name.lower() for name in names}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_into_a_page_lead_to_a_heading(path):
    text = "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
                     if cell["cell_type"] == "markdown")
    links = [(path.parent / target if target else path, place)
             for target, place in re.findall(r"\]\(([\w./-]*\.ipynb)?#([^)]+)\)", text)]
    assert not [f"{target.name}#{place}" for target, place in links if place not in anchors(target.resolve())]


def test_no_link_stands_inside_a_link(processed):
    for path in processed.rglob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        assert not re.findall(r"\[[^\[\]]*\[`[^`]+`\]\([^)]*\)[^\[\]]*\]\(", text), path.name


def test_pages_know_where_they_stand(processed):
    "The made-up repository's addresses, and a badge in each lesson."
    project, found = processed.parent, get_config(processed.parent)
    assert (found.git_url, found.doc_host + found.doc_baseurl) == ("https://github.com/somebody/somewhere", HOME)
    assert yaml.safe_load((project / "nbs/nbdev.yml").read_text())["website"]["repo-url"] == found.git_url
    for path in LESSONS:
        link = f'colab.research.google.com/github/somebody/somewhere/blob/main/nbs/{path.name}\\"'
        assert (processed / path.name).read_text(encoding="utf-8").count(link) == 1


def test_text_for_machines_lists_every_page(processed):
    found = (processed / "llms.txt").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\(([\w/]+\.html)\.md\)", found)) == set(NAMES) - {"index.html"}
    assert "`infoprompt.method.mi`: infonce," in found


def test_built_pages_load_nothing_from_elsewhere(tmp_path):
    "The lines that Quarto puts into pages with html outputs, and a link to another page."
    kept = f'<a class="x" href="https://github.com/a/b">b</a><script src="plotly.min.js"></script>'
    page = tmp_path / "reference/page.html"
    page.parent.mkdir()
    page.write_text(f"""{kept}
<p><a href="../blob/main/infoprompt/core.py#L37" target="_blank" style="float:right">source</a></p>
<script src="https://cdn.jsdelivr.net/npm/requirejs@2.3.6/require.min.js" integrity="sha384-x" crossorigin="a"></script>
<script src="https://cdnjs.cloudflare.com/ajax/libs/jquery/3.5.1/jquery.min.js" data-relocate-top="true"></script>
<script type="application/javascript">define('jquery', [],function() {{return window.jQuery;}})</script>
<a title="y" href="{HOME}/core.html#fit">fit</a>""")
    docs.built(tmp_path, HOME)
    assert page.read_text().split() == f'{kept} <a title="y" href="../core.html#fit">fit</a>'.split()


def luminance(colour: str) -> float:
    "Of #rrggbb, as WCAG has it."
    parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= .04045 else ((c + .055) / 1.055) ** 2.4 for c in parts]
    return sum(weight * c for weight, c in zip((.2126, .7152, .0722), linear))


def contrast(text: str, ground: str) -> float:
    "Of two colours, as WCAG has it."
    dark, light = sorted(map(luminance, (text, ground)))
    return (light + .05) / (dark + .05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_can_be_read(theme):
    found = dict(light=pages.LIGHT, dark=pages.DARK)[theme] | pages.colours(f"{theme}.scss")
    pairs = [("body-color", "body-bg"), ("link-color", "body-bg"), ("link-color", "code-bg"), ("code-color", "code-bg"),
             ("pre-color", "body-bg")]
    told = {f"{text} on {ground}": contrast(found[text], found[ground]) for text, ground in pairs}
    told |= {ink: contrast(ink, found["code-block-bg"]) for ink in pages.INK[theme == "dark"]}
    assert not {pair: ratio for pair, ratio in told.items() if ratio < 4.5}


def test_numbers_on_a_map_can_be_read():
    cells = fig_weights().data[-1]
    assert [list(stop) for stop in cells.colorscale] == CELLS
    assert all(contrast(cells.textfont.color, colour) >= 4.5 for _, colour in CELLS)


def test_markdown_of_a_page_is_text(tmp_path):
    "What Quarto writes of a page: a figure with its scripts, links to notebooks, nbdev's links."
    page = tmp_path / "reference/page.html.md"
    page.parent.mkdir()
    page.write_text(f"""# Page

<!-- WARNING: THIS FILE WAS AUTOGENERATED! DO NOT EDIT! -->

[`fit`]({HOME}/core.html#fit), [why](../04_why.ipynb#so), <a href="tasks.ipynb">tasks</a>, [out](https://a.b/c.html#d)

<a href="./blob/main/infoprompt/core.py#L37" target="_blank"
style="float:right; font-size:smaller">source</a>

<figure id="fig-1"><figcaption>It falls</figcaption><div role="img" aria-label="A curve &amp; a line.">x</div></figure>
<script>(() => {{ show("</div>") }})()</script>
<figure id="ask" class="still"><figcaption>Two answers.</figcaption><p>yes</p><output>0.9</output>
<noscript>Switch it on.</noscript></figure>
<figure id="train"><figcaption>It learns</figcaption><svg role="img" aria-label="Upwards."></svg></figure>

<div>
<table class="dataframe">
<thead><tr><th></th><th colspan="2">β = 1</th></tr><tr><th></th><th>mean</th><th>a|b</th></tr></thead>
<tbody><tr><td rowspan="2">one</td><td>1</td><td>2</td></tr><tr><td>3</td><td>4</td></tr></tbody>
</table>
</div>

``` python
f"<figure><figcaption>{{x}}</figcaption></figure>"
```
""")
    docs.built(tmp_path, HOME)
    assert page.read_text() == """# Page

[`fit`](../core.html.md), [why](../why.html.md), <a href="tasks.html.md">tasks</a>, [out](https://a.b/c.html#d)

*Figure: It falls.* A curve & a line.

*Figure: Two answers.* yes, 0.9

*Figure: It learns.* Upwards.

|  | β = 1 mean | β = 1 a\\|b |
| --- | --- | --- |
| one | 1 | 2 |
| one | 3 | 4 |

``` python
f"<figure><figcaption>{x}</figcaption></figure>"
```
"""


def test_a_link_keeps_only_a_place_that_is_there(tmp_path):
    (tmp_path / "a.html").write_text('<h2 id="here">x</h2>')
    (tmp_path / "b.html").write_text('<a href="a.html#here">1</a> <a href="a.html#_gone">2</a>')
    docs.built(tmp_path, HOME)
    assert (tmp_path / "b.html").read_text() == '<a href="a.html#here">1</a> <a href="a.html">2</a>'

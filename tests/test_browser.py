"""The browser that figures are tried in: it runs scripts, and it reaches nothing outside this machine."""
import ast

import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs
from typer.testing import CliRunner

from infoprompt.cli import app
from infoprompt.explore import Stops, Typed, explore, show
from infoprompt.figures import ASSETS, say, told


def test_page_runs_scripts(page):
    page.set_content("<p id=p>before</p><script>p.textContent = 'after'</script>")
    assert page.inner_text("#p") == "after"


def test_page_reaches_nothing_outside(page):
    with pytest.raises(Exception, match="ERR_FAILED"):
        page.goto("http://example.invalid/")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "The folder of a quick run."
    folder = tmp_path_factory.mktemp("runs") / "quick"
    assert CliRunner().invoke(app, ["train", "--epochs", "2", "--shots", "16", "--out", str(folder)]).exit_code == 0
    return folder


@pytest.fixture
def watched(page):
    "A page with what it says and asks for."
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    return page


def drawn(page) -> list[int]:
    "Lines drawn in each panel, once the figure is there."
    page.wait_for_selector(".main-svg .scatterlayer .trace")
    return [page.locator(f".main-svg .{panel} .scatterlayer .trace").count() for panel in ("xy", "x2y2")]


@pytest.mark.parametrize("width", [1000, 390])
def test_figure_that_train_writes(watched, run, width):
    watched.set_viewport_size(dict(width=width, height=844))
    watched.goto((run / "convergence.html").as_uri())
    assert drawn(watched) == [5, 3] and watched.said == []
    assert watched.asked == [(run / "convergence.html").as_uri()]
    assert watched.evaluate("document.documentElement.scrollWidth") <= width
    assert watched.get_attribute("html", "lang") == "en"
    watched.click("summary")
    assert watched.locator("tbody tr").count() > 20


def fig_line(slope=1, start=0., kind="plain", text="no text"):
    "A line to move."
    fig = go.Figure(go.Scatter(x=[0, 1, 2], y=[start, start + slope, start + 2*slope], mode="lines"))
    return say(fig, "{kind}: from {start:.1f} to {end:.1f}, {text}", "A line that ends at {end:.1f}.", kind=kind,
               start=start, end=start + 2*slope, text=text)


MOVED = explore(fig_line, presets=dict(steep=dict(slope=4, start=.5)), slope=Stops([1, 2, 4], "slope", published=2),
                start=Stops([0., .5], "start"), kind=Stops(["plain", "other"], "kind"), text=Typed("your text"))


def shown() -> str:
    "A figure as a notebook's page holds it."
    return show(fig_line())._repr_mimebundle_()["text/html"]


AMD = "<script>window.define = () => {}; window.define.amd = {};</script>"  # what require.js does to a page


@pytest.mark.parametrize("amd", ["", AMD], ids=["plain", "with require.js"])
def test_fragment_loads_plotly_from_beside_the_page(watched, tmp_path, amd):
    (tmp_path / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    (tmp_path / "page.html").write_text(f"<!doctype html>{amd}{shown()}{shown()}", encoding="utf-8")
    watched.goto((tmp_path / "page.html").as_uri())
    watched.wait_for_selector(".main-svg")
    assert watched.asked == [(tmp_path / name).as_uri() for name in ("page.html", "plotly.min.js")]
    assert watched.said == []


def test_fragment_without_plotly_shows_its_description(watched, tmp_path):
    (tmp_path / "page.html").write_text(shown(), encoding="utf-8")
    watched.goto((tmp_path / "page.html").as_uri())
    watched.wait_for_function("window.infopromptPlotly")
    assert watched.inner_text("[role=img]") == "A line that ends at 2.0."
    assert watched.inner_text("figcaption") == "plain: from 0.0 to 2.0, no text"


@pytest.fixture
def moved(watched, tmp_path):
    "A page with a figure that has controls."
    (tmp_path / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    html = MOVED._repr_mimebundle_()["text/html"]
    (tmp_path / "page.html").write_text(f"<!doctype html><title>page</title>{html}", encoding="utf-8")
    watched.context.grant_permissions(["clipboard-read", "clipboard-write"])
    watched.goto((tmp_path / "page.html").as_uri())
    watched.wait_for_selector(".main-svg")
    yield watched
    assert watched.said == []


def curve(page) -> list[list[float]]:
    "The y values of the lines that are drawn."
    return page.evaluate("document.querySelector('.plot').data.map(trace => [...trace.y])")


def says(page) -> str:
    "The figure's sentence."
    return page.inner_text("figcaption")


def test_keyboard_moves_a_slider(moved):
    moved.get_by_label("slope").focus()
    moved.keyboard.press("ArrowRight")
    assert says(moved) == "plain: from 0.0 to 4.0, no text" and moved.url.endswith("#line.slope=2")
    spoken = moved.get_by_label("slope").get_attribute("aria-valuetext")
    assert spoken == "2 (published)" == moved.inner_text("output >> nth=0")
    assert curve(moved) == [[0, 2, 4], [0, 1, 2]], "the new line, and a ghost of the last"
    assert moved.get_attribute("[role=img]", "aria-label") == "A line that ends at 4.0."


def test_mouse_drags_a_slider(moved):
    box = moved.get_by_label("slope").bounding_box()
    middle = box["y"] + box["height"] / 2
    moved.mouse.move(box["x"] + 8, middle)
    moved.mouse.down()
    for part in (.5, .98): moved.mouse.move(box["x"] + part * box["width"], middle)
    moved.mouse.up()
    assert curve(moved) == [[0, 4, 8], [0, 1, 2]], "the ghost is where the drag began"


def test_controls_combine(moved):
    moved.get_by_label("kind").select_option("other")
    moved.get_by_label("start").focus()
    moved.keyboard.press("End")
    assert says(moved) == "other: from 0.5 to 2.5, no text"
    assert moved.inner_text("code") == 'fig_line(slope=1, start=0.5, kind="other", text="no text")'
    ast.parse(moved.inner_text("code"))


def test_preset_and_reset(moved):
    moved.get_by_role("button", name="steep").click()
    assert says(moved) == "plain: from 0.5 to 8.5, no text"
    moved.get_by_role("button", name="reset").click()
    assert says(moved) == "plain: from 0.0 to 2.0, no text" and curve(moved) == [[0, 1, 2]]
    assert "#" not in moved.url


def test_settings_are_copied(moved):
    moved.get_by_role("button", name="copy these settings").click()
    moved.get_by_role("button", name="copied").wait_for()
    text = moved.evaluate("navigator.clipboard.readText()")
    assert text.startswith("from infoprompt.explore import show\n") and "show(fig_line(slope=1, start=0," in text


def test_address_holds_the_settings(moved):
    moved.goto(moved.url + "#other.k=3&line.slope=4&line.kind=other")
    moved.reload()
    moved.wait_for_selector(".main-svg")
    assert says(moved) == "other: from 0.0 to 8.0, no text"
    moved.get_by_label("start").focus()
    moved.keyboard.press("End")
    assert moved.url.endswith("#other.k=3&line.slope=4&line.start=0.5&line.kind=other")


def test_nonsense_in_the_address_is_ignored(moved):
    moved.goto(moved.url + "#line.slope=77&line.nothing=1")
    moved.reload()
    moved.wait_for_selector(".main-svg")
    assert says(moved) == "plain: from 0.0 to 2.0, no text"


def test_typing_waits_for_a_kernel(moved):
    assert moved.get_by_label("your text").is_disabled()


def test_page_formats_as_python_does(page):
    numbers = [0, 1, -2.5, .1234567, 1234.5678, 1e5, .00098765, .9999, None, "word"]
    templates = ["{x}", "{x:d}", "{x:.2f}", "{x:.0f}", "{x:.3g}", "{x:.0%}", "{x:.1%}"]
    renderer = (ASSETS / "explore.js").read_text(encoding="utf-8")
    found = page.evaluate(f"([ts, ns]) => {{ {renderer}; return ns.map(x => ts.map(t => say(t, {{x}}))); }}",
                          [templates, numbers])
    skip = {(-2.5, "{x:d}"), (-2.5, "{x:.0f}"), (1234.5678, "{x:.3g}"), (1e5, "{x:.3g}")}  # ties; exponents
    for number, row in zip(numbers, found):
        for template, got in zip(templates, row):
            assert (number, template) in skip or got == told(template, dict(x=number)), (number, template)

"""The browser that figures are tried in: it runs scripts, and it reaches nothing outside this machine."""
import ast

import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs
from typer.testing import CliRunner

from infoprompt.command.cli import app
from infoprompt.show.explore import RENDERER, Stops, Typed, explore, show
from infoprompt.show.figures import say, told


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


def opened(page, folder, explorer, times=1):
    "Show a figure, or the same figure several times, on a page beside plotly."
    (folder / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    html = explorer._repr_mimebundle_()["text/html"] * times
    (folder / "page.html").write_text(f"<!doctype html><title>page</title>{html}", encoding="utf-8")
    page.goto((folder / "page.html").as_uri())
    page.wait_for_selector(".main-svg")


@pytest.fixture
def moved(watched, tmp_path):
    "A page with a figure that has controls."
    watched.context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened(watched, tmp_path, MOVED)
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
    assert curve(moved) == [[0, 1, 2], [0, 2, 4]], "a ghost of the last line, and before it the new one"
    assert moved.get_attribute("[role=img]", "aria-label") == "A line that ends at 4.0."


def test_mouse_drags_a_slider(moved):
    box = moved.get_by_label("slope").bounding_box()
    middle = box["y"] + box["height"] / 2
    moved.mouse.move(box["x"] + 8, middle)
    moved.mouse.down()
    for part in (.5, .98): moved.mouse.move(box["x"] + part * box["width"], middle)
    moved.mouse.up()
    assert curve(moved) == [[0, 1, 2], [0, 4, 8]], "the ghost is where the drag began"


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
    assert text.startswith("from infoprompt.show.explore import show\n") and "show(fig_line(slope=1, start=0," in text


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
    found = page.evaluate(f"([ts, ns]) => {{ {RENDERER}; return ns.map(x => ts.map(t => say(t, {{x}}))); }}",
                          [templates, numbers])
    skip = {(-2.5, "{x:d}"), (-2.5, "{x:.0f}"), (1234.5678, "{x:.3g}"), (1e5, "{x:.3g}")}  # ties; exponents
    for number, row in zip(numbers, found):
        for template, got in zip(templates, row):
            assert (number, template) in skip or got == told(template, dict(x=number)), (number, template)


def fig_mapped(beta=0., gamma=0., task="one"):
    "A line, and a map whose cells are settings."
    x = dict(domain=[0, .5]), dict(domain=[.6, 1], type="category", anchor="y2")
    fig = go.Figure([go.Scatter(x=[0, 1], y=[0, beta + gamma], mode="lines"),
                     dict(type="heatmap", x=["0", "0.1"], y=["0", "0.5"], z=[[1, 2], [3, 4]], xaxis="x2", yaxis="y2",
                          hoverinfo="none", showscale=False, meta=dict(x="beta", y="gamma"))],
                    dict(xaxis=x[0], xaxis2=x[1], yaxis2=dict(type="category", anchor="x2"), dragmode=False,
                         height=300))
    gain = beta - gamma if beta or gamma else None
    say(fig, f"{task}: {beta:g} and {gamma:g}", "A line and a map.", gain=gain, low=gain and gain - .2,
        high=gain and gain + .2)
    return fig.update_layout(meta=fig.layout.meta | dict(narrow={"xaxis.domain": [0, 1], "height": 500}))


GUESS = dict(of=["beta", "gamma"], ask="it will be", answers=["lower", "equal", "higher"], number="gain", low="low",
             high="high", verdict="{value:+.1f} ({from:+.1f} to {to:+.1f})")
MAPPED = explore(fig_mapped, {"up": dict(beta=.1), "down": dict(gamma=.5), "none": {}}, GUESS,
                 beta=Stops([0., .1], "β"), gamma=Stops([0., .5], "γ"), task=Stops(["one", "two"], "task", chips=True))


@pytest.fixture
def mapped(watched, tmp_path):
    "A page with a map, chips and a question."
    watched.set_viewport_size(dict(width=1000, height=900))
    opened(watched, tmp_path, MAPPED, times=2)
    yield watched
    assert watched.said == []


def cell(page, column, row):
    "The middle of a cell of the first map, in the page."
    return page.evaluate("""([column, row]) => {
      const plot = document.querySelector(".plot"), {xaxis2: x, yaxis2: y} = plot._fullLayout;
      const box = plot.getBoundingClientRect();
      return [box.x + x._offset + x.c2p(column), box.y + y._offset + y.c2p(row)];
    }""", [column, row])


def test_a_cell_of_the_map_is_a_setting(mapped):
    mapped.mouse.move(*cell(mapped, 1, 0))
    assert says(mapped) == "one: 0 and 0", "passing over a map chooses nothing"
    mapped.mouse.click(*cell(mapped, 1, 0))
    mapped.wait_for_function("document.querySelector('figcaption').textContent === 'one: 0.1 and 0'")
    assert mapped.get_by_label("β").first.evaluate("range => range.value") == "1"
    assert mapped.url.endswith("#mapped.beta=0.1")


def test_dragging_over_the_map_moves_the_settings(mapped):
    mapped.mouse.move(*cell(mapped, 1, 0))
    mapped.mouse.down()
    for step in range(1, 9): mapped.mouse.move(*cell(mapped, 1 - step / 8, step / 8))
    mapped.wait_for_function("document.querySelector('figcaption').textContent === 'one: 0 and 0.5'")
    mapped.mouse.up()


def test_chips_take_mouse_and_keyboard(mapped):
    first = mapped.locator("figure").first
    first.get_by_text("two", exact=True).click()
    assert says(mapped) == "two: 0 and 0" and mapped.locator("figure").nth(1).get_by_label("one").is_checked()
    mapped.keyboard.press("ArrowLeft")
    assert says(mapped) == "one: 0 and 0"
    assert first.get_by_role("radio", name="one").is_checked() and first.get_by_role("group", name="task").count() == 1


@pytest.mark.parametrize("preset, answer, told", [
    ("up", "higher", "No: you said higher; +0.1 (-0.1 to +0.3): equal."),
    ("down", "lower", "Yes: you said lower; -0.5 (-0.7 to -0.3): lower.")])
def test_a_preset_is_shown_once_the_reader_has_guessed(mapped, preset, answer, told):
    first = mapped.locator("figure").first
    first.get_by_role("button", name=preset).click()
    assert says(mapped) == "one: 0 and 0" and "it will be" in first.locator(".guess").inner_text()
    first.get_by_role("button", name=answer).press("Enter")
    first.get_by_text(told).wait_for()
    assert says(mapped) != "one: 0 and 0"
    first.get_by_role("button", name="none").click()
    assert first.locator(".guess").inner_text() == "" and says(mapped) == "one: 0 and 0"


def test_a_narrow_page_has_its_own_layout(mapped):
    has = lambda height, right: mapped.wait_for_function(
        "([height, right]) => [document.querySelector('.plot')].every(plot => plot._fullLayout.height === height"
        " && plot._fullLayout.xaxis.domain[1] === right)", arg=[height, right])
    has(300, .5)
    mapped.set_viewport_size(dict(width=390, height=844))
    has(500, 1)
    mapped.wait_for_function("document.documentElement.scrollWidth <= 390")
    mapped.set_viewport_size(dict(width=1000, height=844))
    has(300, .5)

"""The browser that figures are tried in: it runs scripts, and it reaches nothing outside this machine."""
import pandas as pd
import pytest
from plotly.offline import get_plotlyjs
from typer.testing import CliRunner

from infoprompt.cli import app
from infoprompt.explore import fig_convergence, show


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


def shown() -> str:
    "A figure as a notebook's page holds it."
    steps = range(1, 9)
    rows = [dict(run=0, step=s, epoch=s / 4, quantity="loss", value=1 / s) for s in steps]
    return show(fig_convergence(pd.DataFrame(rows)))._repr_mimebundle_()["text/html"]


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
    assert watched.inner_text("[role=img]").startswith("Two panels over 2 epochs")

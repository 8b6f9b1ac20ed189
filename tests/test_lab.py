"""JupyterLab end to end: open a notebook, run all of it, and the live figures answer."""
import shutil

import pytest

import lab
from conftest import ROOT

SMALL = ["""\
import plotly.graph_objects as go
from infoprompt.show.explore import Stops, Typed, explore
from infoprompt.show.figures import say""", """\
def fig_count(times=1, text="soft"):
    if not text: raise ValueError("no text: type a word")
    fig = go.Figure(go.Scatter(x=[0, 1], y=[0, times * len(text)], mode="lines"))
    return say(fig, "{n:d} letters in {text}", "A line up to {n:d}, {text}.", n=times * len(text), text=text)""", """\
explore(fig_count, times=Stops([1, 2, 3], "times"), text=Typed("your text"))""", """\
explore(fig_count, times=Stops([1, 5], "how often"))"""]
LIVE = [*SMALL[:2], """\
import time
def count(send, halted, times, text="soft"):
    for n in range(4): send(fig_count(n, text))
    while not halted(): time.sleep(.05)""", """\
explore(fig_count, live=("count now", count), times=Stops([1, 2, 3], "times"))"""]
PAGES = ["from infoprompt.show.playground import ask_page, train_page", "train_page()", "ask_page(weights=False)"]
REAL = ["from infoprompt.study.live import explore_weights", "explore_weights()"]
ENDS = "figure => figure.querySelector('.plot').data.at(-1).y"


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory):
    "The address of a JupyterLab with a small notebook and a lesson."
    pytest.importorskip("jupyterlab")
    notebooks, folder = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("jupyter")
    lab.write_notebook(notebooks / "small.ipynb", *SMALL)
    lab.write_notebook(notebooks / "training.ipynb", *LIVE)
    lab.write_notebook(notebooks / "pages.ipynb", *PAGES)
    lab.write_notebook(notebooks / "weights.ipynb", *REAL)
    shutil.copy(ROOT / "nbs/reference/show/explore.ipynb", notebooks)
    with lab.running(notebooks, folder) as address:
        yield address


@pytest.fixture
def run_all(page, jupyter):
    "Opens a notebook, runs all its cells, and gives the figures that are live."
    page.said, page.libraries = [], []
    page.on("pageerror", lambda error: page.said.append(str(error)))
    heard = lambda data: page.libraries.append(len(data) > 2**20)
    page.on("websocket", lambda socket: socket.on("framereceived", heard))

    def start(name: str):
        page.goto(f"{jupyter}/lab/workspaces/{name}/tree/{name}.ipynb?token={lab.TOKEN}")
        page.get_by_text("| Idle").wait_for()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()

    def run(name: str):
        start(name)
        output = ".jp-OutputArea-output:not(.jp-RenderedHTMLCommon)"  # html is not live
        live = page.locator(f"{output} figure.infoprompt")
        live.locator(".main-svg").first.wait_for(state="attached")
        live.first.evaluate("figure => figure.scrollIntoView()")  # JupyterLab lays out only what is in sight
        live.first.locator(".main-svg").first.wait_for()
        return live
    run.start = start
    yield run
    assert page.said == []


def test_live_figures_follow_their_controls(run_all, page):
    first, second = (figures := run_all("small")).first, figures.nth(1)
    second.locator(".main-svg").first.wait_for(state="attached")
    assert figures.count() == 2 and sum(page.libraries) == 1, "plotly.js travels once for all figures"
    assert first.locator("figcaption").inner_text() == "4 letters in soft"

    first.get_by_label("times").press("ArrowRight")
    first.get_by_text("8 letters in soft").wait_for()
    assert first.evaluate(ENDS) == [0, 8] and second.evaluate(ENDS) == [0, 4]

    typed = first.get_by_label("your text")
    typed.fill("prompt")
    typed.press("Enter")
    first.get_by_text("12 letters in prompt").wait_for()
    page.wait_for_function(f"figure => ({ENDS})(figure)[1] === 12", arg=first.element_handle())
    assert first.locator("code").inner_text() == 'fig_count(times=2, text="prompt")'

    typed.fill("")
    typed.press("Enter")
    first.get_by_text("no text: type a word").wait_for()
    first.get_by_role("button", name="reset").click()
    first.get_by_text("4 letters in soft").wait_for()

    second.get_by_label("how often").press("End")
    second.get_by_text("20 letters in soft").wait_for()
    assert first.evaluate(ENDS) == [0, 4]


def test_lesson_is_live(run_all, page):
    figure = run_all("explore").first
    page.wait_for_function("figure => figure.querySelector('.main-svg').clientWidth === figure.clientWidth",
                           arg=figure.element_handle())
    before = figure.evaluate(ENDS)
    figure.get_by_label("frequency").press("ArrowRight")
    figure.get_by_text("A wave that repeats 4 times crosses zero 8 times").wait_for()
    assert figure.evaluate(ENDS) != before
    figure.get_by_role("button", name="tall and slow").click()
    figure.get_by_text("A wave that repeats 1 times crosses zero 2 times").wait_for()


def test_a_live_training_is_drawn_and_stopped(run_all, page):
    figure = run_all("training").first
    figure.get_by_role("button", name="count now").click()
    figure.get_by_text("12 letters in soft").wait_for()
    figure.get_by_role("button", name="stop").click()
    figure.get_by_role("button", name="count now").wait_for()
    assert figure.locator("figcaption").inner_text() == "12 letters in soft"
    figure.get_by_label("times").press("ArrowRight")
    figure.get_by_text("8 letters in soft").wait_for()


def test_five_seeds_of_a_chosen_setting_train_live_until_they_are_stopped(run_all, page):
    figure = run_all("weights").first
    figure.get_by_role("button", name="train five seeds now").click()
    page.wait_for_function("figure => /^Live: 5 seeds, epoch [2-9]/.test(figure.querySelector('figcaption').innerText)",
                           arg=figure.element_handle())
    figure.get_by_role("button", name="stop").click()
    figure.get_by_role("button", name="train five seeds now").wait_for()
    said = figure.locator("figcaption").inner_text()
    assert said.startswith("Live: 5 seeds, epoch") and "of 30" in said
    live = figure.evaluate("figure => figure.querySelector('.plot').data.filter(one => /^live/.test(one.name))"
                           ".map(one => one.y)")
    assert len(live) == 5 and {len(curve) for curve in live} == {int(said.split()[4]) + 1}


def test_a_prompt_trains_in_the_output_of_a_cell_and_answers_there(run_all, page):
    run_all.start("pages")
    train = page.locator("#train-prompt button.train")
    train.scroll_into_view_if_needed()
    train.click()
    page.get_by_text("steps a second").wait_for()
    page.locator("#ask-prompts").get_by_role("group", name="yours").wait_for(state="attached")
    train.click()
    page.get_by_text("Train continues from there").wait_for()
    mine = page.locator("#ask-prompts").get_by_role("group", name="yours")
    mine.scroll_into_view_if_needed()
    before = mine.inner_text()
    page.locator("#ask-prompts [name=text]").fill("the film was awful .")
    page.wait_for_function("before => document.querySelector(`#ask-prompts [aria-label='yours']`).innerText !== before",
                           arg=before)

"""The page that trains and asks: it does what Python does, with mouse and keyboard, and says what it lacks."""
import base64
import json

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe

from conftest import ROOT
from infoprompt.command.runs import run_page, yours
from infoprompt.core import InfoPromptModel, Task, load_data
from infoprompt.engine.feeds import Feed, Rows
from infoprompt.engine.population import Population
from infoprompt.method.prompts import start_prompt
from infoprompt.show import playground
from infoprompt.show.figures import fig_run
from infoprompt.show.playground import ask_page, ask_task, five_answers, stored, train_page
from infoprompt.study.live import answered
from test_browser import watched  # noqa: F401
from test_nano_js import encoder, needs_node, node, rounded  # noqa: F401

SHOW = ROOT / "infoprompt/show"
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>a page</title>
<link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>:root { color-scheme: light dark } body { font: 16px/1.5 system-ui; max-width: 52rem; margin: 0 auto;
padding: 1rem } @media (prefers-color-scheme: dark) { body { background: #16191d; color: #dfe3e8 } }</style></head>
<body><main><h1>a page</h1>%s</main></body></html>"""


# The worker against Python, under Node.

@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    "nano.js and worker.js as the one script that they are in a page."
    file = tmp_path_factory.mktemp("worker") / "worker.js"
    file.write_text("".join((SHOW / name).read_text(encoding="utf-8") for name in ("nano.js", "worker.js")))
    return file


def unpacked(row) -> list:
    "The texts of a packed row."
    words, at = playground.nano_words(), playground.LETTERS.index
    word = lambda two: words[64 * at(two[0]) + at(two[1])]
    return [" ".join(word(text[i:i + 2]) for i in range(0, len(text), 2)) for text in row.split(",")]


def plan_of(task, seed, **settings) -> dict:
    "What the page gives its worker, from the asset."
    noise, own = stored("playground")["noise"], stored("playground")["tasks"][task]
    row = lambda i: dict(zip(own["columns"], unpacked(own["rows"].split(".")[i]))) | dict(label=int(own["classes"][i]))
    return dict(rows=[row(i) for i in own["train"][seed]], held=[row(i) for i in own["validation"][seed]],
                orders=noise["rows"][seed], turns=noise["batches"],
                seeds={name: sum(noise[name][seed], []) for name in ("head", "rep")},
                settings=dict(labels=own["labels"], template=own["template"], informed=own["informed"][seed], seed=seed,
                              critic=noise["critic"][seed], lr=.01, start="vocab", beta=.1, gamma=.05) | settings)


@pytest.mark.parametrize("task", playground.TASKS)
def test_rows_are_those_of_python(task):
    own, seed = plan_of(task, 3), 3
    data = load_data(f"nano/{task}", 64, seed)
    for name, split in dict(rows="train", held="validation").items():
        assert own[name] == [{k: r[k] for k in own[name][0]} for r in data[split]]


@needs_node
@pytest.mark.parametrize("task, seed", [("sentiment", 0), ("entailment", 4)])
def test_starts_batches_and_noise_are_those_of_pytorch(worker, encoder, task, seed):  # noqa: F811
    plan = plan_of(task, seed)
    found = node("""const rows = api.encodeRows(nano, given.plan.rows, given.plan.settings.template, 4);
        const start = start => api.startPrompt(nano, {...given.plan.settings, start}, 4), {plan} = given;
        const run = api.beginRun(nano, plan.settings), order = api.orderOf(rows, plan.orders[7], plan.turns[7]);
        const batch = api.collateRows(nano, order[3].map(i => rows[i])), at = 7 * 8 + 3;
        return {starts: ["vocab", "label", "random", "informed"].map(start), critic: run.params.rep_critic, order,
          drawn: api.drawAs(nano, run, batch, plan.seeds.head[at], plan.seeds.rep[at])};""", script=worker, plan=plan)
    data, kind = load_data(f"nano/{task}", 64, seed)["train"], f"nano/{task}"
    model = InfoPromptModel(encoder, kind, init="vocab", seed=seed)
    words = tuple(model.task.verbalizer.values())
    starts = [start_prompt(s, 4, encoder, words, seed) for s in ("vocab", "label", "random")]
    informed = InfoPromptModel(encoder, kind, init="informed", seed=seed)
    informed.begin(data)
    for mine, true in zip(found["starts"], [*starts, informed.prompt]):
        np.testing.assert_allclose(mine, true.detach().flatten(), atol=1e-4)
    np.testing.assert_allclose(found["critic"], model.rep_critic.detach().flatten(), atol=1e-5)
    feed = Feed(one := Population([model]), Rows(one, [*data]), 8, [(seed, seed)], 30)
    assert found["order"] == [batch.tolist() for batch in feed.order(0, 7)]
    batch = feed(7, 3)
    np.testing.assert_allclose(found["drawn"]["noise"], batch["noise@0"].flatten(), atol=1e-5)
    taken = lambda ids: [sorted(row[row >= 0].tolist()) for row in ids]
    assert taken(found["drawn"]["negative_ids"].reshape(8, 32)) == taken(batch["negative_ids@0"][0].numpy())


@needs_node
def test_pushes_are_the_terms_gradients_with_their_weights(worker):
    found = node("""const session = api.newSession(nano, given.plan), {run, rows} = session;
        const batch = api.collateRows(nano, rows.slice(0, 8)), drawn = api.drawAs(nano, run, batch, 1, 2);
        const whole = api.gradients(nano, run, batch, drawn).grads.prompt;
        return [api.pushesOf(nano, run, batch, drawn), Math.hypot(...whole)];""", script=worker,
                 plan=plan_of("sentiment", 0, beta=1., gamma=0.))
    push, whole = found
    assert push["head"] == 0 and push["cos_head"] is None and push["rep"] > 0
    assert whole == pytest.approx((push["ce"]**2 + push["rep"]**2 + 2 * push["ce"] * push["rep"] * push["cos_rep"])**.5)


# The page in a browser.

def opened(page, folder, *parts):
    "A page with some elements, opened as a file."
    (folder / "page.html").write_text(PAGE % "".join(part.html for part in parts), encoding="utf-8")
    page.goto((folder / "page.html").as_uri())
    return page


@pytest.fixture
def quiet(watched, tmp_path):  # noqa: F811
    "Opens elements; in the end nothing was said on the console and nothing outside was asked for."
    watched.set_default_timeout(120_000)
    yield lambda *parts: opened(watched, tmp_path, *parts)
    assert watched.said == [] and {url.partition(":")[0] for url in watched.asked} <= {"file", "blob"}


def answers(page) -> dict:
    "Name of each prompt -> probabilities, as the page shows them."
    return page.evaluate("""() => Object.fromEntries([...document.querySelectorAll("figure:last-of-type [role=group]")]
      .map(one => [one.getAttribute("aria-label"), [...one.querySelectorAll("output")].map(p =>
        Number(p.textContent))]))""")


LISTEN = """window.heard = [];
window.Worker = class extends window.Worker {
  constructor(...given) {
    super(...given);
    this.addEventListener("message", ({data}) => { if ("epoch" in data) window.heard.push(
      {...data, prompt: [...data.prompt], head: [...data.head]}); });
  }
};"""


def test_ten_epochs_with_a_stop_are_those_of_python(quiet, watched, rounded):  # noqa: F811
    watched.add_init_script(LISTEN)
    page = quiet(train_page())
    for name, value in dict(beta="0.1", gamma="0.05", seed="1").items():
        page.locator(f"select[name={name}]").select_option(index=[*map(str, dict(beta=playground.BETAS, gamma=(
            playground.GAMMAS), seed=range(5))[name])].index(value))
    train = page.locator("button.train")
    train.click()
    page.wait_for_function("window.heard.length > 2")
    train.click()
    page.get_by_text("Train continues from there").wait_for()
    before = page.evaluate("window.infopromptYours.prompt.length")
    stopped = page.locator(".progress").inner_text()
    assert before == 256 and train.inner_text() == "Train" and "steps a second" in stopped
    train.click()
    page.wait_for_function("window.heard.length > 10")
    train.click()
    page.get_by_text("Train continues from there").wait_for()
    heard = page.evaluate("window.heard")
    assert [one["epoch"] for one in heard[:11]] == [*range(11)], "a run that continues does not start again"
    data = load_data("nano/sentiment", 64, 1)
    model = InfoPromptModel(rounded, "nano/sentiment", init="vocab", seed=1, beta=.1, gamma=.05)
    start = model.prompt.detach().flatten().numpy().copy()
    history = model.fit(data["train"], data["validation"], lr=.01, seed=1, progress=False)
    true = {q: part["value"].to_numpy() for q, part in history.groupby("quantity")}
    np.testing.assert_allclose(heard[0]["prompt"], start, atol=1e-4)
    np.testing.assert_allclose([one["val_loss"] for one in heard[:11]], true["val_loss"][:11], atol=.02)
    np.testing.assert_allclose([one["score"] for one in heard[:11]], true["val_accuracy"][:11], atol=1 / 64)
    for name in "loss", "ce", "l_rep", "l_head":
        np.testing.assert_allclose([one[name] for one in heard[1:11]], true[name][:80].reshape(10, 8).mean(1), atol=.02)
    assert heard[1]["push"]["rep"] > 0 and -1 <= heard[1]["push"]["cos_head"] <= 1
    path, push = (page.locator(f"svg[aria-label^='{words}']").get_attribute("aria-label")
                  for words in ("The directions of", "Two panels"))
    assert f"the paths of 4 prompt vectors over {len(heard) - 1} epochs" in path and "share of the push" in push
    vectors = np.reshape(heard[-1]["prompt"], (4, -1))
    words = rounded.words.detach().numpy()[:len(playground.nano_words())]
    near = (vectors @ (words / np.linalg.norm(words, axis=1, keepdims=True)).T).argmax(1)
    assert [playground.nano_words()[i] for i in near] == heard[-1]["nearest"]
    assert all(f"vector {i + 1}, {word}" in path for i, word in enumerate(heard[-1]["nearest"]))
    stored_run = stored_scores("sentiment", .1, .05, 1)
    assert np.abs(np.array([one["score"] for one in heard[:11]]) - stored_run[:11]).mean() < .05


def stored_scores(task, beta, gamma, seed):
    "The stored run that the page draws beside the reader's."
    band = playground.bands()[f"{task} 0.01 vocab {beta:g} {gamma:g}"]
    return np.frombuffer(base64.b64decode(band["curves"]), "u1").reshape(8, -1)[3 + seed] / 250


def test_a_setting_that_is_not_stored_has_no_band_and_says_so(quiet):
    page = quiet(train_page(weights=False))
    assert page.locator("polygon").count() == 1
    page.locator("select[name=lr]").select_option("0.003")
    missing = "0.003" not in {key.split()[1] for key in playground.bands()}
    assert (page.locator("polygon").count() == 0) == missing
    if missing: assert "no runs of this setting are stored" in page.locator(".keys").first.inner_text()


def test_without_weights_the_page_says_so(quiet):
    page = quiet(train_page(weights=False), ask_page(weights=False))
    page.locator("button.train").click()
    page.get_by_text("Nothing can be trained: nano's weights are not on this page").wait_for()
    page.locator("[name=text]").fill("the hat")
    page.get_by_text("Nothing can be asked: nano's weights are not on this page").wait_for()


def test_without_workers_the_page_says_so(quiet, watched):  # noqa: F811
    watched.add_init_script("delete window.Worker")
    page = quiet(train_page(), ask_page(weights=False))
    assert "no Web Workers" in page.locator("#train-prompt .status").inner_text()
    page.locator("[name=text]").fill("the hat")
    page.get_by_text("Nothing can be asked: this browser has no Web Workers").wait_for()
    assert [*answers(page)] == ["untrained", "stuck", "plain", "β = 1", "published"]


def test_without_javascript_the_answers_stand_there(browser, tmp_path):
    context = browser.new_context(java_script_enabled=False)
    page = opened(context.new_page(), tmp_path, five_answers(), train_page(), ask_page(weights=False))
    assert page.get_by_role("group", name="plain").count() == 2
    assert page.locator("figure svg polyline").count() == 3 and "switch JavaScript on" in page.inner_text("body")
    context.close()


def test_the_page_asks_as_python_does(quiet, encoder):  # noqa: F811
    page, task = quiet(ask_page()), ask_task("sentiment")
    baked = {p["name"]: p["answer"]["chances"] for p in task["prompts"]}
    assert {name: pytest.approx(c, abs=.006) for name, c in baked.items()} == answers(page)
    field = page.locator("[name=text]")
    field.fill("Peter will LOVE the zebra cak")
    page.get_by_text("nano does not know zebra, cak").wait_for()
    assert page.locator(".strip .unknown").all_inner_texts() == ["zebra?", "cak?"]
    assert page.locator(".strip .prompt").count() == 4 and page.locator(".strip .mask").inner_text() == "[MASK]"
    offered = page.locator("datalist option").evaluate_all("all => all.map(one => one.value)")
    assert offered == [f"Peter will LOVE the zebra {word}" for word in ("cake", "cakes")]
    field.fill(text := "peter will love the cake .")
    page.wait_for_function("!document.querySelector('.strip .unknown')")
    model = InfoPromptModel(encoder, "nano/sentiment", init="vocab", beta=0)
    found = answers(page)
    for p in task["prompts"]:
        for name in "prompt", "head":
            numbers = np.frombuffer(base64.b64decode(p[name]), "<f4").copy()
            model.trained()[name].data.copy_(torch.tensor(numbers).view_as(model.trained()[name]))
        true = answered(model, dict(text=text))
        assert found[p["name"]] == pytest.approx(true["chances"], abs=.02), p["name"]
        word, chance = true["words"][0]
        assert word in page.get_by_role("group", name=p["name"]).inner_text() or chance < .01
    page.locator("select[name=task]").select_option("entailment")
    assert page.locator("[name=pair]").input_value() == ask_task("entailment")["asked"]["pair"]
    page.locator("[name=pair]").fill("the zebra was cleaned .")
    page.get_by_text("nano does not know zebra").wait_for()


def test_yours_follows_the_training(quiet):
    page = quiet(train_page(), ask_page(weights=False))
    page.locator("#train-prompt [name=task]").select_option("relation")
    page.locator("button.train").click()
    page.get_by_role("group", name="yours").wait_for()
    assert page.locator("#ask-prompts [name=task]").input_value() == "relation", "the reader had not chosen another"
    assert [*answers(page)] == ["untrained", "weakest", "plain", "β = 1", "yours"]
    page.locator("#train-prompt [name=seed]").select_option("2")
    assert page.locator("#train-prompt .status").inner_text() == "Press Train." and page.locator(
        "button.train").inner_text() == "Train"


def test_the_prompt_of_a_run_is_yours_in_its_page(quiet):
    model, text = InfoPromptModel("nano", "nano/sentiment", init="vocab", seed=5), "anna adores the film ."
    page = quiet(ask_page(yours(model, dict(text="not asked"))))
    assert [*answers(page)] == ["untrained", "stuck", "plain", "β = 1", "yours"]
    page.locator("[name=text]").fill(text)
    page.get_by_text("nano does not know adores").wait_for()
    assert answers(page)["yours"] == pytest.approx(model.predict_proba([text]).to_numpy()[0].tolist(), abs=.01)


def test_a_prompt_of_another_task_is_asked_alone(quiet):
    task = Task("own", ("text",), "label", dict(cold="dull", warm="nice"), template="[CLS] {text} it is [P] [MASK] .")
    page = quiet(ask_page(yours(InfoPromptModel("nano", task, init="vocab", n_prompt=2), dict(text="the soup"))))
    assert [*answers(page)] == ["yours"] and page.locator(".strip .prompt").count() == 2
    page.locator("[name=text]").fill("the cake")
    page.wait_for_function("document.querySelector('.strip').innerText.includes('cake')")


@pytest.mark.parametrize("name, there", [("nano", True), ("elsewhere", False)])
def test_only_a_run_on_nano_can_be_asked_in_its_page(name, there):
    model = InfoPromptModel("nano", "nano/sentiment", init="vocab")
    model.encoder.name = name
    page = run_page(fig_run(), model, dict(text="the hat"))
    assert ("ask-prompts" in page) == there and page.count("</html>") == 1


def test_the_keyboard_is_enough(quiet):
    page = quiet(train_page(), ask_page(weights=False))
    here = lambda: page.evaluate("document.activeElement.name || document.activeElement.textContent")
    seen = []
    for _ in range(11):
        page.keyboard.press("Tab")
        seen.append(here())
        if seen[-1] == "beta": page.keyboard.press("ArrowDown")
        if seen[-1] == "Train": page.keyboard.press("Enter")
    assert seen == ["task", "beta", "gamma", "start", "lr", "seed", "Train", "start over", "the terms of the loss",
                    "task", "text"]
    assert page.locator("select[name=beta]").input_value() == "0.1 (published)"
    page.get_by_role("group", name="yours").wait_for()
    page.keyboard.type("the hat")
    page.wait_for_function("document.querySelector('#ask-prompts .strip').innerText.includes('hat')")
    assert page.locator("[role=status][aria-live=polite]").count() == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_reads_well_on_a_phone_and_in_the_dark(quiet, watched, scheme):  # noqa: F811
    watched.emulate_media(color_scheme=scheme)
    watched.set_viewport_size(dict(width=390, height=844))
    page = quiet(five_answers(), train_page(), ask_page(weights=False))
    for task in "paraphrase", "relation": page.locator("#ask-prompts [name=task]").select_option(task)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    ink = "getComputedStyle(document.querySelector('svg text')).fill === getComputedStyle(document.body).color"
    assert page.evaluate(ink)
    wrong = [found for found in Axe().run(page).response["violations"] if found["impact"] in ("serious", "critical")]
    assert not wrong, json.dumps(wrong)[:2000]


def test_a_pages_own_share_is_small():
    sizes = [len(part.html) for part in (five_answers(), train_page(False), ask_page(weights=False))]
    assert sum(sizes) < 700_000 and len(train_page().html) - sizes[1] < 520_000

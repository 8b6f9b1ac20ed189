"The path of a prompt and the landscapes: what is stored is what the model gives, and what is said is what is drawn."
import json
import shutil
import subprocess
from itertools import product

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from conftest import ROOT
from infoprompt.base.endings import Interrupted
from infoprompt.core import InfoPromptModel, load_data
from infoprompt.method.encoders import Encoder
from infoprompt.method.prompts import nearest
from infoprompt.show.explore import fragment, frame, html_page
from infoprompt.show.landscape import (KINDS, SPACES, SURFACES, TASKS, WEIGHTS, corner_weights, explore_landscape,
                                       explore_path, fig_landscape, fig_path, height_at, plane, projected, shares_of,
                                       stored_landscape, surface_of)

CASES = list(product(TASKS, KINDS))
ROOM = dict(rtol=2e-3, atol=2e-4)  # float32 on another processor; a training drifts, so none is run to its end here


@pytest.fixture(scope="module")
def encoder() -> Encoder: return Encoder("nano")


@pytest.fixture
def script(monkeypatch):
    "benchmarks/landscape.py as a module."
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import landscape
    return landscape


# What is stored.

@pytest.mark.parametrize("name", ["word_plane.json", *(f"landscape_{task}.safetensors" for task in TASKS)])
def test_files_are_small(name):
    assert (ROOT / "infoprompt/assets" / name).stat().st_size <= 300_000


@pytest.mark.parametrize("task", TASKS)
def test_seeds_follow_the_rule(script, task):
    facts, _ = stored_landscape(task)
    assert facts["seeds"] == script.seeds(task) and {*facts["seeds"]} == {*KINDS}
    assert {k: tuple(w) for k, w in facts["weights"].items()} == WEIGHTS


def test_the_plane_is_that_of_the_principal_components(encoder):
    words = normalize(encoder.words.double(), dim=1).numpy()
    values, vectors = np.linalg.eigh(np.cov(words.T))
    assert plane()["variance"] == pytest.approx(values[-2:].sum() / values.sum(), abs=1e-6)
    np.testing.assert_allclose(np.abs(np.array(plane()["axes"]) @ vectors[:, :-3:-1]), np.eye(2), atol=1e-6)
    np.testing.assert_allclose([at for _, *at in plane()["words"]], projected(words), atol=1e-6)
    np.testing.assert_allclose(projected(3 * words), projected(words), atol=1e-6)
    assert [word for word, *_ in plane()["words"]] == [
        t.lstrip("Ġ") for t in encoder.tokenizer.convert_ids_to_tokens(range(len(words)))]


@pytest.mark.parametrize("task, kind", CASES)
def test_the_plane_holds_the_three_prompts(task, kind):
    four = stored_landscape(task)[1][kind]["four"]
    flat, corners = four["prompts"].reshape(3, -1), four["corners"]
    np.testing.assert_allclose(corner_weights(corners, corners), np.eye(3), atol=1e-6)
    between = lambda points: np.linalg.norm(points[:, None] - points, axis=-1)
    np.testing.assert_allclose(between(corners), between(flat), atol=1e-5)  # no length is lost on the plane
    for way, end in zip(four["paths"], corners[1:]):
        np.testing.assert_allclose(way[0], 0, atol=1e-6)
        np.testing.assert_allclose(way[-1], end, atol=1e-5)
    for low, high, at in zip((four["us"][0], four["vs"][0]), (four["us"][-1], four["vs"][-1]), corners.T):
        assert low < at.min() and at.max() < high


@pytest.mark.parametrize("task, kind", CASES)
def test_paths_begin_where_the_model_begins(task, kind, encoder):
    facts, found = stored_landscape(task)
    prompt = InfoPromptModel(encoder, f"nano/{task}", init="vocab", seed=facts["seeds"][kind]).prompt.detach()
    path, four = found[kind]["path"], found[kind]["four"]
    np.testing.assert_array_equal(four["prompts"][0], prompt)
    for run in range(len(WEIGHTS)):
        np.testing.assert_allclose(path["xy"][run, 0], projected(prompt), atol=1e-5)
        np.testing.assert_allclose(path["turn"][run, 0], 1, atol=1e-5)
    for run, end in enumerate(four["prompts"][1:]):
        np.testing.assert_allclose(path["xy"][run, -1], projected(end), atol=1e-5)
        names = [plane()["words"][i][0] for i in path["nearest"][run, -1]]
        assert names == nearest(torch.tensor(end), encoder, 1)["words"].tolist()
        cosine = (normalize(torch.tensor(end), dim=1) * normalize(prompt, dim=1)).sum(1)
        np.testing.assert_allclose(path["turn"][run, -1], cosine, atol=1e-5)


@pytest.mark.parametrize("task, kind", CASES)
def test_a_corner_is_the_model_itself(task, kind):
    "Cross-entropy of validation rows, as the training runs noted it, is the surface's height at the three corners."
    found = stored_landscape(task)[1][kind]
    noted = found["path"]["val_loss"]
    np.testing.assert_allclose(found["four"]["ends"][:, 0], [noted[0, 0], noted[0, -1], noted[1, -1]], **ROOM)


@pytest.mark.parametrize("task, kind", CASES)
def test_a_surface_is_what_the_model_gives(script, encoder, task, kind):
    facts, found = stored_landscape(task)
    four, seed = found[kind]["four"], facts["seeds"][kind]
    data = load_data(f"nano/{task}", 64, seed)
    model = InfoPromptModel(encoder, f"nano/{task}", init="vocab", seed=seed)
    for row, column in (3, 5), (12, 9):
        share = corner_weights([[four["us"][column], four["vs"][row]]], four["corners"])[0]
        mix = lambda parts: torch.tensor(np.einsum("c,c...->...", share, parts))
        model.prompt.data, model.head.data = mix(four["prompts"]), mix(four["heads"])
        model.rep_critic.data = torch.tensor(four["critic"])
        for split, name in dict(validation="val_loss", train="ce").items():
            chances = model.predict_proba(data[split]).to_numpy(float)
            said = -np.log(np.maximum(chances[range(64), list(data[split]["label"])], 1e-30)).mean()
            assert four[name][row, column] == pytest.approx(said, rel=5e-3, abs=5e-4)
        params = {k: p.detach()[None] for k, p in model.trained().items()}
        out = model.terms(params, script.whole_batch(model, data["train"], seed))
        for name in script.TERMS: np.testing.assert_allclose(four[name][row, column], out[name].mean().item(), **ROOM)


@pytest.mark.parametrize("task, kind", CASES)
def test_a_descent_in_two_numbers_is_real(script, encoder, task, kind):
    facts, found = stored_landscape(task)
    two, seed = found[kind]["one"], facts["seeds"][kind]
    data = load_data(f"nano/{task}", 64, seed)
    model, at = script.one_vector(task, data, seed, plane(), encoder)
    batch, middle = script.whole_batch(model, data["train"], seed), len(two["us"]) // 2
    for name, rate in facts["rates"].items():
        places, terms = two[f"{name}_places"], two[f"{name}_terms"]
        assert places.shape == (len(WEIGHTS), facts["steps"] + 1, 2) and not places[:, 0].any()
        for step in 0, 7, facts["steps"]:
            uv = torch.tensor(places[:, step], requires_grad=True)
            out = script.judged(model, batch, *at(uv))
            weighted = torch.tensor([*WEIGHTS.values()]) * torch.stack([out["l_rep"], out["l_head"]], 1)
            loss = out["ce"] + weighted.sum(1)
            want = torch.stack([loss, *(out[k] for k in script.TERMS)], 1).detach()
            np.testing.assert_allclose(terms[:, step], want, **ROOM)
            if name == "sgd" and step == 0:
                slope, = torch.autograd.grad(loss.sum(), uv)
                np.testing.assert_allclose(places[:, 1], -rate * slope, rtol=1e-2, atol=1e-5)
    for k, first in zip(script.TERMS, two["sgd_terms"][0, 0, 1:]):
        assert two[k][middle, middle] == pytest.approx(first, rel=2e-3, abs=2e-4)


def test_the_first_epoch_is_that_of_todays_code(script, encoder, monkeypatch):
    whole = script.train_population

    def stopped(*args, look, **more):
        calls = []

        def halting(*at):
            calls.append(look(*at))
            if len(calls) == 2: raise KeyboardInterrupt
            return calls[-1]
        with pytest.raises(Interrupted): whole(*args, look=halting, **more)

    monkeypatch.setattr(script, "train_population", stopped)
    facts, found = stored_landscape(TASKS[0])
    _, models, seen = script.trained(TASKS[0], facts["seeds"][KINDS[0]], encoder)
    new, old = script.journey(models, seen, plane(), encoder), found[KINDS[0]]["path"]
    np.testing.assert_allclose(new["xy"][:, 1], old["xy"][:, 1], atol=2e-3)
    np.testing.assert_allclose(new["push"][:, 0], old["push"][:, 0], rtol=.02, atol=2e-3)


# What is drawn and said.

@pytest.mark.parametrize("task, kind, weights, epoch", [*product(TASKS, KINDS, WEIGHTS, (1, 17))])
def test_the_path_says_what_it_draws(task, kind, weights, epoch):
    fig, run = fig_path(task, kind, weights, epoch), {
        k: x[[*WEIGHTS].index(weights)] for k, x in stored_landscape(task)[1][kind]["path"].items()}
    traces = {t.name: t for t in fig.data if t.xaxis != "x2"}
    for i in range(4):
        way = traces[f"vector {i + 1}"]
        assert len(way.x) == 31
        assert (way.x[epoch], way.y[epoch]) == (traces["now"].x[i], traces["now"].y[i])
        assert (way.x[0], way.y[0]) == (traces["start"].x[i], traces["start"].y[i])
    said, numbers = fig.layout.title.text, fig.layout.meta["numbers"]
    turned = np.degrees(np.arccos(np.clip(run["turn"][epoch], -1, 1)))
    assert f"by {turned.min():.0f}° to {turned.max():.0f}°" in said
    words = [text.removeprefix("<b>").removesuffix("</b>").replace("&lt;", "<").replace("&gt;", ">")
             for text in traces["now"].text]
    assert ", ".join(f"“{word}”" for word in words) in said
    shares = {t.name: t.y for t in fig.data if t.yaxis == "y2"}
    if weights == "plain":
        assert "all of the push is cross-entropy's" in said and shares["cross-entropy"][epoch - 1] == 1
    else:
        assert sum(y[epoch - 1] for y in shares.values()) == pytest.approx(1, abs=1e-3)
        assert numbers["rep"] == pytest.approx(shares["β·L_rep"][epoch - 1], abs=1e-3)
        cosine = next(t.y for t in fig.data if t.yaxis == "y3" and t.name == "β·L_rep")
        rep = shares["β·L_rep"]
        assert f"of the push {numbers['rep']:.1%} is β·L_rep's (at most {max(rep):.0%}, in epoch " in said
        assert max(rep) == rep[numbers["when"] - 1] and f"at a cosine of {cosine[epoch - 1]:+.2f} with" in said
    assert all(shape.x0 == epoch for shape in fig.layout.shapes)
    shown = fig.layout.xaxis.title.text
    assert f"{plane()['variance']:.0%} of the words'" in shown and f"{run['inside']:.0%} of the path's" in shown


def test_shares_sum_to_one():
    shares = shares_of([[3, 1, np.nan, .1, np.nan], [1, 1, 2, 0, 0]])
    np.testing.assert_allclose(shares, [[.75, .25, 0], [.25, .25, .5]])


@pytest.mark.parametrize("task, kind, space, surface", [*product(TASKS, KINDS, SPACES, SURFACES)])
def test_the_landscape_says_what_it_draws(task, kind, space, surface):
    fig, found = fig_landscape(task, kind, space, surface), stored_landscape(task)[1][kind][SPACES[space]]
    heat = next(t for t in fig.data if t.type == "heatmap")
    want = surface_of(found, surface)
    np.testing.assert_allclose(np.array(heat.z, float), want, rtol=1e-3)
    trails = [t for t in fig.data if t.type == "scatter" and t.name and t.name != "start"]
    said = fig.layout.title.text
    if SPACES[space] == "four":
        assert len(trails) == 2
        for trail, end in zip(trails, found["corners"][1:]):
            np.testing.assert_allclose([trail.x[-1], trail.y[-1]], end, atol=2e-3)
        start, plain, info = height_at(found["ends"], surface)
        assert f"{start:.2f} at the start, {plain:.2f} where plain" in said and f"{info:.2f} where InfoPrompt" in said
        assert "the plane holds {:.0%} and {:.0%}".format(*found["inside"]) in said
    else:
        assert len(trails) == 6
        assert said.startswith(f"{surface}: {want[len(want) // 2, len(want) // 2]:.3f} at the start")
        far = [np.hypot(t.x[-1], t.y[-1]) for t in trails[:3]]
        assert "by {:.2f} with cross-entropy alone, {:.2f} with the published weights and {:.2f}".format(*far) in said
    assert all((t.x[0], t.y[0]) == (0, 0) for t in trails)
    assert said.endswith(f"the map goes from {want.min():.3f} to {want.max():.3f}")
    assert fig.layout.coloraxis.cmax - fig.layout.coloraxis.cmin > .099  # flat land looks flat


def test_the_paths_variance_on_the_plane_is_computed_from_the_path():
    "Of the path of the corners alone all is on the plane."
    four = stored_landscape(TASKS[0])[1][KINDS[0]]["four"]
    assert ((0 < four["inside"]) & (four["inside"] < 1)).all()


@pytest.mark.parametrize("draw, settings", [
    (fig_path, dict(task=TASKS, kind=KINDS, weights=[*WEIGHTS], epoch=[1, 30])),
    (fig_landscape, dict(task=TASKS, kind=KINDS, space=[*SPACES], surface=[*SURFACES]))])
def test_every_frame_has_its_words_and_numbers(draw, settings):
    for at in product(*settings.values()):
        drawn = frame(draw(*at))
        missing = [k for k, v in drawn["numbers"].items() if v is None or v != v]
        assert missing == [] and "{seed}" in drawn["about"] and drawn["sentence"] in drawn["about"]


@pytest.fixture(scope="module")
def explorers():
    "Both explorers."
    return dict(path=explore_path(), landscape=explore_landscape())


def test_the_explorers_are_small_enough_for_a_page(explorers):
    assert sum(len(fragment(e.spec, e.first)) for e in explorers.values()) < 600_000


@pytest.mark.parametrize("name, press, want, width, scheme", [
    ("path", ["acceptability", "plain"], lambda: fig_path("acceptability", weights="plain"), 390, "dark"),
    ("landscape", ["one vector, two numbers", "L_rep"],
     lambda: fig_landscape(space="one vector, two numbers", surface="L_rep"), 1280, "light")])
def test_the_explorers_on_a_page(explorers, page, tmp_path, name, press, want, width, scheme):
    said, file = [], tmp_path / "page.html"
    file.write_text(html_page(explorers[name]), encoding="utf-8")
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.set_viewport_size(dict(width=width, height=844))
    page.emulate_media(color_scheme=scheme)
    page.goto(file.as_uri())
    page.wait_for_selector(".main-svg .scatterlayer .trace")
    for text in press: page.locator("fieldset label").get_by_text(text, exact=True).click()
    text = want().layout.title.text
    page.wait_for_function("text => document.querySelector('figcaption').textContent === text", arg=text)
    assert text in page.get_attribute(".plot", "aria-label")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert said == []


# The drawings for a page that trains.

NODE, SCRIPT = shutil.which("node"), ROOT / "infoprompt/show/paths.js"
needs_node = pytest.mark.skipif(NODE is None, reason="no node: install nodejs to run paths.js outside a browser")


def node(body: str, **data):
    "What a function body in JavaScript returns; it sees `api` and `given`."
    program = ("const api = require(process.argv[1]), given = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
               f"process.stdout.write(JSON.stringify((() => {{ {body} }})()))")
    done = subprocess.run([NODE, "-e", program, str(SCRIPT)], input=json.dumps(data), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_paths_js_is_short():
    lines = SCRIPT.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150 and max(map(len, lines)) <= 120


@needs_node
def test_paths_js_stands_beside_the_other_scripts(tmp_path):
    scripts = [(ROOT / "infoprompt/show" / name).read_text(encoding="utf-8")
               for name in ("explore.js", "nano.js", "paths.js")]
    (tmp_path / "all.js").write_text("\n".join(scripts), encoding="utf-8")
    subprocess.run([NODE, "--check", str(tmp_path / "all.js")], check=True)


@needs_node
def test_a_prompt_is_projected_as_in_python():
    prompt = np.random.default_rng(0).normal(size=(4, 64)).astype("f4")
    found = node("return api.projectPrompt(Float32Array.from(given.prompt), given.plane);", plane=plane(),
                 prompt=prompt.ravel().tolist())
    np.testing.assert_allclose(found, projected(prompt), atol=1e-6)


PATH = """const div = {}; api.drawPath(div, given); return div.innerHTML;"""
PUSH = """const div = {}; api.drawPush(div, given.readings); return div.innerHTML;"""


@needs_node
def test_a_path_is_drawn_and_told():
    words = [["<mask>", -1, 0], ["great", 1, 0], ["bad", 0, 1]]
    svg = node(PATH, words=words, start=[[0, 0], [.5, .5]], points=[[[.1, 0], [.5, .4]], [[1, 0], [-1, 0]]],
               variance=.137, nearest=["great", "<mask>"])
    assert svg.count("<polyline") == 2 and "<mask>" not in svg
    label = svg.split('aria-label="')[1].split('"')[0]
    assert "3 words" in label and "14 %" in label and "vector 1, great; vector 2, &lt;mask&gt;" in label
    assert "2 prompt vectors over 2 epochs" in label
    ends = [line.split('points="')[1].split('"')[0].split() for line in svg.split("<polyline")[1:]]
    assert [len(way) for way in ends] == [3, 3]
    places = {w: tuple(float(dot.split(f'{k}="')[1].split('"')[0]) for k in ("cx", "cy"))
              for w, dot in zip(("mask", "great", "bad"), svg.split("<circle")[1:4])}
    assert tuple(map(float, ends[0][-1].split(","))) == places["great"]
    assert tuple(map(float, ends[1][-1].split(","))) == places["mask"]


@needs_node
def test_a_push_is_drawn_and_told():
    push = dict(ce=3, rep=1, head=0, cos_rep=-.25, cos_head=None)
    svg = node(PUSH, readings=[dict(epoch=1, push=push), dict(epoch=2, push=push | dict(rep=2, head=1, cos_head=.5))])
    label = svg.split('aria-label="')[1].split('"')[0]
    assert ("After epoch 2: cross-entropy 50 %, β·L_rep 33 % at a cosine of -0.25, γ·L_head 17 % at a cosine of 0.50"
            in label)
    assert "undefined" not in svg and "NaN" not in svg and 'fill="currentColor"' in svg
    plain = node(PUSH, readings=[dict(epoch=1, push=dict(ce=2, rep=None, head=None, cos_rep=None, cos_head=None))])
    assert "cross-entropy 100 %, β·L_rep 0 %, γ·L_head 0 %" in plain and "NaN" not in plain
    assert node(PUSH, readings=[]) == ""


def test_a_map_that_grows_wider_is_drawn_as_on_a_wide_page(page, tmp_path):
    (tmp_path / "land.html").write_text(html_page(explore_landscape()), encoding="utf-8")
    def sides():
        page.wait_for_function("() => document.querySelector('.js-plotly-plot')?._fullLayout?.width > 600")
        return page.evaluate("""() => { const {xaxis, yaxis} = document.querySelector(".js-plotly-plot")._fullLayout;
          return [xaxis._length, yaxis._length]; }""")
    page.set_viewport_size(dict(width=1000, height=900))
    page.goto((tmp_path / "land.html").as_uri())
    wide = sides()
    page.set_viewport_size(dict(width=390, height=900))
    page.wait_for_function("() => document.querySelector('.js-plotly-plot')._fullLayout.width < 400")
    page.set_viewport_size(dict(width=1000, height=900))
    assert sides() == pytest.approx(wide) and min(wide) > 300

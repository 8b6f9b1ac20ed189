"""Every weight from every start: the runs behind each figure and table about beta, gamma and the start.

python benchmarks/grid.py [--tasks sentiment relation ...] [--starts vocab ...] [--rates 0.01 ...] [--share 1/2]

Five tasks of nano, 64 rows, 30 epochs, 20 seeds; a seed draws rows, start, order and noise, so equal seeds are twins.
At the rates 1e-2 and 3e-3 all pairs of four beta and three gamma, at the published 1e-3 plain prompt tuning and the
published weights; each from four starts. That is 10,400 runs, some three hours of one core.

Writes infoprompt/assets/weights_TASK_RATE.parquet, which `infoprompt.show.weights` reads. A file grows by pieces of
some 50 runs, which wait in benchmarks/results/checkpoints_grid/ until a start is whole; what is there is not run again.
Two shares (--share 1/2 and 2/2) can run side by side, for each writes files of its own.
"""
import argparse
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from infoprompt.base.files import write_whole
from infoprompt.core import load_data, majority
from infoprompt.data.tasks import get_task
from infoprompt.method.encoders import Encoder
from infoprompt.show.weights import QUANTITIES, pack_runs, read_runs
from infoprompt.study.sweeps import Alone, plan, run_part
from made import made, use_threads

ROOT = Path(__file__).resolve().parent.parent
TASKS = "sentiment", "relation", "acceptability", "paraphrase", "entailment"
STARTS = "vocab", "informed", "label", "random"
PAIRS = [(b, g) for b in (0., .1, .3, 1.) for g in (0., .05, .5)]
WEIGHTS = {.01: PAIRS, .003: PAIRS, .001: [(0., 0.), (.1, .05)]}
SEEDS, AT_ONCE, SHOTS, EPOCHS = range(20), 4, 64, 30


def by_epoch(history: pd.DataFrame, quantity: str, first: int) -> list[float]:
    "The mean of a quantity in each epoch, NaN where there is none."
    one = history[history["quantity"] == quantity]
    mean = one.groupby(np.ceil(one["epoch"]).astype(int))["value"].mean()
    return mean.reindex(range(first, EPOCHS + 1)).tolist()


def noted(model, row: dict) -> dict:
    "What is kept of a run."
    score = model.task.metrics[0]
    curves = {q: by_epoch(model.history, f"val_{score}" if q == "val_score" else q, first=not q.startswith("val"))
              for q in QUANTITIES}
    keep = {k: row[k] for k in ("beta", "gamma", "init", "seed", "untrained", "epoch", "diverged")}
    return keep | dict(test=row[f"test_{score}"]) | curves


def piece(task: str, lr: float, start: str, seeds: list[int], encoder: Encoder) -> pd.DataFrame:
    "All weights from one start for some seeds, as one population."
    runs = [run for b, g in WEIGHTS[lr]
            for run in plan(betas=(b,), gammas=(g,), inits=(start,), lrs=(lr,), seeds=seeds)]
    whole = get_task(f"nano/{task}")
    load = lambda seed: load_data(whole, SHOTS, seed)
    models, rows = run_part(runs, encoder, whole, load, Alone(torch.device("cpu")), EPOCHS, 8, progress=False)
    test = load(seeds[0])["test"]["label"]
    return pd.DataFrame([noted(m, r) for m, r in zip(models, rows)]).assign(
        majority=majority(whole, test)[whole.metrics[0]], rows=len(test))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=STARTS)
    parser.add_argument("--rates", nargs="+", type=float, choices=list(WEIGHTS), default=list(WEIGHTS))
    parser.add_argument("--share", default="1/1", metavar="I/N", help="every N-th file, from the I-th on")
    options = parser.parse_args()
    use_threads()
    at, of = map(int, options.share.split("/"))
    files = list(product(options.rates, options.tasks))[at - 1::of]
    encoder, waiting = Encoder("nano"), ROOT / "benchmarks/results/checkpoints_grid"
    waiting.mkdir(parents=True, exist_ok=True)
    groups = [list(SEEDS[i:i + AT_ONCE]) for i in range(0, len(SEEDS), AT_ONCE)]
    bar = tqdm(total=len(options.starts) * len(files) * len(groups), unit="piece")
    for start, (lr, task) in product(options.starts, files):
        bar.set_description(f"{task} {lr:g} {start}")
        whole = ROOT / f"infoprompt/assets/weights_{task}_{lr:g}.parquet"
        held = [read_runs(whole)] if whole.is_file() else []
        if any(start in set(table["init"]) for table in held):
            bar.update(len(groups))
            continue
        parts = [waiting / f"{task}_{lr:g}_{start}_{seeds[0]}.parquet" for seeds in groups]
        for seeds, part in zip(groups, parts):
            if not part.is_file(): write_whole({part: pack_runs(piece(task, lr, start, seeds, encoder), {})})
            bar.update()
        about = made() | dict(encoder=encoder.fingerprint, task=task, lr=lr, shots=SHOTS, epochs=EPOCHS)
        write_whole({whole: pack_runs(pd.concat([*held, *map(read_runs, parts)], ignore_index=True), about)})
        for part in parts: part.unlink()


if __name__ == "__main__":
    main()

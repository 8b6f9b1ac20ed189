"""Does an information term help? β x γ x learning rate x seed on nano's tasks, each task one population.

python benchmarks/grid.py [sentiment acceptability paraphrase entailment relation]      (default: all five)

64 shots, 30 epochs, 10 seeds; a seed draws rows, start, order and noise, so equal seeds are twins. Parts and histories
go to benchmarks/results/checkpoints_grid/ (resumed from there), the table that figures need to benchmarks/results/grid.json.
"""
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from infoprompt.sweeps import sweep
from infoprompt.training import write_whole

HERE = Path(__file__).resolve().parent
TASKS = "sentiment", "acceptability", "paraphrase", "entailment", "relation"
LISTS = dict(betas=(0., .1, 1.), gammas=(0., .05), lrs=(1e-3, 1e-2, 3e-2), seeds=range(10))


def curves(folder: Path) -> dict:
    "Run -> validation cross-entropy after each epoch."
    parts = sorted(folder.glob("part-*.json"), key=lambda p: int(p.stem.removeprefix("part-")))
    found, at = {}, 0
    for part in parts:
        history = pd.read_parquet(folder / part.stem / "history.parquet").query("quantity == 'val_loss'")
        for run, one in history.groupby("run"):
            found[at + run] = [float(f"{v:.4g}") for v in one.sort_values("epoch")["value"]]
        at += len(json.loads(part.read_text()))
    return found


def measured(task: str) -> list[dict]:
    "One row a run, with its curve."
    folder = HERE / "results/checkpoints_grid" / task
    table, _ = sweep(f"nano/{task}", out=folder, budget=1., **LISTS)
    keep = ["beta", "gamma", "lr", "seed", "val_accuracy", "val_loss", "epoch", "test_accuracy", "diverged"]
    rows = table[keep].round(4).to_dict("records")
    return [dict(task=task) | row | dict(curve=curve) for row, curve in zip(rows, curves(folder).values())]


if __name__ == "__main__":
    tasks = sys.argv[1:] or TASKS
    if unknown := set(tasks) - set(TASKS): sys.exit(f"{__doc__}\nunknown: {', '.join(unknown)}")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
    rows = [row for task in tasks for row in measured(task)]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True).stdout
    made = dict(command="python benchmarks/grid.py " + " ".join(tasks), commit=commit.strip(),
                versions={name: version(name) for name in ("infoprompt", "torch", "transformers")})
    write_whole({HERE / "results/grid.json": json.dumps(dict(made=made, rows=rows)).encode()})

"""Does an information term help? β x γ x learning rate x seed on nano's tasks, each task one population.

python benchmarks/grid.py [sentiment acceptability paraphrase entailment relation]      (default: all five)

64 shots, 30 epochs, 10 seeds; a seed draws rows, start, order and noise, so equal seeds are twins. Parts and histories
go to benchmarks/results/checkpoints_grid/ (resumed from there), every run's scores to
benchmarks/results/grid_TASK.json, and what `infoprompt.sweeps.fig_help` draws to infoprompt/assets/grid.json.
"""
import json
import sys
from pathlib import Path

import pandas as pd

from infoprompt.figures import as_list
from infoprompt.files import read_whole, write_whole
from infoprompt.sweeps import paired, sweep
from made import made, use_threads

HERE = Path(__file__).resolve().parent
TASKS = "sentiment", "acceptability", "paraphrase", "entailment", "relation"
SIZE = dict(shots=64, epochs=30, budget=1.)
LISTS = dict(betas=(0., .1, 1.), gammas=(0., .05), inits=("vocab",), lrs=(1e-3, 1e-2, 3e-2), seeds=range(10))


def curves(folder: Path) -> dict:
    "Run -> validation cross-entropy after each epoch."
    parts = sorted(folder.glob("part-*.json"), key=lambda p: int(p.stem.removeprefix("part-")))
    found, at = {}, 0
    for part in parts:
        history = pd.read_parquet(folder / part.stem / "history.parquet").query("quantity == 'val_loss'")
        for run, one in history.groupby("run"):
            found[at + run] = [float(f"{v:.4g}") for v in one.sort_values("epoch")["value"]]
        at += len(read_whole(part)[0])
    return found


def measured(task: str) -> pd.DataFrame:
    "One row a run, with its curve."
    folder = HERE / "results/checkpoints_grid" / task
    table, _ = sweep(f"nano/{task}", out=folder, **SIZE, **LISTS)
    keep = ["beta", "gamma", "lr", "seed", "val_accuracy", "val_loss", "epoch", "test_accuracy", "diverged"]
    return table[keep].round(4).assign(curve=pd.Series(curves(folder)))


def cells(task: str, table: pd.DataFrame) -> list[dict]:
    "One row a setting: validation cross-entropy by epoch, and the gain in test accuracy over the twin without terms."
    rows = []
    for lr, part in table.groupby("lr"):
        gain = paired(part, "test_accuracy", dict(beta=0., gamma=0.))
        for (beta, gamma), runs in part.groupby(["beta", "gamma"]):
            curve = pd.DataFrame(runs["curve"].tolist())
            rows.append(dict(task=task, lr=lr, beta=beta, gamma=gamma, runs=len(runs), mean=as_list(curve.mean()),
                             se=as_list(curve.sem()), test=as_list([runs["test_accuracy"].mean()])[0],
                             gain=as_list(gain.loc[(beta, gamma), ["mean", "low", "high"]])))
    return rows


def main():
    tasks = sys.argv[1:] or TASKS
    if unknown := set(tasks) - set(TASKS): sys.exit(f"{__doc__}\nunknown: {', '.join(unknown)}")
    use_threads()
    asset, origin = HERE.parent / "infoprompt/assets/grid.json", made()
    for task in tasks:
        table = measured(task)
        held = json.loads(asset.read_text())["rows"] if asset.is_file() else []
        held = [row for row in held if row["task"] != task] + cells(task, table)
        runs = table.drop(columns="curve").to_dict("records")
        write_whole({asset: json.dumps(dict(made=origin, rows=held)).encode(),
                     HERE / f"results/grid_{task}.json": json.dumps(dict(made=origin, runs=runs)).encode()})


if __name__ == "__main__":
    main()

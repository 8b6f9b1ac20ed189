"""Does the released code's Gaussian bottleneck help by itself? Runs with and without it, instruments on.

python benchmarks/gaussian_bottleneck.py [sentiment relation]      (default: both)

β 0 and 0.1, γ 0, learning rates 1e-2 and 3e-3, 64 shots, 30 epochs, 20 seeds; a seed draws rows, start, order and
noise, so equal seeds are twins. Writes one row a run to benchmarks/results/bottleneck.json.
"""
import json
import sys
from functools import partial
from pathlib import Path

import torch

from infoprompt.base.files import write_whole
from infoprompt.data.tasks import get_task, load_data
from infoprompt.method.encoders import Encoder
from infoprompt.engine.instruments import felt
from infoprompt.study.sweeps import Alone, plan, run_part
from made import made, use_threads

FILE = Path(__file__).resolve().parent / "results/bottleneck.json"
TASKS, SHOTS, EPOCHS = ("sentiment", "relation"), 64, 30
LISTS = dict(betas=(0., .1), gammas=(0.,), lrs=(1e-2, 3e-3), seeds=range(20))
READ = "kl", "grad_ce_prompt", "grad_l_rep_prompt", "grad_kl_prompt", "grad_ce_head", "share", "cosine"


@torch.no_grad()
def widths(model, rows) -> dict:
    "Standard deviations in the latent: of its noise, and of its means over rows."
    if not model.settings["bottleneck"]: return {}
    batch = {k: x[None] for k, x in model.collate_fn(model.rows(rows)).items()}
    params = {k: p[None] for k, p in model.trained().items()}
    state = model.answer(params, batch)["state"][0]
    sigma = (state @ params["bottleneck_sigma"][0].T).clamp(-2, 10).exp()
    return dict(sigma=sigma.mean().item(), spread=(state @ params["bottleneck_mu"][0].T).std(0).mean().item())


def instruments(model) -> dict:
    "Means over the run, and of the KL its first and last epoch."
    h = model.history[model.history["quantity"].isin(READ)]
    kl = h[h["quantity"] == "kl"]
    found = h.groupby("quantity")["value"].mean().drop("kl", errors="ignore").to_dict()
    ends = dict(first=kl["epoch"] <= 1, last=kl["epoch"] > kl["epoch"].max() - 1)
    return found | {f"kl_{name}": kl[at]["value"].mean() for name, at in ends.items() if len(kl)}


def measured(task: str) -> list[dict]:
    "One row a run."
    runs, load = plan(**LISTS) + plan(**LISTS, bottleneck=True), partial(load_data, task, SHOTS)
    models, rows = run_part(runs, Encoder("nano"), get_task(task), lambda seed: load(seed), Alone(torch.device("cpu")),
                            EPOCHS, 8, watch=felt, progress=False)
    digits = lambda v: float(f"{v:.4g}") if isinstance(v, float) else v
    return [{k: digits(v) for k, v in (dict(task=task, bottleneck=False) | row | instruments(m)
                                       | widths(m, load(row["seed"])["validation"])).items()}
            for m, row in zip(models, rows)]


def main():
    tasks = sys.argv[1:] or TASKS
    if unknown := set(tasks) - set(TASKS): sys.exit(f"{__doc__}\nunknown: {', '.join(unknown)}")
    use_threads()
    origin = made()
    for task in tasks:
        held = json.loads(FILE.read_text())["runs"] if FILE.is_file() else []
        held = [r for r in held if r["task"] != f"nano/{task}"] + measured(f"nano/{task}")
        write_whole({FILE: json.dumps(dict(made=origin, runs=held)).encode()})


if __name__ == "__main__":
    main()

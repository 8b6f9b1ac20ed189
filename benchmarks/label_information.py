"""Does z hold more about the label with the representation loss? A probe by epoch, with and without β.

python benchmarks/label_information.py [sentiment entailment relation]      (default: all three)

64 shots, 30 epochs, learning rate 1e-2, twenty seeds, no head loss; the probe reads 256 test rows after each epoch.
With `null` negatives a seed draws rows, order, start and noise; with `population` negatives (K = 9) all seeds share
rows and order. Every setting has twins with β = 0. Every run's first and last reading goes to
benchmarks/results/label_information.json, what `infoprompt.theory.estimates.fig_label` draws to
infoprompt/assets/label_information.json.
"""
import json
import math
import sys
from pathlib import Path

import numpy as np

from infoprompt.base.files import write_whole
from infoprompt.core import InfoPromptModel, load_data
from infoprompt.engine.population import Population, train_population
from infoprompt.method.encoders import Encoder
from infoprompt.show.figures import as_list
from infoprompt.show.weights import t_interval
from infoprompt.theory.estimates import label_information
from made import made, use_threads

HERE = Path(__file__).resolve().parent
TASKS = "sentiment", "entailment", "relation"
SEEDS, EPOCHS, LR, SHOTS, LOOKED = range(20), 30, 1e-2, 64, 256
SETTINGS = dict(null=(0., .1, 1.), population=(0., .1, 1.))


def measured(task: str, negatives: str, beta: float, encoder) -> np.ndarray:
    "Label information in nats, (seed, epoch)."
    drawn = [s if negatives == "null" else 0 for s in SEEDS]
    data = [load_data(f"nano/{task}", SHOTS, s) for s in sorted(set(drawn))]
    kind = dict(rep_negatives=negatives, k=9) if negatives == "population" else dict(rep_negatives=negatives)
    models = [InfoPromptModel(encoder, f"nano/{task}", seed=s, beta=beta, gamma=0, init="vocab", **kind) for s in SEEDS]
    split = lambda name: [d[name] for d in data]
    train_population(Population(models), split("train"), split("validation"), EPOCHS, [LR] * len(SEEDS), 8,
                     list(zip(drawn, SEEDS)), which=drawn, progress=False,
                     look=label_information(data[0]["test"].select(range(LOOKED))))
    note = lambda m: m.history.query("quantity == 'label_nats'").sort_values("epoch")["value"].to_numpy()
    return np.stack([note(m) for m in models])


def compared(nats: np.ndarray, plain: np.ndarray) -> dict:
    "Mean difference from the twins by epoch, and Student's 95 % interval of the last ones; (seed, epoch) each."
    _, low, high = t_interval((nats - plain)[:, -1])
    return dict(gain=as_list((nats - plain).mean(0)), low=float(f"{low:.4g}"), high=float(f"{high:.4g}"))


def entropy(task: str) -> float:
    "H(Y) of the rows that are looked at, in nats."
    rows = load_data(f"nano/{task}", SHOTS, 0)["test"].select(range(LOOKED))
    share = np.bincount([row["label"] for row in rows]) / LOOKED
    return -sum(p * math.log(p) for p in share if p)


def settings(task: str, encoder) -> tuple[list, list]:
    "What is drawn, one row a setting, and every run's readings."
    drawn, runs = [], []
    for negatives, betas in SETTINGS.items():
        found = {beta: measured(task, negatives, beta, encoder) for beta in betas}
        for beta, nats in found.items():
            names = dict(task=task, negatives=negatives, beta=beta)
            drawn.append(names | dict(entropy=round(entropy(task), 4), mean=as_list(nats.mean(0)),
                                      se=as_list(nats.std(0, ddof=1) / len(nats)**.5)) | compared(nats, found[0.]))
            runs += [names | dict(seed=s, first=float(f"{r[0]:.4g}"), last=float(f"{r[-1]:.4g}"))
                     for s, r in zip(SEEDS, nats)]
            print(task, negatives, beta, nats.mean(0)[::10].round(3), flush=True)
    return drawn, runs


def main():
    tasks = sys.argv[1:] or TASKS
    if unknown := set(tasks) - set(TASKS): sys.exit(f"{__doc__}\nunknown: {', '.join(unknown)}")
    use_threads()
    files = dict(rows=HERE.parent / "infoprompt/assets/label_information.json",
                 runs=HERE / "results/label_information.json")
    origin = made()
    for task in tasks:
        for (key, file), new in zip(files.items(), settings(task, Encoder("nano"))):
            held = json.loads(file.read_text())[key] if file.is_file() else []
            kept = [row for row in held if row["task"] != task] + new
            write_whole({file: json.dumps({"made": origin, key: kept}).encode()})


if __name__ == "__main__":
    main()

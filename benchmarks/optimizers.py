"""What the optimiser makes of a small gradient: twins with and without the information terms, AdamW and plain descent.

python benchmarks/optimizers.py

nano/sentiment, 64 shots, 10 epochs, 20 seeds of start and noise, one draw and order of the rows. AdamW at 1e-2;
gradient descent at three rates, of which the reader takes the one with the lowest validation loss without terms. Writes
one row a run to benchmarks/results/optimizers.json.
"""
import json
from pathlib import Path

import torch

from infoprompt.base.files import write_whole
from infoprompt.core import InfoPromptModel, load_data
from infoprompt.engine.population import Population, train_population
from infoprompt.method.encoders import Encoder
from infoprompt.engine.instruments import beside, felt
from made import made, use_threads

FILE, TASK, SEEDS = Path(__file__).resolve().parent / "results/optimizers.json", "nano/sentiment", range(20)
TERMS = {"none": dict(beta=0., gamma=0.), "published": dict(beta=.1, gamma=.05), "L_rep": dict(beta=.1, gamma=0.),
         "L_head": dict(beta=0., gamma=.05), "a thousandth": dict(beta=1e-4, gamma=5e-5)}
RATES, EPOCHS = [("adamw", .01), *(("sgd", lr) for lr in (.1, 1., 10.))], 10
MEANS, ENDS = ("share", "cosine"), ("apart", "along", "val_loss", "val_accuracy")


def measured(optimizer: str, lr: float, encoder, data) -> list[dict]:
    "One row a run."
    runs = [(name, seed) for name in TERMS for seed in SEEDS]
    models = [InfoPromptModel(encoder, TASK, init="vocab", seed=seed, **TERMS[name]) for name, seed in runs]
    twins = torch.tensor([runs.index(("none", seed)) for _, seed in runs])
    train_population(Population(models), data["train"], data["validation"], EPOCHS, [lr] * len(runs), 8,
                     [(0, seed) for _, seed in runs], progress=False, watch=felt, look=beside(twins),
                     optimizer=optimizer)
    rows = []
    for (name, seed), model in zip(runs, models):
        of = model.history.groupby("quantity")["value"]
        numbers = dict(of.mean().reindex(MEANS).dropna()) | dict(of.last().reindex(ENDS).dropna())
        rows.append(dict(optimizer=optimizer, lr=lr, terms=name, seed=seed)
                    | {k: float(f"{v:.4g}") for k, v in numbers.items()})
    return rows


def main():
    use_threads()
    encoder, data = Encoder("nano"), load_data(TASK, shots=64, seed=0)
    origin = made()
    runs = [row for optimizer, lr in RATES for row in measured(optimizer, lr, encoder, data)]
    write_whole({FILE: json.dumps(dict(made=origin, runs=runs)).encode()})


if __name__ == "__main__":
    main()

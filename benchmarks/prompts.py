"""What the page that trains needs of Python: rows, their order and noise, and four trained prompts for each task.

python benchmarks/prompts.py

Writes infoprompt/assets/playground.json: for five tasks and seeds 0 to 4 the rows that `load_data(task, 64, seed)`
gives, the seed of the informed start, the order of the rows in each epoch, and the seeds of each step's noise. With
these the page trains as Python does.

Writes infoprompt/assets/prompts.json: prompts that a reader can ask, chosen among the stored runs from the start
"vocab" at the learning rate 1e-2 (infoprompt/assets/weights_TASK_0.01.parquet) and trained anew, each by itself:

stuck      plain prompt tuning (beta = gamma = 0), the first seed that is stuck; where none is, the one with the lowest
           test score
plain      plain prompt tuning, the first seed that is not stuck
untrained  the start of that seed
beta       that seed with beta = 1
published  that seed with the published weights, beta = 0.1 and gamma = 0.05

The sentence that they are all asked first is the first test row that the stuck prompt gets wrong, or, where it gets
none wrong, the untrained one.
"""
import json
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from infoprompt.base.files import write_whole
from infoprompt.core import InfoPromptModel, load_data, majority
from infoprompt.data.tasks import get_task
from infoprompt.engine.feeds import Rows
from infoprompt.engine.population import Population
from infoprompt.method.encoders import Encoder
from infoprompt.method.starts import inform
from infoprompt.show.playground import packed_rows
from infoprompt.show.weights import TASKS, is_stuck, stored_weights
from infoprompt.study.live import carried, laid_out
from infoprompt.study.sweeps import Alone, plan, run_part
from made import made

ASSETS = Path(__file__).resolve().parent.parent / "infoprompt/assets"
SEEDS, SHOTS, EPOCHS, BATCH, RATE, TEST = range(5), 64, 30, 8, .01, 200
WEIGHTS = dict(stuck=(0., 0.), plain=(0., 0.), beta=(1., 0.), published=(.1, .05))


def state(*seeds, name: str) -> int:
    "The seed that `settings.named_source` gives a stream of that name."
    return int(np.random.SeedSequence([*seeds, zlib.crc32(name.encode())]).generate_state(1)[0])


def noise() -> dict:
    "Orders of rows and of batches, and seeds of each step's noise: the same for every task."
    steps, order = SHOTS // BATCH, lambda *seeds, n: np.random.default_rng(seeds).permutation(n).tolist()
    streams = lambda name: [[[state(s, e, i, name=name) for i in range(steps)] for e in range(EPOCHS)] for s in SEEDS]
    return dict(rows=[[order(s, e, n=SHOTS) for e in range(EPOCHS)] for s in SEEDS],
                batches=[order(e, 0, n=steps) for e in range(EPOCHS)],
                head=streams("head"), rep=streams("rep"), critic=[state(s, name="rep_critic") for s in SEEDS])


def informed(task: str, seed: int, train, encoder: Encoder) -> int:
    "The seed whose words the start called informed takes."
    model = InfoPromptModel(encoder, f"nano/{task}", init="informed", seed=seed)
    shares = inform(model, Rows(Population([model]), train, losses=False).of[0].rows)
    first = 2_000_000 + 1000 * seed
    return [seed, *range(first, first + len(shares) - 1)][int(shares.argmax())]


def rows_of(task: str, encoder: Encoder) -> dict:
    "The rows of a task: each once, and which of them a seed trains and judges on."
    whole, found = get_task(f"nano/{task}"), {}
    each = [load_data(whole, SHOTS, seed) for seed in SEEDS]
    place = lambda row: found.setdefault(tuple(row[c] for c in (*whole.columns, "label")), len(found))
    splits = {split: [[place(row) for row in data[split]] for data in each] for split in ("train", "validation")}
    test = [place(row) for row in each[0]["test"].select(range(TEST))]
    return dict(labels=whole.verbalizer, template=whole.template, **splits, test=test, columns=whole.columns,
                majority=[majority(whole, d["validation"]["label"])["accuracy"] for d in each],
                informed=[informed(task, s, d["train"], encoder) for s, d in zip(SEEDS, each)],
                rows=packed_rows([" / ".join(row[:-1]) for row in found]),
                classes="".join(str(row[-1]) for row in found))


def chosen(task: str) -> dict:
    "Name -> seed of the prompts of a task."
    runs = stored_weights(task, RATE).query("beta == 0 and gamma == 0 and init == 'vocab'").sort_values("seed")
    stuck = runs["seed"][is_stuck(runs)].tolist()
    plain = next(seed for seed in runs["seed"].tolist() if seed not in stuck)
    worst = runs.sort_values(["test", "seed"])["seed"].iloc[0]
    return dict(stuck=int(stuck[0] if stuck else worst), plain=plain, beta=plain, published=plain)


def trained(task: str, name: str, seed: int, encoder: Encoder) -> tuple:
    "A prompt of a task, and its test score."
    beta, gamma = WEIGHTS[name]
    runs = plan(betas=(beta,), gammas=(gamma,), inits=("vocab",), lrs=(RATE,), seeds=(seed,))
    whole = get_task(f"nano/{task}")
    (model,), (row,) = run_part(runs, encoder, whole, lambda s: load_data(whole, SHOTS, s), Alone(torch.device("cpu")),
                                EPOCHS, BATCH, progress=False)
    return model, row["test_accuracy"]


def first_wrong(test, *models) -> dict:
    "The first test row that the first of some models gets wrong, or else the next of them."
    for model in models:
        for row, said in zip(test, model.predict([{k: v for k, v in r.items() if k != "label"} for r in test])):
            if model.labels.index(said) != row["label"]: return {k: v for k, v in row.items() if k != "idx"}


def prompts_of(task: str, encoder: Encoder) -> dict:
    "The prompts of a task, and what they make of one sentence."
    seeds, test = chosen(task), load_data(f"nano/{task}", SHOTS, 0)["test"]
    start = InfoPromptModel(encoder, f"nano/{task}", init="vocab", seed=seeds["plain"])
    found = dict(untrained=(start, start.evaluate(test)["accuracy"]))
    found |= {name: trained(task, name, seed, encoder) for name, seed in seeds.items()}
    asked = first_wrong([*test], found["stuck"][0], start)
    told = lambda name, model, score: dict(seed=seeds.get(name, seeds["plain"]), test=round(score, 3),
                                           **carried(model, asked))
    return dict(asked=asked, places=laid_out(start, asked), prompts={k: told(k, *pair) for k, pair in found.items()})


def main():
    if sys.argv[1:]: sys.exit(__doc__)
    encoder, about = Encoder("nano"), made()
    write = lambda name, **facts: write_whole({ASSETS/name: json.dumps(dict(made=about) | facts).encode()})
    write("playground.json", noise=noise(), tasks={task: rows_of(task, encoder) for task in TASKS})
    write("prompts.json", rate=RATE, weights=WEIGHTS,
          tasks={task: prompts_of(task, encoder) for task in tqdm(TASKS)})


if __name__ == "__main__":
    main()

"""Ten runs for the figure of a training run: five seeds, with the published information terms and without.

python benchmarks/training_run.py

Writes infoprompt/assets/training_run.json, which `infoprompt.show.figures.fig_run` draws.
"""
import json
import sys
from pathlib import Path

from tqdm.auto import tqdm

from infoprompt.base.files import write_whole
from infoprompt.core import InfoPromptModel, load_data, majority
from infoprompt.show.figures import as_list, curves
from made import made

ROOT = Path(__file__).resolve().parent.parent
SEEDS, SHOTS, EPOCHS = range(5), 64, 30
TERMS = dict(published=dict(beta=.1, gamma=.05), none=dict(beta=0, gamma=0))


def run(seed: int, terms: str) -> dict:
    "Curves and lines of one default training with one seed for data, start and order."
    data = load_data("nano/sentiment", shots=SHOTS, seed=seed)
    model = InfoPromptModel("nano", task="nano/sentiment", init="vocab", seed=seed, **TERMS[terms])
    history = model.fit(data["train"], data["validation"], EPOCHS, seed=seed, progress=False)
    found = {q: dict(epoch=as_list(c["epoch"]), value=as_list(c["mean"])) for q, c in curves(history).items()}
    return dict(seed=seed, terms=terms, curves=found, untrained=found["val_accuracy"]["value"][0],
                majority=majority(model.task, data["validation"]["label"])["accuracy"])


def main():
    if sys.argv[1:]: sys.exit(__doc__)
    runs = [run(seed, terms) for terms in TERMS for seed in tqdm(SEEDS, desc=terms)]
    write_whole({ROOT/"infoprompt/assets/training_run.json": json.dumps(dict(made=made(), runs=runs)).encode()})


if __name__ == "__main__":
    main()

"""Informed starts beside rivals that cost as much, or less.

python benchmarks/starts.py [--encoder nano] [--again] [--arms "[MASK]" halving ...] [--tasks sentiment ...]

Five tasks of nano, 64 rows, batches of 8, plain prompt tuning at 0.01, twenty seeds. A seed draws rows, order and
noise, so that all arms of a seed are twins of each other, and of the runs that benchmarks/grid.py stores for 0.01.
See `ARMS` for what is tried. The price of an arm is counted in epochs of 64 rows; a forward pass of a row costs as much
as its backward pass.

With `--encoder control`, the same on the encoder of benchmarks/control.py, which was never asked the tasks' questions.
On it, arms are left out whose candidates or sources rest on nano: see `LEFT_OUT`.

With `--again`, four arms on nano with twenty seeds that no choice has seen: what the first twenty suggested is asked
once more. Plain prompt tuning trains at both rates here, so that it can have the one that validation chose before.

Writes benchmarks/results/starts.parquet, starts_control.parquet or starts_again.parquet, twenty runs at a time; what is
there is not run again.
"""
import argparse
from functools import cache
from io import BytesIO
from pathlib import Path

import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from infoprompt.base.files import read_whole, write_whole
from infoprompt.core import InfoPromptModel, load_data
from infoprompt.data.tasks import get_task
from infoprompt.method.encoders import Encoder
from infoprompt.method.starts import candidates, evenly, explained
from infoprompt.nano.grammar import CUES, QUESTIONS
from infoprompt.show.figures import ASSETS
from infoprompt.study.experiments import probe
from infoprompt.study.questions import NANO, noted, short
from infoprompt.study.sweeps import Alone, plan, run_part
from control import FOLDER, known
from made import made, use_threads

HERE = Path(__file__).resolve().parent
SEEDS, SHOTS, EPOCHS = range(20), 64, 30
ARMS = {  # where a run starts, its price before the first epoch, and its epochs, if they are fewer than EPOCHS
    "random words": dict(start="own"), "label words": dict(start="label"), "informed": dict(start="informed", price=4.),
    "probe head": dict(start="own", price=.5, head_init="probe"),  # beside the label words as head, of all other arms
    "halving": dict(start="halving", price=2.),  # 16 candidates on 8 rows, 8 of them on 16, 4 on 32
    "eight rows": dict(start="quick", price=1.),  # 16 candidates on 8 rows
    "no question words": dict(start="silent", price=4.),  # those without a word of the task's questions, on 32 rows
    "lowest cross-entropy": dict(start="lowest", price=4.),  # of the candidates of `informed`, with label words as head
    "first of two": dict(start="own", epochs=17), "second of two": dict(start="other", epochs=17),  # together 34 epochs
    "[MASK]": dict(start="mask"),  # as WARP does
    "probe": None,  # a logistic regression on the un-prompted states of the same rows: what no prompt is needed for
    "random words at 0.001": dict(start="own", lr=1e-3),  # beside 0.01 of all other arms
    "source prompt": dict(start="source", price=4.25)}  # of the seventeen prompts of benchmarks/transfer.py, on 32 rows
AGAIN = "random words", "random words at 0.001", "halving", "[MASK]"
LEFT_OUT = dict(nano=("random words", "random words at 0.001", "label words", "informed", "probe head"),  # in the grid
                control=("random words at 0.001", "eight rows", "no question words", "source prompt", "probe"))


def halved(states, labels) -> int:
    "All candidates on eight rows, the better half on sixteen, half of those on 32, and the best of these."
    left = range(len(states))
    for size in 8, 16, 32:
        shares = dict(zip(left, explained(states[list(left), :size], labels[:size]).tolist()))
        left = sorted(left, key=shares.get, reverse=True)[:len(left) // 2]
    return left[0]


def silent(prompts, task: str, encoder: Encoder) -> torch.Tensor:
    "Which prompts hold no word of the questions by which nano was asked for a task's answers in its pretraining."
    name = short(task)
    words = {*CUES[name], *(word for question in QUESTIONS[name] for word in question)} - {"_"}
    asking = encoder.words[encoder.tokenizer.convert_tokens_to_ids(sorted(words))]
    return ~(prompts[:, :, None] == asking).all(-1).flatten(1).any(1)


@cache
def sources() -> torch.Tensor:
    "Prompts that nano has for the seventeen tasks of its family, (task, seed, vector, d)."
    return torch.stack([p.float() for p in read_whole(ASSETS / "transfer_prompts.safetensors")[1].values()])


@torch.no_grad()
def travelled(model, rows, seed: int) -> torch.Tensor:
    "The source of a seed whose states say most about the labels of 32 rows; of `informed`'s own rows."
    batch = {k: x[None] for k, x in model.collate_fn(evenly(rows)[:32]).items()}
    params = {k: p[None] for k, p in model.trained().items()}
    states = torch.stack([model.answer(params | dict(prompt=own[None]), batch)["z"][0] for own in sources()[:, seed]])
    return sources()[explained(states, batch["labels"][0]).argmax(), seed]


@cache
def starts(task: str, seed: int, encoder: Encoder) -> dict:
    "Where each arm's prompt starts."
    model = InfoPromptModel(encoder, task, init="informed", beta=0., gamma=0., seed=seed)
    rows = model.rows(load_data(task, SHOTS, seed)["train"])
    prompts, states, labels = candidates(model, rows)
    with torch.no_grad(): answers = states @ model.head.T + model.label_bias
    loss = torch.stack([cross_entropy(own, labels) for own in answers])
    best = lambda size: int(explained(states[:, :size], labels[:size]).argmax())
    shares = explained(states, labels).masked_fill(~silent(prompts, task, encoder), -torch.inf)
    chosen = dict(own=0, other=1, informed=best(32), quick=best(8), halving=halved(states, labels),
                  silent=int(shares.argmax()), lowest=int(loss.argmin()))
    found = {name: prompts[i] for name, i in chosen.items()}
    there = encoder.name == "nano" and seed < sources().shape[1]
    return found | (dict(source=travelled(model, rows, seed)) if there else {})


class Begun(InfoPromptModel):
    "A model that starts at one of `starts`."
    def __init__(self, encoder, task, start: str, **settings):
        super().__init__(encoder, task, **settings | dict(init=start if start in ("mask", "label") else "vocab"))
        if start in ("mask", "label"): return
        self.prompt.data.copy_(starts(self.task.name, settings["seed"], encoder)[start])
        self.wait()  # for the rows of a probe head, if there is to be one


def piece(task: str, arm: str, encoder: Encoder, seeds=None) -> pd.DataFrame:
    "All seeds of an arm on one task."
    seeds = SEEDS if seeds is None else seeds
    if arm == "probe":
        found = [probe(load_data(task, SHOTS, seed), get_task(task), encoder)["test"]["accuracy"] for seed in seeds]
        return pd.DataFrame(dict(task=task, arm=arm, seed=seeds, test_accuracy=found))
    own = dict(epochs=EPOCHS, price=0., head_init="label", lr=1e-2) | ARMS[arm]
    runs = plan(betas=(0.,), gammas=(0.,), lrs=(own["lr"],), seeds=seeds, start=own["start"],
                head_init=own["head_init"])
    models, rows = run_part(runs, encoder, get_task(task), lambda seed: load_data(task, SHOTS, seed),
                            Alone(torch.device("cpu")), min(own["epochs"], EPOCHS), 8, make=Begun, progress=False)
    return pd.DataFrame([noted(m, r) for m, r in zip(models, rows)]).assign(task=task, arm=arm, price=own["price"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", choices=list(LEFT_OUT), default="nano")
    parser.add_argument("--again", action="store_true", help="four arms with twenty other seeds, on nano")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), metavar="ARM")
    parser.add_argument("--tasks", nargs="+", choices=NANO, default=NANO)
    options = parser.parse_args()
    if options.again and options.encoder != "nano": parser.error("--again is of nano")
    use_threads()
    what = "again" if options.again else options.encoder
    seeds = range(len(SEEDS), 2 * len(SEEDS)) if options.again else SEEDS
    name = "starts.parquet" if what == "nano" else f"starts_{what}.parquet"
    encoder = Encoder("nano" if options.encoder == "nano" else FOLDER)
    arms = options.arms or (AGAIN if options.again else [arm for arm in ARMS if arm not in LEFT_OUT[options.encoder]])
    bar = tqdm(total=len(arms) * len(options.tasks), unit="piece")
    for task in map("nano/{}".format, options.tasks):
        for arm in arms:
            bar.set_description(f"{arm} {task}")
            file = HERE / "results" / name
            held = pd.read_parquet(file) if file.is_file() else pd.DataFrame(dict(task=[], arm=[]))
            if not ((held["task"] == task) & (held["arm"] == arm)).any():
                about = made() | ({} if options.encoder == "nano" else
                                  dict(known(), encoder=encoder.fingerprint["weights"]))
                found = piece(task, arm, encoder, seeds).assign(commit=about["commit"])
                table = pd.concat([held, found], ignore_index=True)
                table.attrs = about
                table.to_parquet(buffer := BytesIO(), compression="zstd", index=False)
                write_whole({file: buffer.getvalue()})
            bar.update()


if __name__ == "__main__":
    main()

"""Prompts that travel: seventeen sources of nano's family on every target, as they are and as starts.

python benchmarks/transfer.py [--tasks topic tense-fact ...] [--targets topic ...] [--seeds 20]

64 rows, 6 epochs, learning rate 0.02, the head fixed at the label words; a seed draws rows, start, order and noise, so
equal seeds are twins. Every source is trained plainly, then with the information terms (beta 0.1, gamma 0.05). Every
prompt answers 64 test rows of every target, and on some targets plain training starts from a source of the same type,
from one of another type (both drawn by the seed), and from the one whose states say most about the target's 64 rows.
About ten minutes of one core. Writes, in infoprompt/assets/:

transfer_real.parquet         numbers made from the real prompts in ../shared/data/prompt_transferability, where it is
transfer_prompts.safetensors  the plain sources, in half precision
transfer_matrix.parquet       zero-shot scores, and the two indicators that need the encoder
transfer_starts.parquet       validation curves and test scores of the training runs

What is done waits in benchmarks/results/checkpoints_transfer/ and is not done again.
"""
import argparse
import random
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from tqdm.auto import tqdm

from infoprompt.base.files import packed, parquet, read_whole, write_whole
from infoprompt.core import InfoPromptModel, load_data
from infoprompt.engine.population import Population, train_population
from infoprompt.method.encoders import Encoder
from infoprompt.method.prompts import start_prompt
from infoprompt.nano.family import FAMILY
from infoprompt.study.sweeps import Alone
from infoprompt.study.transfer import KINDS, neurons, similarity, told, zero_shot
from made import made, use_threads

ROOT = Path(__file__).resolve().parent.parent
TERMS = dict(plain=(0., 0.), terms=(.1, .05))
SEEDS, EPOCHS, LR, SHOTS, JUDGED, LENGTH = 20, 6, .02, 64, 64, 4
TARGETS = "topic", "fault-number", "entailment-made", "sentiment-food", "paraphrase-nature", "relation-place"
MODELS = dict(roberta_base="RoBERTa-base", roberta_large="RoBERTa-large", t5_small="T5-small")


def rows(task: str, seed: int): return load_data(f"nano/{task}", SHOTS, seed)


def judged_rows(task: str): return rows(task, 0)["test"].select(range(JUDGED))


def trained(task: str, seeds: list[int], encoder: Encoder, terms: str = "plain", starts=None) -> dict:
    "prompt (run, 4, 64) and curve (run, epoch: cross-entropy on validation) of runs from given prompts, or informed."
    models, (beta, gamma) = [], TERMS[terms]
    for i, seed in enumerate(seeds):
        models.append(InfoPromptModel(encoder, f"nano/{task}", n_prompt=LENGTH, beta=beta, gamma=gamma, seed=seed,
                                      head="fixed", init="informed" if starts is None else "zero"))
        if starts is not None: models[-1].prompt.data.copy_(starts[i])
    order = sorted(set(seeds))
    data, which = [rows(task, s) for s in order], [order.index(s) for s in seeds]
    train_population(Population(models), [d["train"] for d in data], [d["validation"] for d in data], EPOCHS,
                     [LR] * len(models), 8, [(s, s) for s in seeds], which=which, progress=False,
                     accelerator=Alone(torch.device("cpu")))
    curve = lambda m: m.history.query("quantity == 'val_loss'").sort_values("step")["value"].to_numpy()
    return dict(prompt=torch.stack([m.prompt.detach() for m in models]),
                curve=torch.tensor(np.stack([curve(m) for m in models])))


def on_target(target: str, prompts: dict, encoder: Encoder) -> dict:
    "score (seed, source) without training, untrained (seed,), and labels (seed, source): what the states say of them."
    whole = torch.stack([*prompts.values()], 1)
    blank = torch.stack([start_prompt("vocab", LENGTH, encoder, seed=s) for s in range(len(whole))])
    every = torch.cat([whole.flatten(0, 1), blank])
    found = torch.tensor(zero_shot(every, f"nano/{target}", judged_rows(target), encoder))
    labels = [told(one, f"nano/{target}", rows(target, s)["train"], encoder) for s, one in enumerate(whole)]
    return dict(score=found[:-len(whole)].reshape(len(whole), -1), untrained=found[-len(whole):],
                labels=torch.stack(labels))


def chosen(target: str, tasks: list[str], labels) -> dict:
    "Which source each seed starts from: one of the same type, one of another, and the one that the indicator likes."
    others = [t for t in tasks if t != target]
    same = [t for t in others if FAMILY[t]["type"] == FAMILY[target]["type"]] or others
    away = [t for t in others if t not in same] or others
    drawn = lambda pool: [random.Random(f"{target} {s}").choice(pool) for s in range(len(labels))]
    best = lambda values: max(others, key=lambda t: values[tasks.index(t)])
    return {"same type": drawn(same), "other type": drawn(away), "labels": [best(values.tolist()) for values in labels]}


def started(target: str, prompts: dict, labels, encoder: Encoder) -> dict:
    "Plain training on a target from the chosen sources: score (start, seed), curve (start, seed, epoch)."
    picks, seeds = chosen(target, list(prompts), labels), list(range(len(labels)))
    starts = [prompts[t][s] for names in picks.values() for s, t in zip(seeds, names)]
    found = trained(target, seeds * len(picks), encoder, starts=starts)
    score = torch.tensor(zero_shot(found["prompt"], f"nano/{target}", judged_rows(target), encoder))
    return dict(score=score.reshape(len(picks), -1), curve=found["curve"].unflatten(0, (len(picks), -1)).contiguous())


def real(folder: Path) -> pd.DataFrame:
    "Similarities and stored scores of the real prompts, one row a source and target."
    tables = []
    for file, name in MODELS.items():
        scores = pd.read_csv(folder / f"{file}_scores.csv")[["source", "target", "score"]]
        found = similarity(load_file(folder / f"{file}.safetensors"), [k for k in KINDS if k not in ("on", "labels")])
        wide = found.pivot(index=["source", "target"], columns="kind", values="value").reset_index()
        tables.append(scores.merge(wide).assign(model=name))
    return pd.concat(tables, ignore_index=True)


def matrix(found: dict, prompts: dict, encoder: Encoder) -> pd.DataFrame:
    "One row a prompt and target: seed, source, target, score, labels, and on, the likeness to the target's own prompt."
    tasks, lines = list(prompts), []
    on = torch.stack([torch.stack([neurons(one, encoder) for one in prompts[t]]) for t in tasks], 1).float()
    on = torch.nn.functional.normalize(on, dim=-1) @ torch.nn.functional.normalize(on, dim=-1).mT
    for i, (target, one) in enumerate(found.items()):
        for s, untrained in enumerate(one["untrained"].tolist()):
            lines += [dict(seed=s, source="untrained", target=target, score=untrained),
                      *(dict(seed=s, source=name, target=target, score=one["score"][s, j].item(),
                             labels=one["labels"][s, j].item(), on=on[s, j, i].item()) for j, name in enumerate(tasks))]
    return pd.DataFrame(lines).astype(dict(score="float32", labels="float32", on="float32", seed="int8"))


def runs(target: str, own: dict, found: dict, one: dict, tasks: list[str]) -> pd.DataFrame:
    "One row a training run on a target: start, source, seed, score, curve; the usual start is the target's own run."
    pick = tasks.index(target)
    table = [dict(start="usual", source="", seed=s, score=found["score"][s, pick].item(), curve=own["curve"][s])
             for s in range(len(found["score"]))]
    for i, (start, names) in enumerate(chosen(target, tasks, found["labels"]).items()):
        table += [dict(start=start, source=name, seed=s, score=one["score"][i, s].item(), curve=one["curve"][i, s])
                  for s, name in enumerate(names)]
    for row in table: row["curve"] = np.round(row["curve"].numpy().astype("float32"), 4)
    return pd.DataFrame(table).assign(target=target).astype(dict(score="float32", seed="int8"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=list(FAMILY), default=list(FAMILY), help="sources (default: all)")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS, help="targets to train on, in order")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args()
    use_threads()
    waiting, assets = ROOT / "benchmarks/results/checkpoints_transfer", ROOT / "infoprompt/assets"
    waiting.mkdir(parents=True, exist_ok=True)
    encoder, tasks, targets = Encoder("nano"), options.tasks, [t for t in options.targets if t in options.tasks]
    about = lambda: made() | dict(seeds=options.seeds, epochs=EPOCHS, lr=LR, shots=SHOTS, judged=JUDGED)

    def stored(name: str, make, *more) -> dict:
        file = waiting / f"{name}.safetensors"
        if not file.is_file(): write_whole({file: packed(dict(made=about()), make(*more))})
        bar.update()
        return read_whole(file)[1]

    def write(name: str, table: pd.DataFrame):
        table.attrs = about()
        write_whole({assets / f"transfer_{name}.parquet": parquet(table)})

    bar = tqdm(total=len(TERMS) * (2 * len(tasks) + len(targets)), unit="piece")
    folder = ROOT.parent / "shared/data/prompt_transferability"
    if folder.is_dir(): write("real", real(folder))
    matrices, starts, seeds, plain = [], [], list(range(options.seeds)), {}
    for terms in TERMS:
        sources = {t: stored(f"source_{t}_{terms}", trained, t, seeds, encoder, terms) for t in tasks}
        plain, prompts = plain or sources, {t: one["prompt"] for t, one in sources.items()}
        if terms == "plain":
            losses = {t: one["curve"][:, 1:].amin(1).tolist() for t, one in sources.items()}
            write_whole({assets / "transfer_prompts.safetensors": packed(
                dict(made=about(), val_loss=losses), {t: p.half() for t, p in prompts.items()})})
        found = {t: stored(f"target_{t}_{terms}", on_target, t, prompts, encoder) for t in tasks}
        matrices.append(matrix(found, prompts, encoder).assign(terms=terms))
        write("matrix", pd.concat(matrices, ignore_index=True))
        first = found if terms == "plain" else first
        for t in targets:
            one = stored(f"start_{t}_{terms}", started, t, prompts, found[t]["labels"], encoder)
            starts.append(runs(t, plain[t], first[t], one, tasks).assign(terms=terms))
            write("starts", pd.concat(starts, ignore_index=True))


if __name__ == "__main__":
    main()

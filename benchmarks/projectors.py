"""From one encoder to the other: prompts of nano's family carried to nano-wide, with training and without.

python benchmarks/projectors.py [--tasks topic tense-fact ...] [--seeds 20]

nano's prompts are those of `transfer.py`. nano-wide's own are trained in the same way, at the rate that is best on
validation rows of other seeds. Projectors learn from some of the tasks. `same type`: every type gives up one task, in
turn, so a task that is carried has others of its type among those that were learned from. `other type`: one type is
left out as a whole. Each of the two shapes is trained by distance and by task, at a learning rate that is chosen once,
on prompts that were held back from the first split; a projector of each seed of PROJECTORS carries its share of the
seeds. Beside them: anchor words, an untrained projector, the target's own prompt, random words, and the own prompts of
other tasks. As controls, random words of nano and prompts of other types are carried where the task was trained on.
Writes, in infoprompt/assets/:

carried.parquet              test scores of every prompt that was carried, and of what stands beside
carried_prompts.safetensors  nano-wide's own prompts, in half precision
carried_answers.json         what a few texts are answered, before and after

What is done waits in benchmarks/results/checkpoints_projectors/ and is not done again.
"""
import argparse
import json
import random

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from infoprompt.base.files import packed, parquet, read_whole, write_whole
from infoprompt.core import majority
from infoprompt.data.tasks import get_task
from infoprompt.engine.anchors import anchor_projector
from infoprompt.engine.projectors import fit_projector, new_projector
from infoprompt.method.encoders import Encoder
from infoprompt.method.prompts import start_prompt
from infoprompt.nano.family import FAMILY
from infoprompt.study.transfer import answers_to, zero_shot
from made import made, use_threads
from transfer import EPOCHS, LENGTH, RATES, ROOT, SEEDS, TARGETS, judged_rows, rated, rows, trained

WAYS = [(by, shape) for by in ("task", "distance") for shape in ("flat", "vector")]
FIT = dict(task=10, distance=40)  # epochs; the released code's 40 by the task would cost four times as much
PROJECTORS, PROJECTOR_RATES, TEXTS = 2, (1e-3, 2e-3, 5e-3), 2
SHOWN = TARGETS[:4]  # on which the rate of prompts is judged, and whose answers are drawn


def type_of(task: str) -> str: return FAMILY[task]["type"]


def splits(tasks: list[str]) -> list[tuple]:
    "(kind, tasks that are left out): one of each type in turn, then each type as a whole."
    of = {k: [t for t in tasks if type_of(t) == k] for k in dict.fromkeys(map(type_of, tasks))}
    turns = [[own[i] for own in of.values() if len(own) > max(i, 1)] for i in range(max(map(len, of.values())))]
    return [("same type", out) for out in turns if out] + [("other type", out) for out in of.values() if len(of) > 1]


def blanks(encoder: Encoder, seeds: int):
    "Random words, a prompt a seed."
    return torch.stack([start_prompt("vocab", LENGTH, encoder, seed=s) for s in range(seeds)])


def strangers(target: str, prompts: dict):
    "A prompt of another type for each seed, drawn by the seed."
    away = [t for t in prompts if type_of(t) != type_of(target)]
    return torch.stack([prompts[random.Random(f"{target} {s}").choice(away)][s] for s in range(len(prompts[target]))])


def own_prompts(task: str, seeds: int, lr: float, encoder: Encoder) -> dict:
    "Plain training on the target encoder."
    return trained(f"nano/{task}", list(range(seeds)), encoder, lrs=[lr] * seeds)


def beside(target: str, own: dict, encoder: Encoder) -> dict:
    "score (seed, prompt): the own prompt, random words, and the own prompts of other tasks of the type."
    others = [p for t, p in own.items() if t != target and type_of(t) == type_of(target)]
    whole = torch.stack([own[target], blanks(encoder, len(own[target])), *others], 1)
    found = zero_shot(whole.flatten(0, 1), f"nano/{target}", judged_rows(target), encoder)
    return dict(score=torch.tensor(found).reshape(whole.shape[:2]))


def fitted(by: str, shape: str, left_out: list[str], source: dict, own: dict, encoders, lrs, seed: int):
    "A projector that has learned from all other tasks."
    names = [t for t in source if t not in left_out]
    named = lambda prompts: {f"nano/{t}": prompts[t] for t in names}
    more = (dict(data={f"nano/{t}": rows(t, 0) for t in names}) if by == "task" else dict(ends=named(own)))
    return fit_projector(named(source), *encoders, by=by, shape=shape, lrs=lrs, seed=seed, epochs=FIT[by],
                         **more)


def rate(by: str, shape: str, left_out: list[str], source: dict, own: dict, encoders) -> dict:
    "The best learning rate, and the loss of each on what was held back."
    found = [fitted(by, shape, left_out, source, own, encoders, [lr], 0).facts["held_back"] for lr in PROJECTOR_RATES]
    return dict(lr=torch.tensor(PROJECTOR_RATES[int(np.argmin(found))]), held_back=torch.tensor(found))


def carried(projectors: list, left_out: list[str], source: dict, encoders, kinds: int = 1) -> dict:
    """Of each task that was left out: score (what, seed) and prompt (what, seed, 4, d), where what is its own source
    prompt, random words, or a prompt of another type; seeds take turns with the projectors."""
    found = {}
    for t in left_out:
        start = torch.stack([source[t], blanks(encoders[0], len(source[t])), strangers(t, source)][:kinds])
        with torch.no_grad(): every = torch.stack([p(start) for p in projectors])
        turn = torch.arange(start.shape[1])
        prompts = every[turn % len(projectors), :, turn].transpose(0, 1).contiguous()
        scores = zero_shot(prompts.flatten(0, 1), f"nano/{t}", judged_rows(t), encoders[1])
        found |= {f"prompt {t}": prompts, f"score {t}": torch.tensor(scores).reshape(prompts.shape[:2])}
    return found


def lines(kind: str, way: str, found: dict) -> list[dict]:
    "One row a score of `carried`."
    return [dict(split=kind, way=way, what=what, target=k.removeprefix("score "), seed=s, score=float(score))
            for k, scores in found.items() if k.startswith("score ")
            for what, own in zip(("its prompt", "random words", "another type"), scores) for s, score in enumerate(own)]


def lines_beside(target: str, scores) -> list[dict]:
    "One row a seed: the own prompt, random words, the mean of other tasks' own prompts, the commonest class."
    task = get_task(f"nano/{target}")
    most = majority(task, [row["label"] for row in judged_rows(target)])[task.metrics[0]]
    ways = dict(own=scores[:, 0], untrained=scores[:, 1], majority=np.full(len(scores), most))
    if scores.shape[1] > 2: ways["own of another task"] = scores[:, 2:].mean(1)
    return [dict(split="none", way=way, what="", target=target, seed=s, score=float(x))
            for way, own in ways.items() for s, x in enumerate(own)]


def answers(target: str, ways: dict, encoders) -> dict:
    "Texts, their labels, and the probability of each label word: of seed 0's prompts, on an encoder by name."
    task, some = get_task(f"nano/{target}"), judged_rows(target).select(range(TEXTS))
    chances = {name: answers_to(p[None], task, some, encoders[i])[0][0].softmax(-1) for name, (i, p) in ways.items()}
    return dict(rows=[dict(row) for row in some], labels=task.names,
                words=[str(w) for w in task.verbalizer.values()],
                chances={name: np.round(x.tolist(), 3).tolist() for name, x in chances.items()})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=list(FAMILY), default=list(FAMILY))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args()
    use_threads()
    waiting, assets = ROOT / "benchmarks/results/checkpoints_projectors", ROOT / "infoprompt/assets"
    waiting.mkdir(parents=True, exist_ok=True)
    encoders, tasks, parts = (Encoder("nano"), Encoder("nano-wide")), options.tasks, splits(options.tasks)
    source = {t: p[:options.seeds].float() for t, p in read_whole(assets / "transfer_prompts.safetensors")[1].items()
              if t in tasks}
    bar = tqdm(unit="piece")

    def stored(name: str, make, *more) -> dict:
        file = waiting / f"{name}.safetensors"
        if not file.is_file(): write_whole({file: packed(dict(made=made()), make(*more))})
        bar.update()
        return read_whole(file)[1]

    judged = [stored(f"rates_{t}", rated, t, encoders[1])["val_loss"] for t in SHOWN if t in tasks]
    losses = torch.stack(judged).mean((0, 2)).tolist()
    lr = RATES[int(np.argmin(losses))]
    trained_own = {t: stored(f"own_{t}", own_prompts, t, options.seeds, lr, encoders[1]) for t in tasks}
    own = {t: one["prompt"] for t, one in trained_own.items()}
    rates = {way: stored(f"rate_{'_'.join(way)}", rate, *way, parts[0][1], source, own, encoders) for way in WAYS}
    table, kept = [], {}
    for t in tasks: table += lines_beside(t, stored(f"beside_{t}", beside, t, own, encoders[1])["score"].numpy())
    for i, (kind, out) in enumerate(parts):
        for by, shape in WAYS:
            fit = lambda: carried([fitted(by, shape, out, source, own, encoders, [float(rates[by, shape]["lr"])], r)
                                   for r in range(PROJECTORS)], out, source, encoders, 3 if by == "task" else 1)
            found = kept[i, f"{by}, {shape}"] = stored(f"carried_{i}_{by}_{shape}", fit)
            table += lines(kind, f"{by}, {shape}", found)
        ready = dict(anchors=[anchor_projector(*encoders)])
        ready |= {f"random, {s}": [new_projector(*encoders, LENGTH, s, seed=r) for r in range(options.seeds)]
                  for s in ("flat", "vector")}
        for way, projectors in ready.items():
            found = kept[i, way] = stored(f"carried_{i}_{way.replace(', ', '_')}", carried, projectors, out, source,
                                          encoders)
            table += lines(kind, way, found)
    texts = {}
    for t in [t for t in SHOWN if t in tasks]:
        ways = {"nano": (0, source[t][0]), "untrained": (1, blanks(encoders[1], 1)[0]), "own": (1, own[t][0])}
        ways |= {f"{way}, {parts[i][0]}": (1, found[f"prompt {t}"][0, 0]) for (i, way), found in kept.items()
                 if t in parts[i][1]}
        texts[t] = answers(t, ways, encoders)
    about = made() | dict(
        seeds=options.seeds, epochs=EPOCHS, lr=lr, nano_wide=encoders[1].fingerprint["weights"],
        rate_losses=dict(zip(map(str, RATES), losses)), projectors=PROJECTORS, fit=FIT,
        projector_rates={f"{by}, {shape}": float(one["lr"]) for (by, shape), one in rates.items()},
        held_back={f"{by}, {shape}": one["held_back"].tolist() for (by, shape), one in rates.items()})
    frame = pd.DataFrame(table).astype(dict(score="float32", seed="int8"))
    frame.attrs = about
    curves = {t: one["curve"][:, 1:].amin(1).tolist() for t, one in trained_own.items()}
    write_whole({assets / "carried.parquet": parquet(frame),
                 assets / "carried_prompts.safetensors": packed(dict(made=about, val_loss=curves),
                                                                {t: p.half() for t, p in own.items()}),
                 assets / "carried_answers.json": json.dumps(dict(made=about, tasks=texts)).encode()})


if __name__ == "__main__":
    main()

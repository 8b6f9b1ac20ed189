"""The method as its code was published, its faults corrected one after another, and what each step changes.

python benchmarks/ladder.py [--shots 64] [--tasks entailment sentiment ...] [--steps "as published" ...]

Five tasks of nano, 64 rows, 30 epochs, K = 32, published weights, 20 seeds; a seed draws rows, start, order and noise.
With `--shots 256`, the same on 256 rows, for eight epochs: about as many steps of training as with 64 rows.
The prompt is made from the un-prompted [CLS] state, as in the released code. Its faults live here, for no user should
meet them: see `Released`. Two faults cannot be shown. K is 4 x the batch, which is the published 32 for batches of 8;
and a head has two classes always, so `relation` keeps its six. A fault that a task cannot have (label words: only
paraphrase; the mask: only single texts) changes nothing there, and the step has the runs of the step before.

Writes benchmarks/results/ladder.parquet or ladder_256.parquet, twenty runs at a time; what is there is not run again.
"""
import argparse
from io import BytesIO
from pathlib import Path

import pandas as pd
import torch
from tqdm.auto import tqdm

from infoprompt.base.files import write_whole
from infoprompt.core import InfoPromptModel, load_data
from infoprompt.data.tasks import Task, get_task
from infoprompt.method.encoders import Encoder
from infoprompt.study.questions import LADDER, noted, possible
from infoprompt.study.sweeps import Alone, plan, run_part
from made import made, use_threads

HERE = Path(__file__).resolve().parent
TASKS = "entailment", "sentiment", "paraphrase", "acceptability", "relation"
SEEDS = range(20)
EPOCHS = {64: 30, 256: 8}  # of how many rows
CAP = 2.  # nats: the released code clamps log p at -2


class Released(InfoPromptModel):
    "A model with faults of the released code."
    def __init__(self, encoder, task, faults: tuple = (), **settings):
        self.faults = faults
        super().__init__(encoder, task, **settings)

    def kind(self): return (*super().kind(), self.faults)

    def rows(self, data, labels: bool = True) -> list:
        "Mask: one place of padding may be seen."
        pad = dict(input_ids=self.encoder.tokenizer.pad_token_id, slot=-1, token_type_ids=0)
        found = super().rows(data, labels)
        return [row | {k: row[k] + [x] for k, x in pad.items()} for row in found] if "mask" in self.faults else found

    def prompts(self, params, batch):
        "First: the first row's prompt stands in all rows of a batch."
        own = super().prompts(params, batch)
        return own[:, :1].expand_as(own) if "first" in self.faults else own

    def capped(self, loss): return loss.clamp(max=CAP) if "clamp" in self.faults else loss
    def _head_term(self, *args): return self.capped(super()._head_term(*args))
    def _rep_term(self, *args): return self.capped(super()._rep_term(*args))


def with_words(task: Task, faults: tuple) -> Task:
    "Words: paraphrase gets the label words of entailment."
    if "words" not in faults: return task
    return Task(**vars(task) | dict(verbalizer=dict(zip(task.names, get_task("nano/entailment").verbalizer.values()))))


def piece(task: Task, step: str, encoder: Encoder, shots: int = 64) -> pd.DataFrame:
    "All seeds of a step on one task."
    settings = dict(LADDER[step])
    faults = possible(task, settings.pop("faults", ()))
    runs, whole = plan(seeds=SEEDS, faults=faults, prompt="instance", **settings), with_words(task, faults)
    models, rows = run_part(runs, encoder, whole, lambda seed: load_data(whole, shots, seed),
                            Alone(torch.device("cpu")), EPOCHS[shots], 8, make=Released, progress=False)
    return pd.DataFrame([noted(m, r | dict(faults=" ".join(faults))) for m, r in zip(models, rows)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shots", type=int, choices=list(EPOCHS), default=64, help="rows to learn from")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--steps", nargs="+", choices=list(LADDER), metavar="STEP")
    options = parser.parse_args()
    use_threads()
    file = HERE / "results" / ("ladder.parquet" if options.shots == 64 else f"ladder_{options.shots}.parquet")
    steps = [step for step in LADDER if step in (options.steps or LADDER)]
    encoder, bar = Encoder("nano"), tqdm(total=len(options.tasks) * len(steps), unit="piece")
    for task in [get_task(f"nano/{name}") for name in options.tasks]:
        before = None
        for step in steps:
            settings = LADDER[step]
            bar.set_description(f"{task.name} {step}")
            held = pd.read_parquet(file) if file.is_file() else pd.DataFrame(dict(task=[], step=[]))
            found = held[(held["task"] == task.name) & (held["step"] == step)]
            own = dict(settings, faults=possible(task, settings.get("faults", ())))
            if found.empty:
                about = made()
                found = before[1] if before and before[0] == own else piece(task, step, encoder, options.shots)
                table = pd.concat([held, found.assign(task=task.name, step=step, commit=about["commit"])],
                                  ignore_index=True)
                table.attrs = about
                table.to_parquet(buffer := BytesIO(), compression="zstd", index=False)
                write_whole({file: buffer.getvalue()})
            before = own, found
            bar.update()


if __name__ == "__main__":
    main()

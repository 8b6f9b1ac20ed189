"""The runs behind the lesson on evidence, one small file a question.

python benchmarks/evidence.py [search weights informed rates critics starts depth k single real]
                              [--tasks sentiment ...]

Each question of `infoprompt.evidence.QUESTIONS`: 64 shots, 30 epochs, 10 seeds where it does not say otherwise; nano's
tasks, for `real` MiniLM on rows of ../shared/data, for `search` three tasks on nano's grammar that nothing else uses.
What is there is not run again: a task's rows lie in benchmarks/results/checkpoints_evidence/, a question's file is
benchmarks/results/evidence_QUESTION.parquet with command, commit and versions in its attributes.
"""
import argparse
import os
import random
from io import BytesIO
from pathlib import Path

import pandas as pd
from datasets import Dataset, DatasetDict

from infoprompt.evidence import QUESTIONS, TASKS, gather
from infoprompt.files import write_whole
from infoprompt.grammar import PLACES, TENSES, TOPICS, opinion, relation
from infoprompt.tasks import Task
from made import made, use_threads

HERE = Path(__file__).resolve().parent


def search_task(kind: str, rows: int = 3000) -> tuple[Task, DatasetDict]:
    "Tense or topic of an opinion, or the country that a relation names: labels even, no text twice."
    labels, r, found = list(dict(tense=TENSES, topic=TOPICS, country=PLACES)[kind]), random.Random(f"{kind}0"), {}
    while len(found) < rows:
        text, *_, answers = relation(r, marked=False) if kind == "country" else opinion(r)
        if answers.get(kind) == labels[len(found) % len(labels)]: found.setdefault(" ".join(text), answers[kind])
    texts = list(found.items())
    r.shuffle(texts)
    data = DatasetDict(train=Dataset.from_dict(dict(zip(("text", "label"), map(list, zip(*texts))))))
    return Task(f"search/{kind}", ("text",), "label", {label: label for label in labels}), data


def where(question: str, task: str) -> dict:
    "What `gather` needs to find a task and its encoder."
    if question == "search": return dict(zip(("task", "data"), search_task(task)))
    if question == "real": return dict(task=task, encoder="minilm", data=f"../shared/data/{task}", size=5)
    return dict(task=f"nano/{task}")


def keep(table: pd.DataFrame, file: Path):
    "Write a table whole."
    table.to_parquet(buffer := BytesIO(), compression="zstd", index=False)
    write_whole({file: buffer.getvalue()})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="*", metavar="QUESTION")
    parser.add_argument("--tasks", nargs="*", help="of those that a question is asked of; default: all")
    options = parser.parse_args()
    if unknown := set(options.questions) - set(QUESTIONS): parser.error(f"unknown: {', '.join(unknown)}")
    os.chdir(HERE.parent)
    use_threads()
    for question in options.questions or QUESTIONS:
        parts = {t: HERE / f"results/checkpoints_evidence/{question}_{t}.parquet" for t in TASKS[question]}
        for task in options.tasks or parts:
            if task not in parts or parts[task].is_file(): continue
            table = gather(question, **where(question, task))
            table.attrs = made()
            keep(table, parts[task])
        whole = [pd.read_parquet(p) for p in parts.values() if p.is_file()]
        table = pd.concat([t.assign(commit=t.attrs["commit"]) for t in whole], ignore_index=True)
        table.attrs = whole[-1].attrs
        keep(table, HERE / f"results/evidence_{question}.parquet")


if __name__ == "__main__":
    main()

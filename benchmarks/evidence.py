"""The runs behind the lesson on evidence, one small file a question.

python benchmarks/evidence.py [search forms critics more] [--tasks sentiment ...]

Each question of `infoprompt.study.questions.QUESTIONS`: 64 rows where it names no others, 30 epochs, and the seeds that
it names; nano's tasks, for `search` and `forms` three tasks on nano's grammar that nothing else uses. A
question's file is benchmarks/results/evidence_QUESTION.parquet, with command, commit and versions in its attributes; a
task is added when it is done, and what is there is not run again. What another nano answered has to be deleted before
it is asked anew.
"""
import argparse
import os
import random
from io import BytesIO
from pathlib import Path

import pandas as pd
from datasets import Dataset, DatasetDict

from infoprompt.base.files import write_whole
from infoprompt.data.tasks import Task, get_task
from infoprompt.nano.grammar import PLACES, TENSES, TOPICS, opinion, relation
from infoprompt.study.questions import QUESTIONS, TASKS, gather
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
    if question in ("search", "forms"): return dict(zip(("task", "data"), search_task(task)))
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
        file = HERE / f"results/evidence_{question}.parquet"
        stored = lambda: [pd.read_parquet(file)] if file.is_file() else []
        for task in [t for t in TASKS[question] if t in (options.tasks or TASKS[question])]:
            found, about = where(question, task), made()
            if any(get_task(found["task"]).name in set(t["task"]) for t in stored()): continue
            table = gather(question, **found).assign(commit=about["commit"])
            whole = pd.concat([*stored(), table], ignore_index=True)
            whole.attrs = about
            keep(whole, file)


if __name__ == "__main__":
    main()

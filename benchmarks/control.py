"""A control for nano: the same encoder, pretrained without the questions of the five tasks.

python benchmarks/control.py [--steps 9000]

Texts, vocabulary, shape and training are nano's (`infoprompt.nano.pretrain`), but what follows a text is another: never
a question of one of the five tasks, never its answer, never one of its cues. Topic, tense and country are still asked
for behind two rows in five. Behind and before the other texts stand random words, and words are hidden anywhere.

Writes the encoder to benchmarks/results/control. It is kept there (0.7 MB), for another processor would make slightly
different weights. `benchmarks/starts.py --encoder control` runs on it, and stores the hash of its weights. Beside the
weights, `pretraining.json` holds, for fresh sentences, the cross-entropy of a hidden word in nats (`hidden word`) and
the share of right answers to each question.
One core takes about 15 minutes.
"""
import argparse
import random
from pathlib import Path
from unittest.mock import patch

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForMaskedLM, AutoTokenizer

from infoprompt.nano import pretrain
from infoprompt.nano.grammar import NANO_TASKS, QUESTIONS, sentences
from made import use_threads

FOLDER = Path(__file__).resolve().parent / "results/control"
asked = pretrain.follow


def follow(r, answers, words):
    "As nano's, but without the tasks' questions, answers and cues."
    rest = {attribute: answer for attribute, answer in answers.items() if attribute not in NANO_TASKS}
    if rest and r.random() < .4: return asked(r, rest, words)
    return r.choices(words, k=r.choice((0, 0, 1, 2))), r.choices(words, k=r.randint(0, 5)), []


@torch.no_grad()
def hidden_words(model, tokenizer, n: int = 300) -> float:
    "Cross-entropy of one hidden word in each of n sentences that it has not read, in nats."
    r, texts = random.Random(0), [d["text"].split() for d in sentences("sentiment", n, 1)]
    places = [r.randrange(len(text)) for text in texts]
    batch = tokenizer([" ".join([*t[:at], "<mask>", *t[at + 1:]]) for t, at in zip(texts, places)], padding=True,
                      return_tensors="pt")
    truth = tokenizer.convert_tokens_to_ids([text[at] for text, at in zip(texts, places)])
    logits = model(**batch).logits[batch["input_ids"] == tokenizer.mask_token_id]
    return cross_entropy(logits, torch.tensor(truth)).item()


def look(model, tokenizer) -> dict:
    "What it has learned: hidden words, and answers to the questions, which the tasks' should not be among."
    shares = {a: pretrain.cloze_accuracy(model, tokenizer, a, 300, 1)[0] for a in QUESTIONS}
    return {"hidden word": round(hidden_words(model, tokenizer), 3)} | {a: round(x, 2) for a, x in shares.items()}


def known() -> dict:
    "What a hidden word costs both encoders, in nats, and the control's share of right answers to each question."
    parts = {name: (AutoModelForMaskedLM.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path))
             for name, path in dict(nano=pretrain.nano_path(), control=FOLDER).items()}
    costs = {name: round(hidden_words(*pair, 1000), 3) for name, pair in parts.items()}
    answers = {a: round(pretrain.cloze_accuracy(*parts["control"], a)[0], 3) for a in QUESTIONS}
    return dict(hidden_word=costs, answers=answers)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=9000, help="of AdamW")
    options = parser.parse_args()
    use_threads()
    with patch.multiple(pretrain, follow=follow, look=look): pretrain.pretrain(FOLDER, options.steps)


if __name__ == "__main__":
    main()

"The family of tasks on nano: known words, even classes, label words of one token, and faults where they belong."
from collections import Counter

import pytest

from infoprompt.data.tasks import TASKS
from infoprompt.nano.family import FAMILY, NATURE, family_rows, places
from infoprompt.nano.grammar import KINDS, THINGS, TOPICS, kept_back
from small import NANO


def test_at_least_sixteen_tasks_in_five_types():
    types = Counter(task["type"] for task in FAMILY.values())
    assert len(FAMILY) >= 16 and len(types) == 5 and min(types.values()) >= 3


@pytest.mark.parametrize("name", FAMILY)
def test_rows(name):
    rows, task = family_rows(name, 300, 1), TASKS[f"nano/{name}"]
    counts = Counter(d["label"] for d in rows)
    assert set(counts) == set(task.names) and max(counts.values()) - min(counts.values()) <= 1
    assert family_rows(name, 300, 1) == rows != family_rows(name, 300, 2)
    assert len({(d["text"], d.get("pair")) for d in rows}) == 300 and all(("pair" in d) == task.paired for d in rows)
    words = {w for d in rows for k in ("text", "pair") if k in d for w in d[k].split()}
    assert words <= set(NANO.tokenizer.get_vocab()) and all(kept_back(d["text"].split()) for d in rows)
    assert all(len(NANO.word_ids(word)) == 1 for word in task.verbalizer.values())


@pytest.mark.parametrize("topic", ["food", "film", "travel", "shop"])
def test_opinions_are_on_their_topic(topic):
    topic_of = {w: t for t, nouns in TOPICS.items() for n in nouns for w in (n, n + "s")}
    for d in family_rows(f"sentiment-{topic}", 100, 0):
        assert {topic_of[w] for w in d["text"].split() if w in topic_of} == {topic}


@pytest.mark.parametrize("name, nature", [("paraphrase-nature", True), ("entailment-made", False)])
def test_pairs_are_about_their_half_of_the_world(name, nature):
    for d in family_rows(name, 100, 0):
        kinds = {THINGS.get(w, w) for w in d["text"].split() if w in THINGS or w in KINDS}
        assert {(k in NATURE) == nature for k in kinds} == {True}


@pytest.mark.parametrize("fault", ["number", "form", "order"])
def test_every_sentence_has_a_place_for_its_fault(fault):
    right = [d["text"].split() for d in family_rows(f"fault-{fault}", 200, 0) if d["label"] == "acceptable"]
    assert right and all(places(text, fault) for text in right)

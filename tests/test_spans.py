"Scores of entities and relations against what the data sets' own scorers gave."
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from infoprompt.base.checks import InputError
from infoprompt.data.spans import f1_of, relation_scores, scores, spans_of, tags_of

KINDS = "corporation", "creative-work", "group", "location", "person", "product"


@pytest.mark.parametrize("pair, official", [(1, 64.09), (2, 6.35), (3, 11.11), (5, 44.44)])
def test_relations_score_as_the_official_scorer_does(shared_data, pair, official):
    read = lambda name: dict(line.split() for line in (
        shared_data / f"semeval2010_task8_scorer/{name}{pair}.txt").read_text().splitlines() if line.strip())
    found = relation_scores(read("answer_key"), read("proposed_answer"))
    assert round(100 * found["macro_f1"], 2) == official


@pytest.mark.parametrize("team, published", [("uh_ritual", 41.86), ("spinningbytes", 40.78), ("arcada", 39.98),
                                             ("drexel_cci", 26.30)])
def test_real_submissions_score_as_published(shared_data, team, published):
    names = ["O", *(f"{mark}-{kind}" for kind in KINDS for mark in "BI")]
    true = [[names[tag] for tag in row] for row in pd.read_parquet(shared_data / "wnut17/test.parquet")["ner_tags"]]
    lines = (shared_data / f"wnut17_submissions/{team}.conll").read_text(encoding="utf-8").splitlines()
    said = iter([line.split()[-1] for line in lines if line.strip()])
    assert round(100 * scores(true, [[next(said) for _ in row] for row in true])["f1"], 2) == published
    assert next(said, None) is None


tag = st.sampled_from(["O", "B-a", "I-a", "B-b", "I-b"])


@given(st.lists(tag, max_size=12))
def test_repaired_tags_describe_the_same_spans(tags):
    spans = spans_of(tags)
    assert spans_of(tags_of(spans, len(tags)), repair=False) == spans
    assert all(one[1] <= two[0] for one, two in zip(spans, spans[1:]))


@given(st.lists(st.lists(st.tuples(tag, tag), max_size=8), max_size=6))
def test_scores_are_shares_and_symmetric(rows):
    one, two = ([[pair[i] for pair in row] for row in rows] for i in range(2))
    there, back = scores(one, two), scores(two, one)
    assert (there["f1"], there["precision"]) == (back["f1"], back["recall"])
    assert all(0 <= x <= 1 for x in there.values())


@given(st.dictionaries(st.integers(0, 9), st.sampled_from(["A(e1,e2)", "A(e2,e1)", "B(e1,e2)", "Other"]), min_size=1))
def test_a_right_relation_in_the_wrong_direction_counts_nothing(true):
    turn = {"A(e1,e2)": "A(e2,e1)", "A(e2,e1)": "A(e1,e2)", "B(e1,e2)": "B(e2,e1)", "Other": "Other"}
    assert relation_scores(true, {k: turn[v] for k, v in true.items()}, "AB") == dict(macro_f1=0, micro_f1=0)


def test_missing_answers_are_other_and_do_not_lower_precision():
    true = {i: "A(e1,e2)" for i in range(4)}
    assert relation_scores(true, {0: "A(e1,e2)"}, ["A"])["macro_f1"] == f1_of(1, 1, 4)["f1"] == .4


def test_a_relation_that_is_never_true_lowers_the_micro_score_alone():
    true, said = {1: "A(e1,e2)", 2: "Other"}, {1: "A(e1,e2)", 2: "B(e1,e2)"}
    assert relation_scores(true, said, "AB") == dict(macro_f1=1, micro_f1=f1_of(1, 2, 1)["f1"])


def test_empty_rows_score_nothing():
    assert scores([[]], [[]])["f1"] == 0 and scores([], [])["f1"] == 0


@pytest.mark.parametrize("tags", [[None], ["B-"], ["X-a"], [3], ["B-a b"], ["o"]])
def test_a_tag_that_is_none_is_named(tags):
    with pytest.raises(InputError, match="tag 1 is"): spans_of(tags)
    with pytest.raises(InputError, match="row 2: tag 1 is"): scores([["O"], tags], [["O"], ["O"]])


@pytest.mark.parametrize("call", [lambda: scores([None], [["O"]]), lambda: scores(None, [["O"]]),
                                  lambda: relation_scores({1: None}, {}), lambda: relation_scores(["Other"], ["Other"])])
def test_scores_of_nothing_say_what_to_give(call):
    with pytest.raises(InputError, match="give two"): call()


def test_the_official_score_is_the_mean_of_f1_and_not_f1_of_means():
    true = dict(enumerate(["Cause-Effect(e1,e2)"] * 4 + ["Member-Collection(e1,e2)"] * 4))
    said = {0: true[0], **{i: true[4] for i in range(4, 8)}, 1: "Other", 2: "Other", 3: "Other"}
    one = 2 * 1 * .25 / (1 + .25)  # precision 1, recall 1/4
    found = relation_scores(true, said)
    assert found["macro_f1"] == pytest.approx((one + 1) / 2) and found["micro_f1"] == pytest.approx(2 * 5 / (5 + 8))
    assert found["macro_f1"] != pytest.approx(2 * 1 * .625 / 1.625), "precision and recall of the means"

"""Where prompts go: token by token, whatever the template, the padding or the length; and how they start."""
import hypothesis.strategies as st
import pytest
import tiny
import torch
from hypothesis import given

from infoprompt.base.files import packed
from infoprompt.data.tasks import PAIR, PREFIX, SINGLE, InputError
from infoprompt.data.templates import collate, cut, encode, parse, positions, slot_counts
from infoprompt.method.encoders import Encoder
from infoprompt.method.prompts import (STARTS, TEMPLATES, fig_slots, grad_norm, instance_params, instance_prompt, nano,
                                       nearest, place, read, start_prompt, unprompted)

ROW = dict(text="the film was good", pair="it was dull")
TEXTS = [ROW, dict(text="no", pair="yes it was very good . and long"), dict(text="dull plot . " * 4, pair="a")]
KINDS = "bert", "roberta", "electra", "albert", "distilbert", "mpnet", "modernbert", "deberta-v2"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {k: tiny.save(tmp_path_factory.mktemp(k), k) for k in KINDS}


@pytest.fixture(scope="module")
def encoders(folders):
    return {k: Encoder(f) for k, f in folders.items()}


def show(row, encoder):
    "A laid-out row as text: P0, P1, ... are prompt vectors; a star marks the [MASK] that is read."
    words = encoder.tokenizer.convert_ids_to_tokens(row["input_ids"])
    words = [f"P{s}" if s >= 0 else w for s, w in zip(row["slot"], words)]
    words[row["mask_pos"]] += "*"
    return " ".join(words)


RELEASED = {
    (SINGLE, 1): "[CLS] the film was good P0 [MASK]* [SEP]",
    (SINGLE, 2): "[CLS] the film was good P0 [MASK]* P1 [SEP]",
    (SINGLE, 3): "[CLS] P0 the film was good P1 [MASK]* P2 [SEP]",
    (SINGLE, 4): "[CLS] P0 the film was good P1 [MASK]* P2 P3 [SEP]",
    (SINGLE, 6): "[CLS] P0 P1 the film was good P2 P3 [MASK]* P4 P5 [SEP]",
    (PAIR, 1): "[CLS] the film was good P0 [MASK]* [SEP] [SEP] it was dull [SEP]",
    (PAIR, 2): "[CLS] the film was good P0 [MASK]* P1 [SEP] [SEP] it was dull [SEP]",
    (PAIR, 3): "[CLS] P0 the film was good P1 [MASK]* P2 [SEP] [SEP] it was dull [SEP]",
    (PAIR, 4): "[CLS] P0 the film was good P1 [MASK]* P2 [SEP] [SEP] it was dull P3 [SEP]",
    (PREFIX, 3): "[CLS] P0 P1 P2 the film was good [MASK]* [SEP]",
    ("[P:one] [CLS] it was [MASK] , {text} [P:two]", 3): "P0 P1 [CLS] it was [MASK]* , the film was good P2",
    ("[CLS]{text}[P].[MASK][SEP]", 2): "[CLS] the film was good P0 P1 . [MASK]* [SEP]"}


@pytest.mark.parametrize("template, n", RELEASED)
def test_layouts_token_by_token(template, n, encoders):
    row, = encode([ROW], template, encoders["roberta"], n)
    assert show(row, encoders["roberta"]) == RELEASED[template, n]


def test_a_label_goes_along_and_nothing_else(encoders):
    row, = encode([ROW | dict(label=1, idx="x")], SINGLE, encoders["bert"], 2)
    assert {*row} == {"input_ids", "slot", "token_type_ids", "mask_pos", "label"} and row["label"] == 1
    assert collate([row], encoders["bert"])["labels"].tolist() == [1]


@pytest.mark.parametrize("template, says", [
    ("[CLS] [P] {text} [SEP]", "0 \\[MASK\\]"), ("{text} [MASK] [MASK]", "2 \\[MASK\\]"),
    ("[CLS] [P] [MASK]", "{text} once"),
    ("{pair} {text} [MASK]", "{text} once"), ("{text} {text} [MASK]", "{text} once"), ("{other} [MASK]", "{text} once"),
    ("[P:a] {text} [P:a] [MASK]", "same name")])
def test_templates_that_cannot_work(template, says):
    with pytest.raises(InputError, match=says):
        parse(template)


def test_a_template_without_a_slot_takes_no_prompt(encoders):
    assert slot_counts(parse("{text} [MASK]"), 0) == []
    with pytest.raises(InputError, match="put \\[P\\]"):
        encode([ROW], "{text} [MASK]", encoders["bert"], 1)


def test_slots_that_leave_no_room(encoders):
    encode([ROW], SINGLE, encoders["bert"], 36)
    with pytest.raises(InputError, match="reads 40 tokens.*lower n_prompt"):
        encode([ROW], SINGLE, encoders["bert"], 37)


def test_a_pair_template_needs_pairs(encoders):
    with pytest.raises(InputError, match="pair.*tuples"):
        encode([dict(text="good")], PAIR, encoders["bert"], 1)


@given(st.lists(st.sampled_from(["[P]", "good", "[SEP]"]), max_size=8), st.integers(0, 8), st.integers(0, 20))
def test_vectors_are_spread_evenly_over_as_many_slots_as_there_are(words, where, n):
    words = [*words[:where], "{text}", "[MASK]", *words[where:]]
    slots = words.count("[P]")
    if not slots and n:
        return
    counts = slot_counts(parse(" ".join(words)), n)
    used = [c for c in counts if c]
    assert len(counts) == slots and sum(counts) == n and len(used) == min(slots, n)
    assert not used or (max(used) - min(used) <= 1 and used == sorted(used, reverse=True))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=2), st.integers(2, 40))
def test_the_longer_text_is_cut_first(lengths, room):
    texts = [list(range(n)) for n in lengths]
    short = cut(texts, room)
    assert all(s == t[:len(s)] for s, t in zip(short, texts))
    assert sum(map(len, short)) == min(room, sum(lengths))
    if len(lengths) == 2 and sum(lengths) > room:
        whole = [len(s) == len(t) for s, t in zip(short, texts)]
        assert abs(len(short[0]) - len(short[1])) <= 1 or whole[lengths.index(min(lengths))]


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 12), st.sampled_from([SINGLE, PAIR, PREFIX]))
def test_long_inputs_lose_text_alone(one, two, n, template):
    encoder = SHARED["encoder"]
    texts = dict(text=" ".join(["good"] * one), pair=" ".join(["dull"] * two))
    row, = encode([texts], template, encoder, n)
    tok = encoder.tokenizer
    assert [s for s in row["slot"] if s >= 0] == list(range(n))
    seen = [i for i, s in zip(row["input_ids"], row["slot"]) if s < 0]
    assert len(row["input_ids"]) <= encoder.max_length
    assert row["slot"][row["mask_pos"]] == -1 and row["input_ids"][row["mask_pos"]] == tok.mask_token_id
    assert seen.count(tok.mask_token_id) == 1 and seen.count(tok.cls_token_id) == 1
    assert seen.count(tok.sep_token_id) == (3 if template == PAIR else 1)
    if one + (two if template == PAIR else 0) > 60:
        assert len(row["input_ids"]) == encoder.max_length


SHARED = {}


@pytest.fixture(autouse=True, scope="module")
def shared(encoders):
    "Hypothesis takes no fixtures of narrower scope."
    SHARED["encoder"] = encoders["roberta"]


def padded(batch, left, right, encoder):
    "The same rows with more padding on either side, positions left as they were."
    fill = dict(input_ids=encoder.tokenizer.pad_token_id, slot=-1, token_type_ids=0, attention_mask=0)
    wide = {k: torch.nn.functional.pad(batch[k], (left, right), value=v) for k, v in fill.items()}
    wide["position_ids"] = positions(wide["attention_mask"], encoder.offset)
    return batch | wide | dict(mask_pos=batch["mask_pos"] + left)


@pytest.mark.parametrize("template", [SINGLE, PAIR, "[P] [CLS] {text} [MASK] [P] [SEP]"])
@pytest.mark.parametrize("kind", [*KINDS, "nano"])
def test_padding_and_neighbours_change_nothing(kind, template, encoders):
    encoder = Encoder("nano") if kind == "nano" else encoders[kind]
    rows, prompt = encode(TEXTS, template, encoder, 4), start_prompt("random", 4, encoder)[None]
    whole = collate(rows, encoder)

    def logits(batch):
        z = encoder.states(read(encoder, batch, prompt.expand(len(batch["mask_pos"]), -1, -1)))[:, 0]
        return z @ encoder.decoder.T + encoder.bias

    together = logits(whole)
    assert together.std() > .05
    for other in (torch.cat([logits(collate([r], encoder)) for r in rows]), logits(padded(whole, 5, 0, encoder)),
                  logits(padded(whole, 0, 3, encoder)), logits(padded(whole, 2, 4, encoder))):
        torch.testing.assert_close(other, together, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_types_of_a_pair_are_the_tokenizers_own(kind, encoders):
    encoder, tok = encoders[kind], encoders[kind].tokenizer
    row, = encode([ROW], "[CLS] {text} [MASK] [PAIR] {pair} [SEP]", encoder, 0)
    theirs = tok(ROW["text"] + " [MASK]", ROW["pair"], return_token_type_ids=True)
    assert row["input_ids"] == theirs["input_ids"]
    assert row["token_type_ids"] == (theirs["token_type_ids"] if encoder.types > 1 else [0] * len(row["input_ids"]))
    assert encoder.types == 1 or 1 in row["token_type_ids"]


def test_positions_are_robertas_own(encoders, folders):
    encoder, embeddings = encoders["roberta"], tiny.body(folders["roberta"]).embeddings
    batch = collate(encode(TEXTS, "[CLS] {text} [MASK] [SEP]", encoder, 0), encoder)
    theirs = embeddings.create_position_ids_from_input_ids(batch["input_ids"], embeddings.padding_idx)
    seen = batch["attention_mask"].bool()
    assert torch.equal(batch["position_ids"][seen], theirs[seen]) and not seen.all()


@pytest.mark.parametrize("kind", KINDS)
def test_unprompted_rows_are_rows_without_slots(kind, encoders):
    encoder = encoders[kind]
    with_slots = collate(encode(TEXTS, PAIR, encoder, 5), encoder)
    without = collate(encode(TEXTS, PAIR.replace("[P]", ""), encoder, 0), encoder)
    bare = unprompted(with_slots, encoder.offset)
    torch.testing.assert_close(read(encoder, bare), read(encoder, without), atol=1e-5, rtol=0)
    loud = torch.full((3, 5, encoder.d_in), 9.)
    torch.testing.assert_close(read(encoder, bare, loud), read(encoder, without), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_prefix_before_everything_is_pefts_prompt_tuning(kind, encoders, folders):
    peft = pytest.importorskip("peft")
    n, encoder = 3, encoders[kind]
    theirs = peft.get_peft_model(tiny.body(folders[kind]), peft.PromptTuningConfig(
        task_type="FEATURE_EXTRACTION", num_virtual_tokens=n, prompt_tuning_init="RANDOM")).eval()
    prompt = theirs.prompt_encoder["default"].embedding.weight.detach()
    rows = encode(TEXTS, "[P] [CLS] {text} [MASK] [SEP]", encoder, n)
    batch = collate(rows, encoder)
    length = batch["slot"].shape[1]
    ours = read(encoder, batch, prompt.expand(3, -1, -1), torch.arange(length).expand(3, -1))
    plain = {k: batch[k][:, n:] for k in ("input_ids", "attention_mask")}  # PEFT adds its own places in front
    with torch.no_grad():
        states = theirs(**plain).last_hidden_state
    seen = batch["attention_mask"].bool()
    torch.testing.assert_close(ours[seen], states[seen], atol=1e-5, rtol=0)
    with torch.no_grad():
        theirs.prompt_encoder["default"].embedding.weight += torch.randn(n, 32)
        assert (theirs(**plain).last_hidden_state - states)[seen].abs().max() > .01  # the prompt is read at all


def test_place_takes_each_rows_own_prompt():
    prompt = torch.arange(8.).view(2, 2, 2)
    slot = torch.tensor([[0, -1, 1], [-1, 1, 0]])
    placed = place(prompt, slot, torch.full((2, 3, 2), -5.))
    assert placed.tolist() == [[[0, 1], [-5, -5], [2, 3]], [[-5, -5], [6, 7], [4, 5]]]


def vectors(encoder, *words):
    return encoder.words[encoder.tokenizer.convert_tokens_to_ids(list(words))]


def test_starts_from_words(encoders):
    e = encoders["albert"]
    assert torch.equal(start_prompt("label", 3, e, ("good", "bad")), vectors(e, "good", "bad", "good"))
    assert torch.equal(start_prompt("text:is it", 3, e), vectors(e, "is", "it", "is"))
    assert torch.equal(start_prompt("text:is it not", 2, e), vectors(e, "is", "it"))
    assert torch.equal(start_prompt("mask", 2, e), vectors(e, "[MASK]", "[MASK]"))
    assert torch.equal(start_prompt("zero", 2, e), torch.zeros(2, e.d_in))


def test_starts_at_random(encoders):
    e = encoders["bert"]
    ordinary = {tuple(v) for i, v in enumerate(e.words.tolist()) if i not in e.tokenizer.all_special_ids}
    assert {tuple(v) for v in start_prompt("vocab", 200, e).tolist()} == ordinary  # every word, and no special token
    spread = start_prompt("random", 4000, e)
    torch.testing.assert_close(spread.mean(0), e.words.mean(0), atol=.03, rtol=0)
    torch.testing.assert_close(spread.std(0), e.words.std(0), atol=.03, rtol=0)
    assert abs(start_prompt("unit", 4000, e).std() - 1) < .02


@pytest.mark.parametrize("init", ["random", "unit", "vocab"])
def test_a_start_is_a_function_of_its_seed(init, encoders):
    e = encoders["bert"]
    assert torch.equal(start_prompt(init, 4, e, seed=3), start_prompt(init, 4, e, seed=3))
    assert not torch.equal(start_prompt(init, 4, e, seed=3), start_prompt(init, 4, e, seed=4))


@pytest.mark.parametrize("init", [n for n in STARTS if n not in ("text", "saved", "task")] + ["text:good"])
def test_a_start_is_the_callers_own_copy(init, encoders):
    e = encoders["bert"]
    before = e.words.clone()
    start_prompt(init, 2, e, ("good",)).add_(1)
    assert torch.equal(e.words, before)


def test_a_saved_start(encoders, tmp_path):
    e, prompt = encoders["bert"], torch.randn(2, 32)
    (tmp_path / "prompt.safetensors").write_bytes(packed({}, dict(prompt=prompt)))
    assert torch.equal(start_prompt(f"saved:{tmp_path}", 2, e), prompt)
    with pytest.raises(InputError, match=r"shape \(2, 32\), here \(3, 32\)"):
        start_prompt(f"saved:{tmp_path}", 3, e)
    (tmp_path / "prompt.safetensors").write_bytes(packed({}, dict(head=prompt)))
    with pytest.raises(InputError, match="choose the n_prompt"):
        start_prompt(f"saved:{tmp_path}", 2, e)
    (tmp_path / "prompt.safetensors").write_bytes(b"\x80\x04 a pickle")
    with pytest.raises(InputError, match="never read"):
        start_prompt(f"saved:{tmp_path}", 2, e)


@pytest.mark.parametrize("init, n, says", [("nought", 2, "unknown start"), ("saved:/no/such", 2, "no saved prompt"),
                                           ("text:xyzzy", 2, "no token"), ("text:", 2, "no token"),
                                           ("vocab", 0, "at least 1")])
def test_starts_that_cannot_work(init, n, says, encoders):
    with pytest.raises(InputError, match=says):
        start_prompt(init, n, encoders["bert"])


def test_instance_prompts_follow_their_row():
    params = {k: torch.stack([p, p + 1]) for k, p in instance_params(torch.randn(3, 6), 5, width=4).items()}
    cls = torch.randn(2, 7, 5)
    got = instance_prompt(params, cls, 3)
    assert got.shape == (2, 7, 3, 6)
    for r in range(2):
        for b in range(7):
            p = {k: v[r] for k, v in params.items()}
            hidden = torch.nn.functional.gelu(p["w1"] @ cls[r, b] + p["b1"])
            torch.testing.assert_close(got[r, b], (p["w2"] @ hidden + p["b2"]).view(3, 6))


def test_nearest_words_find_themselves(encoders):
    e = encoders["bert"]
    found = nearest(vectors(e, "good", "dull") * 3, e, 2)
    assert [w.split(", ")[0] for w in found["words"]] == ["good", "dull"]
    assert all(c.startswith("1.00") for c in found["cosine"])


def test_gradient_norm():
    p = torch.tensor([3., 4.], requires_grad=True)
    assert grad_norm((p**2).sum() / 2, p) == 5 and grad_norm(torch.ones(1, requires_grad=True).sum(), p) == 0


@pytest.mark.parametrize("template", ["single", "pair", "prefix", "[CLS] [P] {text} it was [MASK] . [SEP]"])
@pytest.mark.parametrize("n", [1, 4, 8])
def test_figure_shows_what_encode_lays_out(template, n):
    cells = fig_slots(template, n, "peter will locate the garment . | the glove").data[0].text
    row, = encode([dict(text="peter will locate the garment .", pair="the glove")], TEMPLATES.get(template, template),
                  nano(), n)
    seen = [line for line in cells if line[4] == "1"]
    assert [int(line[1]) for line in seen] == row["slot"] and len(seen) == len(row["input_ids"])
    assert [int(line[2]) for line in seen] == list(range(2, 2 + len(seen))), "RoBERTa counts positions from 2"
    assert seen[row["mask_pos"]][0] == "&lt;mask&gt;"


def test_figure_takes_any_text():
    assert fig_slots(text="zzz").data[0].text
    with pytest.raises(InputError, match="has 0"): fig_slots("{text}")

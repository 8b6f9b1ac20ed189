"""Random encoders, a few kilobytes each, of every architecture that the package must read."""
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, PreTrainedTokenizerFast

WORDS = ("a the film was is good bad and not very plot actor dull fine yes no maybe so it this that story long short "
         "one two three four five six seven eight nine ten . , ?").split()
SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
             max_position_embeddings=40)
# These number positions from padding_idx + 1.
ROBERTA_LIKE = "roberta", "mpnet", "longformer", "ibert", "roberta-prelayernorm", "xlm-roberta-xl"
KINDS = {
    "bert": SMALL | dict(type_vocab_size=2), "roberta": SMALL | dict(type_vocab_size=1, max_position_embeddings=42),
    "electra": SMALL | dict(embedding_size=24), "albert": SMALL | dict(embedding_size=24, num_hidden_groups=1),
    "distilbert": dict(dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=40),
    "mpnet": SMALL | dict(max_position_embeddings=42),
    "modernbert": SMALL | dict(global_attn_every_n_layers=2, local_attention=8),
    "deberta-v2": SMALL | dict(relative_attention=True, pos_att_type=["p2c", "c2p"], position_biased_input=False,
                               type_vocab_size=0, max_relative_positions=16)}

SEQ2SEQ = dict(d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
               encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=40)
# Kinds that are like BERT on the surface and differ in what counts: some can be read all the same, others not.
ODD = {
    "roberta-prelayernorm": SMALL | dict(max_position_embeddings=42), "squeezebert": SMALL | dict(
        embedding_size=32, **{f"{n}_groups": 1 for n in "q k v post_attention intermediate output".split()}),
    "xlm-roberta-xl": SMALL | dict(max_position_embeddings=42),
    "xlnet": dict(d_model=32, n_layer=2, n_head=4, d_inner=48),
    "bart": SEQ2SEQ, "mbart": SEQ2SEQ, "t5": dict(d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4),
    "longformer": SMALL | dict(attention_window=8, max_position_embeddings=42, type_vocab_size=1),
    "mobilebert": SMALL | dict(embedding_size=24, intra_bottleneck_size=16, num_feedforward_networks=2),
    "fnet": {k: v for k, v in SMALL.items() if k != "num_attention_heads"},
    "convbert": SMALL | dict(embedding_size=32, head_ratio=2, conv_kernel_size=3),
    "funnel": dict(d_model=32, n_head=4, d_head=8, d_inner=48, block_sizes=[1, 1]),
    "xlm": dict(emb_dim=32, n_layers=2, n_heads=4), "ibert": SMALL | dict(max_position_embeddings=42),
    "gpt2": dict(n_embd=32, n_layer=2, n_head=4, n_positions=40), "llama": SMALL}


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
    "A random model, with a masked-LM head where its kind has one, whose weights are large enough to tell states apart."
    tok, settings = tokenizer(kind, words=words), (KINDS | ODD)[kind] | changes
    ids = dict(pad_token_id=tok.pad_token_id, bos_token_id=tok.cls_token_id, eos_token_id=tok.sep_token_id,
               cls_token_id=tok.cls_token_id, sep_token_id=tok.sep_token_id)
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=len(tok), **ids, **settings)
    masked = type(config) in AutoModelForMaskedLM._model_mapping
    model = (AutoModelForMaskedLM if masked else AutoModel).from_config(config)
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

"Small models on nano, and the comparison of their weights bit by bit."
import torch

from infoprompt.base.files import packed, read_whole
from infoprompt.core import InfoPromptModel
from infoprompt.method.encoders import Encoder

NANO = Encoder("nano")


def new(**kw):
    return InfoPromptModel(NANO, "nano/sentiment", **dict(init="vocab") | kw)


def bits(model):
    return {k: p.detach().clone() for k, p in model.trained().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def close(one, other, atol):
    return one.keys() == other.keys() and all(torch.allclose(one[k], other[k], atol=atol, rtol=0) for k in one)


def resealed(folder, change=dict, **config):
    "Change a saved prompt's tensors or config as if it had been saved so."
    file = folder / "prompt.safetensors"
    facts, tensors = read_whole(file)
    file.write_bytes(packed({k: v for k, v in (facts | config).items() if v is not None}, change(tensors)))

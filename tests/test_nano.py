"The grammar and the small encoder. Other seeds may repeat rows of one seed: only rows inside one call are distinct."
import inspect
import re
from collections import Counter

import pytest, torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from infoprompt.nano import grammar, pretrain as nano
from infoprompt.nano.pretrain import NANO_TASKS, cloze_accuracy, nano_path, sentences

TASKS = [*NANO_TASKS, 'entities']
PAIRS = 'paraphrase', 'entailment'
REACHED = dict(sentiment=1.00, topic=1.00, tense=1.00, country=1.00, acceptability=0.93, paraphrase=0.92,
               entailment=0.91, relation=1.00)


@pytest.fixture(scope='module')
def encoder():
    model, info = AutoModelForMaskedLM.from_pretrained(nano_path(), output_loading_info=True)
    assert not info['missing_keys'] and not info['unexpected_keys'] and not info['mismatched_keys']
    return model.eval(), AutoTokenizer.from_pretrained(nano_path())


def test_files_are_standard_and_small(encoder):
    model, tokenizer = encoder
    assert type(model).__name__ == 'RobertaForMaskedLM'
    assert sum(p.numel() for p in model.parameters()) <= 200_000
    assert sum(f.stat().st_size for f in nano_path().iterdir()) <= 2_000_000
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert len(tokenizer) == model.config.vocab_size <= 450
    assert [tokenizer.pad_token_id, model.config.pad_token_id] == [1, 1]
    assert not [f.name for f in nano_path().iterdir() if f.suffix not in ('.json', '.safetensors')]


def test_tokenizer_has_roberta_manners(encoder):
    _, tokenizer = encoder
    words = tokenizer.convert_ids_to_tokens(tokenizer('The soup was good.', 'Anna likes it').input_ids)
    assert words == ['<s>', 'the', 'soup', 'was', 'good', '.', '</s>', '</s>', 'anna', 'likes', 'it', '</s>']
    assert tokenizer('zebra <mask>').input_ids == [0, tokenizer.unk_token_id, tokenizer.mask_token_id, 2]


@pytest.mark.parametrize('task', TASKS)
def test_rows(task):
    rows, columns = sentences(task, 12_000, 0), {'tokens', 'tags'} if task == 'entities' else {'text', 'label'}
    assert all(set(d) == columns | ({'pair'} if task in PAIRS else set()) for d in rows[:100])
    texts = {str([v for k, v in d.items() if k not in ('label', 'tags')]) for d in rows}
    assert len(texts) == 12_000
    assert sentences(task, 50, 3) == sentences(task, 50, 3) != sentences(task, 50, 4)


@pytest.mark.parametrize('task', NANO_TASKS)
def test_classes_are_even(task):
    counts = Counter(d['label'] for d in sentences(task, 1001, 1))
    assert set(counts) == set(NANO_TASKS[task]['labels']) and max(counts.values()) - min(counts.values()) <= 1


def test_few_rows_are_drawn_in_vain(monkeypatch):
    drawn, row = [], grammar.row
    monkeypatch.setattr(grammar, 'row', lambda *a: drawn.append(1) or row(*a))
    assert len(sentences('paraphrase', 10_000, 0)) == 10_000 and len(drawn) < 48_000  # three in four are not kept back


@pytest.mark.parametrize('task', TASKS)
def test_every_word_is_known(task, encoder):
    _, tokenizer = encoder
    rows = sentences(task, 2000, 5)
    words = {w for d in rows for k in ('text', 'pair', 'tokens') if k in d
             for w in (d[k] if k == 'tokens' else d[k].split())}
    assert not words - set(tokenizer.get_vocab())
    assert all(tokenizer(d['text']).input_ids == [0, *tokenizer.convert_tokens_to_ids(d['text'].split()), 2]
               for d in rows[:50] if 'text' in d)


def test_label_words_and_questions_are_single_words(encoder):
    vocab = encoder[1].get_vocab()
    for t in NANO_TASKS.values():
        assert all(w in vocab for w in t['labels'].values()) and len(set(t['labels'].values())) == len(t['labels'])
        assert t['ask'].count('[MASK]') == 1 and '{text}' in t['ask']
        assert all(w in vocab for w in re.sub(r'\[\w+\]|\{\w+\}', '', t['ask']).split())


def test_marks_stand_once_and_tags_are_bio():
    for d in sentences('relation', 500, 0):
        assert [d['text'].split().count(m) for m in ('<e1>', '</e1>', '<e2>', '</e2>')] == [1, 1, 1, 1]
    for d in sentences('entities', 500, 0):
        assert len(d['tokens']) == len(d['tags'])
        assert all(t[0] != 'I' or s in (t, 'B' + t[1:]) for s, t in zip(['O', *d['tags']], d['tags']))


def test_unknown_task_and_too_many_rows_are_said():
    with pytest.raises(ValueError, match='sentiment'): sentences('sentimant', 3, 0)


def test_ill_formed_differs_by_one_slip():
    r = grammar.random.Random(0)
    for _ in range(500):
        text, _ = grammar.maybe_ill(r, False)
        bad = grammar.corrupt(r, text)
        assert len(bad) == len(text) and 1 <= sum(a != b for a, b in zip(text, bad)) <= 2


@pytest.mark.parametrize('attribute', nano.QUESTIONS)
def test_cloze(attribute, encoder):
    among_answers, among_all = cloze_accuracy(*encoder, attribute, 500, seed=77)
    assert min(among_answers, among_all) >= REACHED[attribute] - .04


def ends_of(words):
    "Every tail of a sentence, with marks and without."
    for kept in (words, [w for w in words if w not in grammar.MARKS]):
        for i in range(len(kept)): yield ' '.join(kept[i:])


@pytest.fixture(scope='module')
def rows():
    "All sentences that begin a row of a task, as text without marks too; the rows of every split are among them."
    found = set()
    for task in TASKS:
        for d in sentences(task, 5000, 0):
            words = d['text'].split() if 'text' in d else d['tokens']
            found |= {' '.join(words), ' '.join(w for w in words if w not in grammar.MARKS)}
    return found


def test_the_texts_that_nano_read_hold_no_row_of_a_task(rows):
    settings = inspect.signature(nano.pretrain).parameters
    banks = nano.banks(settings['seed'].default, settings['n_bank'].default)
    assert [len(bank) for bank in banks] == [100_000] * 3
    read = {tail for text, second, _ in sum(banks, []) for words in (text, second or ()) for tail in ends_of(words)
            if tail in rows}
    assert not read


def test_the_written_corpus_holds_no_row_of_a_task(rows):
    words, seen = nano.vocabulary(), 0
    for x, _, y, _ in nano.corpus(*nano.banks(3, 2000), words, 64, 32, 3):
        for line in torch.where(y >= 0, y, x).tolist():
            text = [words[i] for i in line]
            for stop in (i for i, w in enumerate(text) if w == '.'):
                seen += 1
                assert not any(tail in rows for tail in ends_of(text[:stop + 1]))
    assert seen > 1000


def test_an_earlier_rule_would_be_caught(rows):
    r = grammar.random.Random(0)
    assert any(' '.join(nano.single(r)[0]) in rows for _ in range(20_000))


def test_task_rows_begin_with_a_sentence_that_is_kept_back():
    for task in TASKS:
        for d in sentences(task, 200, 9): assert grammar.kept_back(d['text'].split() if 'text' in d else d['tokens'])


def test_pretraining_lowers_the_loss_and_writes_files(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(torch, 'set_flush_denormal', bool)  # it would hold for all tests that follow in this process
    looks = nano.pretrain(tmp_path/'nano', steps=30, batch=64, n_bank=500, every=10)
    assert looks[-1][1] < looks[0][1] < 7
    AutoModelForMaskedLM.from_pretrained(tmp_path/'nano'), AutoTokenizer.from_pretrained(tmp_path/'nano')
    assert [p.name for p in tmp_path.iterdir()] == ['nano']

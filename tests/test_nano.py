"The grammar and the small encoder. Other seeds may repeat rows of one seed: only rows inside one call are distinct."
import inspect
import re
from collections import Counter

import pytest, torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from infoprompt.method.encoders import Encoder
from infoprompt.nano import grammar, pretrain as nano
from infoprompt.nano.family import FAMILY, family_rows
from infoprompt.nano.pretrain import NANO_TASKS, cloze_accuracy, nano_path, sentences

TASKS = [*NANO_TASKS, 'entities']
PAIRS = 'paraphrase', 'entailment'
REACHED = dict(sentiment=1.00, topic=1.00, tense=1.00, country=1.00, acceptability=0.93, paraphrase=0.92,
               entailment=0.91, relation=1.00)


WIDE_REACHED = REACHED | dict(acceptability=.99, paraphrase=.88, entailment=.90)


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


@pytest.mark.parametrize('name', nano.MADE)
def test_the_texts_that_an_encoder_read_hold_no_row_of_a_task(rows, name):
    banks = nano.banks(nano.MADE[name]['seed'], inspect.signature(nano.pretrain).parameters['n_bank'].default)
    assert [len(bank) for bank in banks] == [100_000] * 3
    read = {tail for text, second, _ in sum(banks, []) for words in (text, second or ()) for tail in ends_of(words)
            if tail in rows}
    assert not read


@pytest.mark.parametrize('name', nano.MADE)
def test_the_written_corpus_holds_no_row_of_a_task(rows, name):
    words, seen = nano.vocabulary(), 0
    reader = AutoTokenizer.from_pretrained(nano_path(name)) if name == 'nano-wide' else None
    tokens = reader.convert_ids_to_tokens(range(len(reader))) if reader else words
    for x, _, y, _ in nano.corpus(*nano.banks(3, 2000), words, 64, 32, 3, reader):
        for line in torch.where(y >= 0, y, x).tolist():
            text = ' '.join(tokens[i] for i in line).replace(' ##', '').split()
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


@pytest.mark.parametrize('name', nano.MADE)
def test_pretraining_lowers_the_loss_and_writes_files(tmp_path, monkeypatch, name):
    torch.set_num_threads(1)
    monkeypatch.setattr(torch, 'set_flush_denormal', bool)  # it would hold for all tests that follow in this process
    looks = nano.pretrain(tmp_path/'nano', steps=30, batch=64, n_bank=500, every=10, encoder=name)
    assert looks[-1][1] < looks[0][1] < 7
    AutoModelForMaskedLM.from_pretrained(tmp_path/'nano'), AutoTokenizer.from_pretrained(tmp_path/'nano')
    assert [p.name for p in tmp_path.iterdir()] == ['nano']


@pytest.fixture(scope='module')
def wide():
    path = nano_path('nano-wide')
    return AutoModelForMaskedLM.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)


def test_the_second_encoder_is_another_one(wide, encoder):
    model, tokenizer = wide
    assert sum(f.stat().st_size for f in nano_path('nano-wide').iterdir()) <= 1_500_000
    assert Encoder('nano-wide').d_in == model.config.hidden_size == 96 and model.config.num_hidden_layers == 3
    mine, other = tokenizer.get_vocab(), encoder[1].get_vocab()
    special = {*tokenizer.all_special_tokens}
    assert sum(mine[w] == other[w] for w in mine.keys() & other.keys() - special) <= 1
    assert len(mine.keys() & other.keys()) < .9 * len(mine) and len(tokenizer) == model.config.vocab_size


@pytest.mark.parametrize('attribute', nano.QUESTIONS)
def test_clozes_of_the_second_encoder(attribute, wide):
    among_answers, among_all = cloze_accuracy(*wide, attribute, 500, seed=77)
    assert min(among_answers, among_all) >= WIDE_REACHED[attribute] - .04


def test_the_second_encoder_reads_every_row_and_answers_in_single_tokens(wide):
    _, tokenizer = wide
    for name, task in FAMILY.items():
        assert all(len(tokenizer.tokenize(w)) == 1 for w in task['labels'].values())
        for d in family_rows(name, 200, 5):
            ids = tokenizer(*(d[k] for k in ('text', 'pair') if k in d)).input_ids
            assert tokenizer.unk_token_id not in ids and len(ids) <= 60


def test_pieces_are_the_words_again():
    words, texts = nano.vocabulary(), nano.banks(3, 50)
    reader = nano.make_tokenizer(nano.vocabulary_of_pieces(words), 112)
    def read(tokenizer, names):
        batches = [*nano.corpus(*texts, words, 8, 16, 3, tokenizer)]
        lines = [line for x, _, y, _ in batches for line in torch.where(y >= 0, y, x).tolist()]
        hidden = sum(int((y >= 0).sum()) for _, _, y, _ in batches)
        return sorted(' '.join(names[i] for i in line if i != 1).replace(' ##', '') for line in lines), hidden
    whole, cut = read(None, words), read(reader, reader.convert_ids_to_tokens(range(len(reader))))
    assert whole[0] == cut[0] and len(whole[0]) == 128 and whole[1] < cut[1]


def test_an_encoder_can_be_named_on_the_command_line(monkeypatch):
    called = []
    monkeypatch.setattr(nano, 'pretrain', lambda **given: called.append(given))
    monkeypatch.setattr(torch, 'set_num_threads', lambda n: None)
    nano.main(['--encoder', 'nano-wide'])
    nano.main(['--steps', '7'])
    assert called[0]['out'] == nano_path('nano-wide') and called[0]['steps'] == nano.MADE['nano-wide']['steps']
    assert called[1]['out'] == nano_path() and (called[1]['steps'], called[1]['seed']) == (7, 0)

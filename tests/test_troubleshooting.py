"""The page on troubleshooting: each error and warning that it quotes comes from the package, in the case that
it describes"""
import re
import nbformat
import pytest
from conftest import root
from helpers import *

def quoted():
    "Return the texts in the headings of the page, with `…` for what differs from case to case."
    cells = nbformat.read(root/'nbs/troubleshooting.ipynb', 4).cells
    return re.findall(r'^### `(.+)`$', '\n'.join(o.source for o in cells), re.M)

def frozen(learn):
    for p in learn.model.parameters(): p.requires_grad_(False)
    return learn

def constant(out, target): return (out*0).sum() + 1

def loader(**kwargs): return lambda: DataLoader(list(zip(x, y)), **kwargs)

def other_loaders(learn, valid):
    learn.dls = DataLoaders(learn.dls.train, *([valid] if valid else []), device='cpu')
    return learn

def twice(path, then=noop, **kwargs):
    "Fit with a checkpoint, call `then` with its files, and fit again with `kwargs`."
    fit(learner(path), cycle_len=1, checkpoint='run')
    for o in (path/'models').glob('run*.ckpt'): then(o)
    fit(learner(path), **dict(cycle_len=1, checkpoint='run') | kwargs)

def damage(file): file.write_bytes(b'damaged')

class Table(Callback):
    def __init__(self): self.file = open(__file__, encoding='utf-8')
    def after_fit(self): self.file.close()

class Steady(Callback):
    order = 70
    def before_batch(self): self.learn.opt.set_hyper('lr', 0.01)

def one_class(): return DataLoader([(row, y[0]) for row in x], bs=16)
def nan_inputs(): return DataLoader([(row*math.nan, target) for row,target in zip(x, y)], bs=16)
def verdict(learn, **kwargs): raise ValueError(search(learn, **kwargs).why)

# What to do to see each of these texts, in the order of the page
causes = [
    lambda p: fit(l := learner(p, train=nan_inputs), search(l)),
    lambda p: verdict(learner(p, train=nan_inputs)),
    lambda p: verdict(learner(p, loss_func=constant)),
    lambda p: verdict(learner(p), start_lr=1, end_lr=1e3),
    lambda p: search(other_loaders(learner(p), None)),
    lambda p: search(other_loaders(learner(p), one_class()), valid_order='loader'),
    lambda p: search(learner(p, cbs=Steady())),
    lambda p: fit(learner(p, train=loader(bs=96)), cycle_len=1),
    lambda p: fit(learner(p), lr_max=0.1),
    lambda p: fit(learner(p), 5, cycle_len=None),
    lambda p: fit(learner(p), n_cycle=2, cycle_len=None),
    lambda p: fit(learner(p), use_clr_beta=(10, 0.3)),
    lambda p: fit(learner(p, cbs=ParamScheduler({'lr':SchedNo(0.1, 0.1)}))),
    lambda p: fit(learner(p, cbs=Explode(9)), on_diverge='raise'),
    lambda p: fit(learner(p, cbs=Explode(9))),
    lambda p: fit(learner(p), [0.01,0.1]),
    lambda p: fit(frozen(learner(p))),
    lambda p: search(learner(p, model=lambda: nn.LazyLinear(3))),
    lambda p: fit(learner(p, opt_func=partial(OptimWrapper, opt=torch.optim.Adagrad))),
    lambda p: fit(learner(p, train=loader(bs=200, drop_last=True))),
    lambda p: learner(p).to_precision('fp16'),
    lambda p: fit(learner(p), resume=True),
    twice,
    lambda p: twice(p, cycle_len=2, resume=True),
    lambda p: twice(p, damage, resume=True),
    lambda p: fit(learner(p, cbs=Table()), checkpoint='run'),
]

def test_there_is_a_cause_for_each_text(): assert len(quoted()) == len(causes)

@pytest.mark.parametrize('text,cause', list(zip(quoted(), causes)), ids=quoted()[:len(causes)])
def test_each_text_is_told(text, cause, tmp_path):
    with told() as texts:
        try: cause(tmp_path)
        except Exception as e: texts.append(str(e))
    pattern = '.*'.join(map(re.escape, text.split('…')))
    assert any(re.search(pattern, o, re.S) for o in texts), texts

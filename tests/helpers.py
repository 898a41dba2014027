"A small task, and runs of it that are whole, or killed and resumed"
import contextlib, io, warnings
import pytest
from fastai.callback.all import *
from fastai_clrbeta.all import *

TorchDL = torch.utils.data.DataLoader
x,y = torch.linspace(-2, 2, 128*6).view(128, 6).sin(),torch.arange(128)%3

def Kill(at, event='after_batch'):
    """A callback that presses Ctrl-C when `event` happens in training step `at`, after all other callbacks,
    also that of the checkpoint. It has no attributes, since a resumed run
    would get those of the run before it."""
    def strike(self):
        if self.training and self.train_iter == at: raise KeyboardInterrupt
    return type('Kill', (Callback,), {'order':3000, event:strike})()

def mlp(): return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))

def learner(path, cbs=(), train=None, model=mlp, **kwargs):
    "A Learner with 8 batches in an epoch"
    set_seed(1, reproducible=True)
    items = list(zip(x, y))
    train = train() if train else DataLoader(items, bs=16, shuffle=True)
    dls = DataLoaders(train, DataLoader(items, bs=64), device='cpu')
    kwargs = dict(loss_func=CrossEntropyLossFlat(), opt_func=sgd, metrics=accuracy) | kwargs
    return Learner(dls, model(), path=path, cbs=cbs, **kwargs)

def fit(learn, **kwargs):
    "Train for 3 epochs, in silence"
    with learn.no_bar(), learn.no_logging(), contextlib.redirect_stdout(io.StringIO()):
        learn.fit_clr_beta(0.1, **dict(cycle_len=3) | kwargs)
    return learn

def killed(learn, **kwargs):
    "Train until the `Kill` of `learn` strikes"
    with pytest.raises(KeyboardInterrupt): fit(learn, **dict(checkpoint='run', every_iter=1) | kwargs)
    return learn

def resumed(learn, **kwargs): return fit(learn, **dict(checkpoint='run', every_iter=1, resume=True) | kwargs)

def search(learn, **kwargs): return learn.lr_find_val(num_it=12, show_plot=False, **kwargs)

@contextlib.contextmanager
def told():
    "The list of the warnings of the block, as texts, without those of fastai and of a missing `Kill`"
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        res = []
        yield res
    texts = [str(o.message) for o in w if issubclass(o.category, UserWarning)]
    res += [o for o in texts if 'shadowing an attribute' not in o and 'the state of Kill' not in o]

def weights(learn): return [o.tolist() for o in learn.model.parameters()]

def outcome(learn):
    "All that must be the same in two runs, except for the times of the epochs"
    rec = learn.recorder
    return weights(learn),[list(o)[:-1] for o in rec.values],list(map(float, rec.losses)),rec.hps

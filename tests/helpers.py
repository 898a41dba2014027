"A small task, and runs of it that are whole, or killed and resumed"
import contextlib, itertools, os, signal, warnings
from functools import lru_cache
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from fastai.callback.all import *
from fastai_clrbeta.all import *

TorchDL = torch.utils.data.DataLoader

# The task: 6 batches in an epoch
n_rows = 96
x,y = torch.linspace(-2, 2, n_rows*6).view(n_rows, 6).sin(),torch.arange(n_rows)%3
images = torch.linspace(-1, 1, n_rows*3*8*8).view(n_rows, 3, 8, 8)

def two_layers(middle): return nn.Sequential(nn.Linear(6, 16), middle, nn.Dropout(0.3), nn.Linear(16, 3))
def mlp(): return two_layers(nn.ReLU())
def normed(): return two_layers(nn.BatchNorm1d(16))
def conv():
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.1), nn.Linear(144, 3)
    return nn.Sequential(*layers)

decoded = lru_cache(digits_dls)

def digits(bs=32, size=8, seed=0):
    "What `digits_dls` returns. It decodes the images once: all such loaders share them."
    dls = decoded(bs=bs, size=size, seed=seed)
    shared = {id(o):o for dl in dls.loaders for o in (dl.dataset, *dl.mem)}
    return deepcopy(dls, shared)

def save_digits(folder):
    "Write 400 training and 100 validation digits of 8×8 pixels as PNG files. Return the folder."
    loaded = load_digits()
    for i,(pixels,label) in enumerate(zip(loaded.images[:500], loaded.target)):
        file = folder/('test' if i>=400 else 'train')/str(label)/f'{i}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels*15).astype('uint8')).convert('RGB').save(file)
    return folder

kinds = dict(rows=(x, mlp), normed=(x, normed), images=(images, conv))

def learner(path, cbs=(), kind='rows', train=None, model=None, seed=1, **kwargs):
    "A Learner with the model and the inputs of its kind; `train` and `model` make others."
    inputs,model_of_kind = kinds[kind]
    items = list(zip(inputs, y))
    set_seed(seed, reproducible=True)
    train = train() if train else DataLoader(items, bs=16, shuffle=True)
    dls = DataLoaders(train, DataLoader(items, bs=64), device='cpu')
    kwargs = dict(loss_func=CrossEntropyLossFlat(), opt_func=sgd, metrics=accuracy) | kwargs
    return Learner(dls, (model or model_of_kind)(), path=path, cbs=cbs, **kwargs)

# What ends a run
def interrupt(): signal.raise_signal(signal.SIGINT)
def sigkill(): os.kill(os.getpid(), signal.SIGKILL)

def nth(n, f):
    "Return a function that calls `f` when it is called for the `n`th time."
    count = itertools.count(1)
    def call():
        if next(count) == n: f()
    return call

in_both = 'before_batch','after_pred','after_loss','after_batch'

def CrashAt(event, step=0, how=interrupt, order=3000, valid=False):
    """A callback that ends the run when `event` happens after `step` steps or more. An event of both training
    and validation counts in training only or, if `valid`, in validation only. By default the callback
    acts after all others, also that of the checkpoint. It has no attributes, since a resumed run
    would get those of the run before it."""
    def crash(self):
        if event in in_both and self.training == valid: return
        if self.train_iter >= step: how()
    return type('CrashAt', (Callback,), {'order':order, event:crash})()

class Explode(Callback):
    "Diverge at the fifth step of a run of fewer epochs than these, on the last process alone"
    order = -11
    def __init__(self, fewer_than): self.fewer_than = fewer_than
    def after_loss(self):
        last = rank_distrib() == max(num_distrib(), 1) - 1
        if not last or not self.training or self.n_epoch >= self.fewer_than: return
        if self.train_iter == 4: self.learn.loss = self.learn.loss*float('nan')

# Runs
def fit(learn, lrs=0.1, **kwargs):
    "Train for 3 epochs, without a bar and a table"
    with learn.no_bar(), learn.no_logging(): learn.fit_clr_beta(lrs, **dict(cycle_len=3) | kwargs)
    return learn

with_checkpoint = dict(checkpoint='run', every_iter=3)  # to write one takes longer than a step

def killed(learn, **kwargs):
    "Train until the `CrashAt` of `learn` strikes"
    with pytest.raises(KeyboardInterrupt): fit(learn, **with_checkpoint | kwargs)
    return learn

def resumed(learn, **kwargs): return fit(learn, **with_checkpoint | dict(resume=True) | kwargs)

def search(learn, **kwargs):
    "Run a range test, and trials, with cycles of 12 steps in place of 100, only if they are asked for."
    with pytest.MonkeyPatch.context() as m:
        m.setattr('fastai_clrbeta.lr_find.trial_steps', 12)
        return learn.lr_find_val(**dict(num_it=12, show_plot=False, trials=False) | kwargs)

@contextlib.contextmanager
def told():
    "The list of the warnings of the block, as texts, without those of fastai and of a missing `CrashAt`"
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        res = []
        yield res
    texts = [str(o.message) for o in w if issubclass(o.category, UserWarning)]
    res += [o for o in texts if 'shadowing an attribute' not in o and 'made with CrashAt' not in o]

# What must be the same in two runs
def weights(learn): return {k:v.tolist() for k,v in learn.model.state_dict().items()}

def history(learn):
    "Values of epochs, and losses, rates, settings and epochs of steps, as text: nan is equal to nan there"
    rec = learn.recorder
    return str([[[*o] for o in rec.values], [*map(float, rec.losses)], rec.lrs, rec.hps, rec.iters])

def outcome(learn): return weights(learn),history(learn)

def assert_same_run(a, b): assert outcome(a) == outcome(b)

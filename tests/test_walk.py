"What a run can hold, in memory and in a checkpoint alike: each run here is whole, or cut and resumed, or interrupted by a range test"
import warnings
from copy import deepcopy
from dataclasses import dataclass, field
from types import SimpleNamespace
import pytest
from fastai.callback.all import *
from fastai.text.all import *
from fastai_clrbeta.all import *

TorchDL = torch.utils.data.DataLoader
x,y = torch.linspace(-2, 2, 128*6).view(128,6).sin(),torch.arange(128)%3
frame = pd.DataFrame(dict(text=['the film was good and long and good', 'bad acting in a bad plot']*20))

class Cut(Callback):
    order = 2000
    def __init__(self, at): self.at = at
    def after_batch(self):
        if self.training and self.train_iter == self.at: raise KeyboardInterrupt

def dls(train=None): return DataLoaders(train or DataLoader(list(zip(x, y)), bs=16, shuffle=True), DataLoader(list(zip(x, y)), bs=64), device='cpu')

def mlp(): return nn.Sequential(nn.Linear(6,16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16,3))

def learner(path, cbs=None, model=None, train=None, **kwargs):
    set_seed(1, reproducible=True)
    kwargs = dict(loss_func=CrossEntropyLossFlat(), opt_func=sgd, metrics=accuracy) | kwargs
    return Learner(dls(train and train()), (model or mlp)(), path=path, cbs=cbs, **kwargs)

def fit(learn, **kwargs): learn.fit_clr_beta(0.1, cycle_len=3, **kwargs)

def outcome(learn):
    rec = learn.recorder
    return [o.tolist() for o in learn.model.parameters()],[list(o)[:-1] for o in rec.values],list(map(float, rec.losses)),rec.hps

# Callbacks that train by what they keep
class EMA(Callback):
    "As fastxtend's: lists of the parameters of both models"
    def before_fit(self):
        self.ema = deepcopy(self.model)
        self.src,self.dst = list(self.model.parameters()),list(self.ema.parameters())
    def after_step(self):
        for d,s in zip(self.dst, self.src): d.data.lerp_(s.data, 0.3)
        if self.epoch == 2: [s.data.lerp_(d.data, 0.1) for d,s in zip(self.dst, self.src)]

class LateEMA(EMA):
    "Made in the first epoch only"
    def before_fit(self): pass
    def before_train(self):
        if not hasattr(self, 'ema'): EMA.before_fit(self)

class Unfreeze(Callback):
    def after_create(self): self.learn.freeze_to(-1)
    def before_epoch(self):
        if self.epoch == 1: self.learn.freeze_to(0)

class DropSched(Callback):
    def after_epoch(self): self.model[2].p *= 0.3

class OnLearn(Callback):
    def before_fit(self): self.learn.seen,self.learn.notes = 0,{}
    def after_loss(self):
        self.learn.seen += self.training
        self.learn.notes[self.learn.epoch] = self.learn.seen
        self.learn.loss_grad = self.loss_grad/(1+self.seen+sum(self.notes.values()))

@dataclass
class Stats:
    n:int = 0
    seen:list = field(default_factory=list)

class Plain(Callback):
    "Namespaces, dataclasses, lazily made dicts, odd numbers, shared lists"
    def before_fit(self):
        self.ns,self.stats,self.when = SimpleNamespace(n=0),Stats(),np.datetime64('2020-01-01')
        self.a = self.b = []
        self.arr = np.zeros(3); self.half = self.arr[1:]
    def after_loss(self):
        if not self.training: return
        if not hasattr(self, 'hist'): self.hist,self.late = defaultdict(list),SimpleNamespace(x=collections.Counter())
        self.hist[self.epoch].append(self.loss.item()); self.late.x[self.epoch] += 1
        self.ns.n += 1; self.stats.n += 1; self.stats.seen.append(self.loss.item()); self.a.append(1.); self.half += 1
        assert self.a is self.b and type(self.hist) is defaultdict and self.arr[1] == self.half[0]
        f = self.ns.n + self.stats.n + len(self.stats.seen) + len(self.hist) + sum(self.late.x.values()) + len(self.b) + self.arr.sum()
        self.learn.loss_grad = self.loss_grad/f

class Views(Callback):
    "References to parameters, parts of them, and what shares their memory"
    def before_fit(self):
        w = self.model[0].weight
        self.w,self.part,self.byname = w,w.detach()[:,:4],{'w':w}
    def before_batch(self):
        if not hasattr(self, 'late'): self.late = self.w.detach()[1:]
    def after_loss(self):
        w = self.model[0].weight
        assert self.w is w is self.byname['w']
        f = 1 + self.part.abs().sum().item() + self.late.abs().sum().item()
        assert self.part.equal(w[:,:4]) and self.late.equal(w[1:])
        self.learn.loss_grad = self.loss_grad/f

class Switch(Callback):
    "A setting that is changed on the way"
    def __init__(self, active=False): self.active = active
    def before_epoch(self): self.active = self.active or self.epoch == 1
    def after_loss(self):
        if self.active: self.learn.loss_grad = self.loss_grad*0.3

class Own(Callback):
    "Random numbers of its own"
    def __init__(self): self.gens = [random.Random(0), np.random.default_rng(0), np.random.RandomState(0), torch.Generator().manual_seed(0)]
    def after_loss(self):
        r,g,s,t = self.gens
        self.learn.loss_grad = self.loss_grad*(r.random() + g.random() + s.rand() + torch.rand(1, generator=t).item())

class Validates(Callback):
    "Looks at the validation set before each epoch"
    def before_train(self):
        if hasattr(self.learn, 'gather_preds'): return
        self.seen = self.learn.get_preds(inner=True)[0].mean().item()
        self.learn.dl,self.learn.training = self.dls.train,True
        self.model.train()
    def after_loss(self):
        if self.training: self.learn.loss_grad = self.loss_grad*(1+self.seen)

# State that no attribute of an object holds
class OfClass(Callback):
    n = 0
    log,order,names = object(),3,['a']  # neither counters nor to be kept
    def __init__(self): OfClass.n = 0
    def after_loss(self):
        if not self.training: return
        type(self).n += 1
        self.learn.loss_grad = self.loss_grad*(1 + self.n/50)

def closing_over():
    "A callback whose methods keep a variable and a generator of the function that made its class"
    n,gen = 0,random.Random(0)
    def more(k):
        nonlocal n
        n += k
    class Closed(Callback):
        def after_loss(self):
            more(self.training)
            self.learn.loss_grad = self.loss_grad*(1 + n/50 + gen.random())
    return Closed()

n_global,more_world = 0,random.Random(0)
def count(k):
    "A function that the methods of a callback call, and that counts twice"
    global n_global
    n_global += k
    count.calls += 1
def by_globals():
    global n_global
    n_global = count.calls = 0
    more_world.seed(0)
    class Counting(Callback):
        def after_loss(self):
            count(int(self.training))
            self.learn.loss_grad = self.loss_grad*(1 + (n_global+count.calls)/50 + more_world.random())
    return Counting()

def hooked():
    "A hook that counts"
    n,m = 0,mlp()
    def hook(m, x, y):
        nonlocal n
        n += 1
        return y*(1 + n/100)
    m.register_forward_hook(hook)
    return m

def weighted():
    "A loss that counts in an attribute of its own"
    def loss(p, y):
        loss.n += 1
        return F.cross_entropy(p, y)*(1 + loss.n/50)
    loss.n = 0
    return loss

callbacks = dict(ema=EMA, late_ema=LateEMA, unfreeze=Unfreeze, drop=DropSched, on_learn=OnLearn, plain=Plain, views=Views, switch=Switch, own=Own,
                 get_preds=Validates, of_class=OfClass, closure=closing_over, by_globals=by_globals)

# Data with a state of its own
class InPlace(torch.utils.data.Sampler):
    def __init__(self, n): self.order = list(range(n))
    def __len__(self): return len(self.order)
    def __iter__(self): random.shuffle(self.order); return iter(self.order)

class InArray(InPlace):
    def __init__(self, n): self.order,self.rng = np.arange(n),np.random.default_rng(0)
    def __iter__(self): self.rng.shuffle(self.order); return iter(self.order.tolist())

class InTensor(InPlace):
    def __init__(self, n): self.order = torch.arange(n)
    def __iter__(self): self.order[:] = self.order[torch.randperm(len(self.order))]; return iter(self.order.tolist())

class Noisy(torch.utils.data.Dataset):
    "As albumentations and many a user's own"
    def __init__(self, noise=None): self.rng,self.noise,self.n = np.random.default_rng(0),noise,0
    def __len__(self): return 128
    def __getitem__(self, i):
        self.n += 1
        noise = self.noise(x[i]) if self.noise else self.rng.normal(0, 0.3, 6)
        return x[i] + torch.as_tensor(noise, dtype=torch.float) + self.n/1000, y[i]

def closure():
    g = random.Random(0)
    return lambda o: g.random()
world = np.random.default_rng(5)
def by_global(o): return world.random()
class Transformed:
    def __init__(self): self.steps = [SimpleNamespace(gen=torch.Generator().manual_seed(1))]
    def __call__(self, o): return torch.rand(6, generator=self.steps[0].gen)
class Global(torch.utils.data.Dataset):
    def __len__(self): return 128
    def __getitem__(self, i): return x[i] + world.random(), y[i]

class Counted(torch.utils.data.Dataset):
    "The class counts what has been drawn"
    n = 0
    def __init__(self): type(self).n = 0
    def __len__(self): return 128
    def __getitem__(self, i): Counted.n += 1; return x[i] + self.n/1000, y[i]

class Shared(torch.utils.data.Dataset):
    rng = random.Random(0)
    def __len__(self): return 128
    def __getitem__(self, i): return x[i] + self.rng.random(), y[i]

class WorldDL(DataLoader):
    "A loader that knows a generator as a global"
    def get_idxs(self): return world.permutation(128).tolist()

def torch_dl(ds=None, **kwargs): return TorchDL(ds or torch.utils.data.TensorDataset(x, y), 16, **kwargs)
def with_world(f):
    def make():
        world.bit_generator.state = np.random.default_rng(5).bit_generator.state
        Shared.rng.seed(0)
        return f()
    return make
data = dict(
    list    = lambda: torch_dl(sampler=InPlace(128)),
    array   = lambda: torch_dl(sampler=InArray(128)),
    tensor  = lambda: torch_dl(sampler=InTensor(128)),
    batches = lambda: TorchDL(torch.utils.data.TensorDataset(x, y), batch_sampler=torch.utils.data.BatchSampler(InPlace(128), 16, False)),
    rng     = lambda: torch_dl(Noisy(), shuffle=True),
    closure = lambda: torch_dl(Noisy(closure()), shuffle=True),
    by_global = with_world(lambda: torch_dl(Noisy(by_global), shuffle=True)),
    getitem = with_world(lambda: torch_dl(Global(), shuffle=True)),
    shared  = with_world(lambda: torch_dl(Shared(), shuffle=True)),
    counted = lambda: torch_dl(Counted(), shuffle=True),
    loader  = with_world(lambda: WorldDL(list(zip(x, y)), bs=16)),
    tfm     = lambda: torch_dl(Noisy(Transformed()), shuffle=True),
    subset  = lambda: torch_dl(torch.utils.data.Subset(Noisy(), list(range(128))[::-1]), shuffle=True),
    fastai  = lambda: DataLoader(Noisy(), bs=16, shuffle=True),
    after_batch = lambda: TfmdDL(list(zip(x, y)), bs=16, shuffle=True, after_batch=lambda o, g=closure(): o+g(0) if o.is_floating_point() else o))

# Models and losses
class Calls(Module):
    def __init__(self): self.net,self.st,self.base = mlp(),SimpleNamespace(calls=0),nn.Parameter(torch.ones(1))
    def forward(self, x): self.st.calls += 1; return self.net(x)*self.base + self.st.calls/1000

class ClassCalls(Module):
    n = 0
    def __init__(self): self.net,ClassCalls.n = mlp(),0
    def forward(self, x): type(self).n += 1; return self.net(x) + self.n/1000

class Gains(Module):
    "Parameters that are one number each, in a list of the model's"
    def __init__(self):
        self.net,self.a,self.b = mlp(),nn.Parameter(torch.tensor(1.)),nn.Parameter(torch.tensor(1.))
        self.gains = [self.a,self.b]
    def forward(self, x): return self.net(x)*self.gains[0]*self.gains[1]

class Arc:
    "A loss with a learnt scale, no nn.Module"
    def __init__(self): self.s = nn.Parameter(torch.ones(1))
    def __call__(self, p, y): return F.cross_entropy(p*self.s, y)

class Flat(Module):
    def __init__(self): self.rnn,self.out = nn.LSTM(6, 8, 2),nn.Linear(8,3)
    def forward(self, x): return self.out(self.rnn(x[None])[0][0])

def normed(): return nn.Sequential(nn.Linear(6,16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.Linear(16,3))
def scripted(f=normed):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return torch.jit.script(f())
def traced():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return torch.jit.trace(normed().train(), torch.randn(8,6), check_trace=False)
def part(): return nn.Sequential(scripted(), nn.Identity())
def tied():
    m = nn.Sequential(nn.Linear(6,6), nn.ReLU(), nn.Linear(6,6), nn.Linear(6,3))
    m[2].weight = m[0].weight
    return m

class Counting(Module):
    "A scripted module with a number and a buffer that it replaces"
    n:int
    def __init__(self):
        self.lin,self.n = nn.Linear(6,3),0
        self.register_buffer('sum', torch.zeros(1))
    def forward(self, x):
        self.n += 1
        self.sum = self.sum + 1
        return self.lin(x)*(1 + self.n/100 + self.sum/100)

class Odd(torch.optim.SGD):
    "An optimiser with a state that is not in its `state_dict`, and a dtype in its groups"
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.steps,self.mean = 0,[]
        for g in self.param_groups: g['dtype'] = torch.float32
    def state_dict(self): raise TypeError("not this one")
    def step(self, closure=None):
        self.steps += 1
        self.mean.append(1.)
        for g in self.param_groups: g['weight_decay'] = self.steps/1000 + len(self.mean)/1000
        return super().step()
    __hash__ = object.__hash__

def arc_learner(path, cbs=None):
    loss = Arc()
    return learner(path, cbs, loss_func=loss, splitter=lambda m: [params(m), [loss.s]])
models = dict(calls=dict(model=Calls), hook=dict(model=hooked), class_calls=dict(model=ClassCalls), gains=dict(model=Gains),
              lstm=dict(model=Flat), scripted=dict(model=scripted), traced=dict(model=traced), part=dict(model=part),
              tied=dict(model=tied), counting=dict(model=partial(scripted, Counting)), adam=dict(opt_func=Adam),
              odd=dict(opt_func=lambda p, lr: OptimWrapper(p, Odd, lr=lr, momentum=0.9)))

cases = {**{k:partial(lambda c, p, cbs=None: learner(p, [c(), *L(cbs)]), c) for k,c in callbacks.items()},
         **{f'data {k}':partial(lambda f, p, cbs=None: learner(p, cbs, train=f), f) for k,f in data.items()},
         **{f'model {k}':partial(lambda kw, p, cbs=None: learner(p, cbs, **kw), kw) for k,kw in models.items()}, 'loss':arc_learner,
         'loss function':lambda p, cbs=None: learner(p, cbs, loss_func=weighted())}

@pytest.mark.parametrize('make', cases.values(), ids=cases)
def test_cut_and_resumed_is_the_same(make, tmp_path):
    whole = make(tmp_path/'whole')
    fit(whole)
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message="a checkpoint can't hold")
        kept = make(tmp_path/'kept')
        fit(kept, checkpoint='run')  # to write one changes nothing
        assert outcome(kept) == outcome(whole)
        for at in 5,13,19:
            with pytest.raises(KeyboardInterrupt): fit(make(tmp_path/'cut', Cut(at)), checkpoint='run', every_iter=3, resume=True)
        again = make(tmp_path/'cut')
        fit(again, checkpoint='run', every_iter=3, resume=True)
    assert outcome(again) == outcome(whole)

@pytest.mark.parametrize('make', cases.values(), ids=cases)
def test_a_search_changes_nothing(make, tmp_path):
    whole,searched = make(tmp_path),make(tmp_path)
    fit(whole)
    searched = make(tmp_path)
    searched.lr_find_val(num_it=12, show_plot=False)
    fit(searched)
    with searched.no_trace(): fit(searched)
    assert outcome(searched) == outcome(whole)

def test_language_model(tmp_path):
    def make(cbs=None):
        set_seed(0, reproducible=True)
        dls = TextDataLoaders.from_df(frame, text_col='text', is_lm=True, bs=4, seq_len=5, seed=0)
        config = {**awd_lstm_lm_config, 'emb_sz':8, 'n_hid':8}
        return language_model_learner(dls, AWD_LSTM, pretrained=False, config=config, path=tmp_path, cbs=cbs)
    run = partial(Learner.fit_clr_beta, lrs=1e-2, cycle_len=3)
    whole = make()
    run(whole)
    n = len(whole.dls.train)
    for at in n-1,n+2,2*n+1:
        with pytest.raises(KeyboardInterrupt): run(make(Cut(at)), checkpoint='lm', every_iter=2, resume=True)
    again = make()
    run(again, checkpoint='lm', every_iter=2, resume=True)
    assert outcome(again) == outcome(whole)

def test_twice_in_one_learner(tmp_path):
    "A setting changed on the way is kept, also where the second fit begins with it changed"
    whole = learner(tmp_path, Switch())
    fit(whole)
    learn = learner(tmp_path, [Switch(), Cut(12)])
    with pytest.raises(KeyboardInterrupt): fit(learn, checkpoint='run', every_iter=2)
    learn.cut.at = 20
    with pytest.raises(KeyboardInterrupt): fit(learn, checkpoint='run', every_iter=2, resume=True)
    again = learner(tmp_path, Switch())
    fit(again, checkpoint='run', every_iter=2, resume=True)
    assert outcome(again) == outcome(whole)

def test_what_cannot_be_kept_is_named_wherever_it_lies(tmp_path):
    class Odd(Callback):
        def before_fit(self):
            self.frames,self.things,self.deep = [pd.DataFrame()],np.array([object(), 'x']),{'a':SimpleNamespace(t=pd.Series([1]))}
            self.fine = [1, print, None]
    learn = learner(tmp_path, Odd())
    with pytest.warns(UserWarning, match=r"can't hold Odd\.frames\[0\], Odd\.things, SimpleNamespace\.t: "): fit(learn, checkpoint='run')
    again = learner(tmp_path, Odd())
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        fit(again, checkpoint='run', resume=True)
    assert again.odd.things[1] == 'x' and len(again.odd.frames) == 1 and again.odd.fine[1] is print

def test_settings_are_the_resuming_runs(tmp_path):
    "Also those that a class or a function has around it"
    def make(p, at=None):
        given = {'factor':p}
        class Scaled(Callback):
            power = p
            def after_loss(self): self.learn.loss_grad = self.loss_grad*given['factor']*self.power
        cbs = [Scaled(), EarlyStoppingCallback(patience=int(10*p))] + ([Cut(at)] if at else [])
        return learner(tmp_path, cbs),given,Scaled
    with pytest.raises(KeyboardInterrupt): fit(make(0.1, 9)[0], checkpoint='run')
    learn,given,cls = make(0.7)
    fit(learn, checkpoint='run', resume=True)
    assert learn.early_stopping.patience == 7 and given == {'factor':0.7} and cls.power == 0.7

noted = []
def write_down(i): noted.append(i)
class Meter:
    def __init__(self): self.n = 0
    def add(self): self.n += 1
meter = Meter()
def test_what_code_fills_elsewhere_is_named_and_left_alone(tmp_path):
    "In a class, around a function, as a global variable: these lists are read by whoever made them"
    seen,marks,names,scale = [],collections.Counter(),['loss'],Stats(1)
    scale.factor = 1
    class Notes(Callback):
        losses = []
        def after_loss(self):
            for k in names: seen.append(getattr(self, k).item())
            marks[self.epoch] += 1
            self.losses.append(1)
            self.learn.loss_grad = self.loss_grad*scale.factor
        def after_batch(self): write_down(self.iter); meter.add()
        def after_epoch(self, had=[]):
            had.append(self.epoch)
            meter.n += 1
    learn = learner(tmp_path, Notes())
    where = [f'Notes.{o}' for o in ('after_loss.marks','after_loss.seen','after_batch.write_down.noted','after_batch.meter',
                                    'after_epoch(had)','after_epoch.meter','losses')]
    with pytest.warns(UserWarning, match="a checkpoint can't hold") as told: fit(learn, checkpoint='run')
    said, = [str(o.message) for o in told if "can't hold" in str(o.message)]
    assert all(o in said for o in where) and not ('names' in said or 'scale' in said)
    n = len(seen)
    learn.lr_find_val(num_it=12, show_plot=False)
    assert len(seen) > n and len(seen) == sum(marks.values()) == len(noted) == len(Notes.losses)

def test_lazy_modules_leave_no_trace(tmp_path):
    "What a forward pass makes of them is undone as well"
    m = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.Linear(8,3))
    learn = learner(tmp_path, model=lambda: m)
    with learn.no_trace(): learn.model(x)
    assert type(m[0]) is nn.LazyLinear and type(m[1]) is nn.LazyBatchNorm1d
    assert isinstance(m[0].weight, nn.parameter.UninitializedParameter) and isinstance(m[1].running_mean, nn.parameter.UninitializedBuffer)
    m(x)
    assert m[0].weight.shape == (8,6)

def test_memory_is_shared_as_before(tmp_path):
    "Views, expanded and tied tensors, before and after"
    learn = learner(tmp_path, model=tied)
    w = learn.model[0].weight
    learn.part,learn.wide = w.detach()[:,:4],torch.ones(1).expand(5)
    learn.lr_find_val(num_it=12, show_plot=False)
    with torch.no_grad(): w.fill_(3)
    assert (learn.part == 3).all() and learn.model[2].weight is w and (learn.wide == 1).all()
    with learn.no_trace(): w.data,learn.part = torch.zeros(6,6),None
    with torch.no_grad(): w.fill_(4)
    assert (learn.part == 4).all()

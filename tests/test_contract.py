"What a run consists of: it comes back after a range test and after a kill, or a warning names it"
from fastai.callback.all import *
from fastai.text.all import *
from fastai_clrbeta.all import *
from helpers import *
import datetime as dt, enum, io, os, re, warnings
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from copy import deepcopy
from dataclasses import dataclass, field, replace
from decimal import Decimal
from types import FunctionType, SimpleNamespace
import pytest
import torch.nn.utils.prune  # noqa: F401

# The table: every kind of value
class Color(enum.Enum): red,blue = 1,2

Best = namedtuple('Best', 'epoch loss')

class Ring(list): pos = 0

class Notes(dict): pos = 0

@dataclass
class Stats:
    n:int = 0
    seen:list = field(default_factory=list)

@dataclass(frozen=True)
class Fixed: n:int = 0

class Slots:
    __slots__ = 'n','seen'
    def __init__(self): self.n,self.seen = 0,[]

class Plain:
    def __init__(self): self.n,self.seen = 0,[]

class Value:
    "How a value begins, and what becomes of it in step `i`. If it is `named`, it need not survive a kill."
    def __init__(self, make, change, named=False): self.make,self.change,self.named = make,change,named

def inplace(make, change, **kwargs):
    "A value that stays the same object"
    def f(v, i):
        with torch.no_grad(): change(v, i)
        return v
    return Value(make, f, **kwargs)

def linear():
    m = nn.Linear(2, 2)
    for p in m.parameters(): nn.init.ones_(p)
    return m

def image():
    "An image of fastai that says where it comes from"
    res = TensorImage(torch.ones(2))
    res.source = Path('a')
    return res

def optimiser(): return torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9)
def optimise(opt, i):
    for p in opt.param_groups[0]['params']: p.grad = p*i
    opt.step()

def figure():
    fig = plt.Figure()
    fig.add_subplot().plot([0, 1])
    return fig
def draw(fig, i): fig.axes[0].plot([i, i])

def count(v, i):
    v.n += i
    v.seen.append(i)
def turn(v, i):
    v.append(i)
    v.pos += i
def note(v, i):
    v[i] = str(i)
    v.pos += i
def column(values): return pd.DataFrame(dict(a=values))
def add_row(df, i): df.loc[len(df)] = [i, i/2]
def add(v, k, i): v[k] += i
def array(dtype): return np.zeros(2, dtype)
def day(i): return dt.timedelta(days=i)
def sparse(): return torch.sparse_coo_tensor([[0, 1]], [1., 2.], (4,))

values = dict(
    number        = Value(lambda: 1000, lambda v,i: v+i),
    real          = Value(lambda: 0.5, lambda v,i: v+i/3),
    text          = Value(lambda: 'a', lambda v,i: f'{v} {i}'),
    truth         = Value(lambda: False, lambda v,i: v != (i in (2, 15, 16))),
    none          = Value(lambda: None, lambda v,i: i if i == 9 else v),
    to_none       = Value(lambda: 'something', lambda v,i: None if i == 9 else v),
    bytes         = Value(lambda: b'', lambda v,i: v+bytes([i])),
    complex       = Value(lambda: 1j, lambda v,i: v+i),
    enum          = Value(lambda: Color.red, lambda v,i: Color.blue if i == 9 else v),
    kind          = Value(lambda: Stats, lambda v,i: Fixed if i == 9 else v, named=True),
    tuple         = Value(lambda: (0, [1]), lambda v,i: (*v, i)),
    long_tuple    = Value(lambda: tuple(range(20)), lambda v,i: (*v, i)),
    namedtuple    = Value(lambda: Best(0, 1.), lambda v,i: v._replace(epoch=v.epoch+i)),
    list          = inplace(lambda: [0], lambda v,i: v.append(i)),
    list_subclass = inplace(lambda: Ring([0.]), turn),
    dict          = inplace(lambda: {'a':[0]}, lambda v,i: v['a'].append(i)),
    class_keys    = inplace(lambda: {int:0, Color.red:0, None:0}, lambda v,i: add(v, Color.red, i)),
    dict_subclass = inplace(lambda: Notes(a=1), note),
    ordered       = inplace(lambda: OrderedDict(a=1, b=2), lambda v,i: v.move_to_end('ab'[i in (2, 15, 16)])),
    counter       = inplace(Counter, lambda v,i: add(v, i%3, i)),
    defaultdict   = inplace(lambda: defaultdict(list), lambda v,i: v[i%3].append(i)),
    deque         = inplace(lambda: deque([0], maxlen=3), lambda v,i: v.append(v[-1]+i)),
    set           = inplace(lambda: {0}, lambda v,i: v.add(i)),
    frozenset     = Value(lambda: frozenset({0}), lambda v,i: v|{i}),
    path          = Value(lambda: Path('a'), lambda v,i: v/str(i)),
    date          = Value(lambda: dt.date(2020, 1, 1), lambda v,i: v+day(i)),
    datetime      = Value(lambda: dt.datetime(2020, 1, 1), lambda v,i: v+day(i)),
    timedelta     = Value(lambda: day(0), lambda v,i: v+day(i)),
    decimal       = Value(lambda: Decimal('0.1'), lambda v,i: v+i),
    range         = Value(lambda: range(1), lambda v,i: range(v.stop+i)),
    slice         = Value(lambda: slice(0, 1), lambda v,i: slice(v.stop, v.stop+i)),
    array         = inplace(lambda: array(float), lambda v,i: add(v, 0, i)),
    array_shape   = Value(lambda: array(float), np.append),
    array_dtype   = Value(lambda: array(int), lambda v,i: 0.9*v+i),
    float64       = Value(lambda: np.float64(1), lambda v,i: v+np.float64(i)),
    int64         = Value(lambda: np.int64(1), lambda v,i: v+np.int64(i)),
    structured    = inplace(lambda: array([('a', int), ('b', float)]), lambda v,i: add(v['a'], 0, i)),
    objects       = inplace(lambda: np.array(['a', 1, None], dtype=object), lambda v,i: add(v, 1, i)),
    numpy_rng     = inplace(lambda: np.random.default_rng(1), lambda v,i: v.random()),
    torch_rng     = inplace(lambda: torch.Generator().manual_seed(1), lambda v,i: torch.rand(1, generator=v)),
    python_rng    = inplace(lambda: random.Random(1), lambda v,i: v.random()),
    tensor        = inplace(lambda: torch.ones(2), lambda v,i: v.add_(i)),
    image         = inplace(image, lambda v,i: v.add_(i)),
    tensor_shape  = Value(lambda: torch.ones(2), lambda v,i: torch.cat([v, v[:1]+i])),
    expanded      = Value(lambda: torch.ones(1).expand(4), lambda v,i: (v[:1]+i).expand(4)),
    sparse        = Value(sparse, lambda v,i: v+v),
    sparse_inplace = inplace(sparse, lambda v,i: v.mul_(2)),
    parameter     = inplace(lambda: nn.Parameter(torch.ones(2)), lambda v,i: v.add_(i)),
    module        = inplace(linear, lambda v,i: v.weight.add_(i)),
    optimiser     = inplace(optimiser, optimise),
    frame         = inplace(lambda: pd.DataFrame(dict(a=[0], b=[0.])), add_row),
    frame_text    = Value(lambda: column(['x']), lambda v,i: pd.concat([v, v[:1]+str(i)])),
    frame_kinds   = Value(lambda: column(pd.Categorical(['x', 'y'])), lambda v,i: pd.concat([v, v[:1]])),
    frame_dates   = Value(lambda: column(pd.to_datetime(['2020-01-01'])), lambda v,i: v+day(i)),
    series        = Value(lambda: pd.Series([1, 2], name='s'), lambda v,i: v+i),
    dataclass     = inplace(Stats, count),
    frozen        = Value(Fixed, lambda v,i: replace(v, n=v.n+i)),
    slots         = inplace(Slots, count),
    plain         = inplace(Plain, count),
    namespace     = inplace(lambda: SimpleNamespace(n=0, seen=[]), count),
    fastcore_list = inplace(lambda: L(1), lambda v,i: v.append(i)),
    function      = Value(lambda: lambda: 0, lambda v,i: lambda: v, named=True),
    file          = inplace(lambda: open(__file__, encoding='utf-8'), lambda v,i: v.readline(), named=True),
    figure        = inplace(figure, draw, named=True),
    functions     = inplace(lambda: [lambda: 0], lambda v,i: v.append(lambda: i), named=True),
    with_figure   = inplace(lambda: SimpleNamespace(n=0, seen=[], fig=figure()), count, named=True))

def shown(o):
    "What `o` is and holds, in plain values that can be compared and that later changes leave alone"
    return type(o),_contents(o)

def _contents(o):
    if isinstance(o, (FunctionType, plt.Figure, io.IOBase, type)): return id(type(o))
    if isinstance(o, Tensor): return _contents_of_tensor(o)
    if isinstance(o, np.random.Generator): return str(o.bit_generator.state)
    if isinstance(o, torch.Generator): return o.get_state().tolist()
    if isinstance(o, random.Random): return o.getstate()
    if isinstance(o, (np.ndarray, np.generic)): return o.dtype,o.shape,[shown(v) for v in o.ravel().tolist()]
    if isinstance(o, (nn.Module, torch.optim.Optimizer)): return shown(dict(o.state_dict()))
    if isinstance(o, (pd.DataFrame, pd.Series)): return str(o.dtypes),str(o.to_dict())
    if isinstance(o, dict):
        return [[shown(k), shown(v)] for k,v in o.items()],getattr(o, 'default_factory', 0),_attributes(o)
    if isinstance(o, (list, tuple, deque)):
        return [shown(v) for v in o],getattr(o, 'maxlen', 0),_attributes(o)
    if isinstance(o, (set, frozenset)): return sorted(map(repr, o))
    return _attributes(o) or repr(o)

def _contents_of_tensor(o): return o.dtype,o.requires_grad,str(o.detach().to_dense().tolist()),shown(vars(o))

def _attributes(o):
    slots = {k:getattr(o, k) for k in getattr(o, '__slots__', ()) if hasattr(o, k)}
    return {k:shown(v) for k,v in (slots | getattr(o, '__dict__', {})).items()}

class Meter(Metric):
    "A metric of a user, which measures nothing here"
    value = 0.
    def reset(self): pass
    def accumulate(self, learn): pass

class Table(Callback):
    "In each step, change the values that callback, metric and Learner hold; make more of them in step 7"
    chosen = ()
    def after_loss(self):
        if not self.training: return
        i = self.train_iter+1
        for owner in owners(self.learn).values():
            for k in self.chosen:
                for when in 'start','late': self._step(owner, k, when, i)

    def _step(self, owner, k, when, i):
        name = name_of(k, owner, when)
        if name in vars(owner): setattr(owner, name, values[k].change(vars(owner)[name], i))
        elif when == 'late' and i == 7: setattr(owner, name, values[k].make())

def owners(learn): return dict(Table=learn.table, Meter=learn.metrics[0], learn=learn)

def name_of(k, owner, when):
    "fastai warns of an attribute of a callback that has the name of one of the Learner"
    return f'{k}_{when}_{type(owner).__name__.lower()}'

def holding(path, names, cbs=()):
    Table.chosen = names
    learn = learner(path, [Table(), *cbs], metrics=Meter())
    for owner in owners(learn).values():
        for k in names: setattr(owner, name_of(k, owner, 'start'), values[k].make())
    return learn

nothing = object()

def held(learn, names):
    "All values, by owner and name, that `learn` holds now"
    found = {(k, owner, when):vars(o).get(name_of(k, o, when), nothing)
             for owner,o in owners(learn).items() for k in names for when in ('start','late')}
    return {at:v for at,v in found.items() if v is not nothing}

everything = [(k, owner, when) for k in values for owner in ('Table','Meter','learn')
              for when in ('start','late')]

def wrong(expected, learn, names, told=()):
    "What `learn` holds otherwise than `expected`, as texts"
    res,now = {},held(learn, names)
    for at in everything:
        k,owner,when = at
        if k not in names or values[k].named and any(f'`{owner}.{k}_{when}_' in o for o in told): continue
        is_there,had = at in now,at in expected
        if is_there != had: res[at] = 'it is there' if is_there else 'it is missing'
        elif had and shown(now[at]) != expected[at]: res[at] = f'{shown(now[at])} in place of {expected[at]}'
    return res

def after_search(path, names):
    "Search with a range test and two trials."
    learn = holding(path, names)
    objects = held(learn, names)
    before = {at:shown(o) for at,o in objects.items()}
    search(learn, trials=[0.1,0.01])
    res = wrong(before, learn, names)
    return {at:'another object' for at,o in held(learn, names).items() if o is not objects.get(at)} | res

def after_kills(path, names):
    whole = fit(holding(path/'whole', names))
    with told() as texts:
        killed(holding(path, names, [CrashAt('after_batch', 10)]))
        killed(holding(path, names, [CrashAt('after_batch', 15)]), resume=True)
        learn = resumed(holding(path, names))
    assert not [o for o in texts if 'No checkpoint' in o]
    expected = {at:shown(o) for at,o in held(whole, names).items()}
    res = wrong(expected, learn, names, texts)
    if outcome(learn) != outcome(whole): res = dict.fromkeys(everything, 'other weights')
    return res

def outcomes(f, path, names):
    "What `f` says of each value. If it raises an error, find out for which."
    path.mkdir()
    try: return f(path, names)
    except (Exception, pytest.fail.Exception) as e:
        if len(names) == 1: return {at:repr(e) for at in everything if at[0] == names[0]}
        n = len(names)//2
        return outcomes(f, path/'a', names[:n]) | outcomes(f, path/'b', names[n:])

@pytest.fixture(scope='module', params=[after_search, after_kills], ids=['search','kill'])
def table(request, tmp_path_factory):
    return outcomes(request.param, tmp_path_factory.mktemp('table')/'runs', list(values))

@pytest.mark.parametrize('kind', values)
def test_every_value_comes_back_or_is_named(kind, table):
    "As an attribute of a callback, a metric and the Learner, there at the start or made on the way"
    assert {at:o for at,o in table.items() if at[0] == kind} == {}

# Runs that depend on what they keep: callbacks
def scale(cb, by): cb.learn.loss_grad = cb.loss_grad*by

class EMA(Callback):
    "As fastxtend's: lists of the parameters of both models"
    def before_fit(self):
        self.ema = deepcopy(self.model)
        self.src,self.dst = list(self.model.parameters()),list(self.ema.parameters())
    def after_step(self):
        for d,s in zip(self.dst, self.src): d.data.lerp_(s.data, 0.3)
        if self.epoch == 1: [s.data.lerp_(d.data, 0.1) for d,s in zip(self.dst, self.src)]

class LateEMA(EMA):
    "Made in the first epoch only"
    def before_fit(self): pass
    def before_train(self):
        if not hasattr(self, 'ema'): EMA.before_fit(self)

class Unfreeze(Callback):
    def after_create(self): self.learn.freeze_to(-1)
    def before_epoch(self):
        if self.epoch == 1: self.learn.freeze_to(0)

class Dropout(Callback):
    def after_epoch(self): self.model[2].p *= 0.3

class OnLearn(Callback):
    def before_fit(self): self.learn.seen,self.learn.notes = 0,{}
    def after_loss(self):
        self.learn.seen += self.training
        self.learn.notes[self.learn.epoch] = self.learn.seen
        scale(self, 1/(1+self.seen+sum(self.notes.values())))

class Switch(Callback):
    "A setting that is changed on the way"
    def __init__(self, phase='warm up'): self.phase = phase
    def before_epoch(self): self.phase = 'main' if self.epoch == 1 else self.phase
    def after_loss(self):
        if self.phase == 'main': scale(self, 0.3)

class Own(Callback):
    "Random numbers of its own"
    def __init__(self):
        self.gens = [random.Random(0), np.random.default_rng(0), np.random.RandomState(0),
                     torch.Generator().manual_seed(0)]
    def after_loss(self):
        r,g,s,t = self.gens
        scale(self, r.random() + g.random() + s.rand() + torch.rand(1, generator=t).item())

class Refers(Callback):
    "It refers to parameters and to one list by two names"
    def before_fit(self):
        self.w,self.byname = self.model[0].weight,{'w':self.model[0].weight}
        self.a = self.b = []
    def after_loss(self):
        if not self.training: return
        self.a.append(1)
        assert self.w is self.model[0].weight is self.byname['w'] and self.a is self.b
        scale(self, 1/(len(self.b) + self.w.abs().sum().item()))

class OfParameter(Callback):
    "An attribute of a parameter"
    def before_fit(self): self.model[0].weight.calls = 0
    def after_loss(self):
        self.model[0].weight.calls += self.training
        scale(self, 1/(1+self.model[0].weight.calls))

class Adapts(Callback):
    "It looks at loss and prediction of the last batch before the next one"
    def before_batch(self):
        if not self.training or not hasattr(self.learn, 'pred'): return
        self.model[2].p = min(0.6, float(self.loss)/3 + self.pred.abs().mean().item()/100)

class Validates(Callback):
    "It looks at the validation set before each epoch"
    def before_train(self):
        if hasattr(self.learn, 'gather_preds'): return
        self.seen = self.learn.get_preds(inner=True)[0].mean().item()
        self.learn.dl,self.learn.training = self.dls.train,True
        self.model.train()
    def after_loss(self):
        if self.training: scale(self, 1+self.seen)

def counting(power):
    "As from two modules, each with a class of the same name"
    class Log(Callback):
        n = 0
        def after_loss(self):
            self.n += self.training
            scale(self, 1/(1+self.n)**power)
    return Log()

class Stateful(Callback):
    "Its class says what is its state"
    def __init__(self): self.n,self.not_saved = 0,0
    def state_dict(self): return dict(n=self.n)
    def load_state_dict(self, state): self.n = state['n']
    def after_loss(self):
        self.n += self.training
        self.not_saved += self.training
        scale(self, 1/(1+self.n))

class Confusion(Metric):
    "It makes its matrix in the first batch"
    name,matrix = 'trace',None
    def reset(self): pass
    def accumulate(self, learn): self.matrix = np.eye(3) + (0 if self.matrix is None else self.matrix)
    value = property(lambda self: self.matrix.trace())

callbacks = dict(ema=EMA, late_ema=LateEMA, unfreeze=Unfreeze, dropout=Dropout, on_learn=OnLearn,
                 switch=Switch, own=Own, refers=Refers, of_parameter=OfParameter, adapts=Adapts,
                 get_preds=Validates, stateful=Stateful, one_name=lambda: [counting(0.3), counting(0.2)])

# Data with a state of its own
class InPlace(torch.utils.data.Sampler):
    def __init__(self, n): self.order = list(range(n))
    def __len__(self): return len(self.order)
    def __iter__(self):
        random.shuffle(self.order)
        return iter(self.order)

class InArray(InPlace):
    def __init__(self, n): self.order,self.rng = np.arange(n),np.random.default_rng(0)
    def __iter__(self):
        self.rng.shuffle(self.order)
        return iter(self.order.tolist())

class InTensor(InPlace):
    def __init__(self, n): self.order = torch.arange(n)
    def __iter__(self):
        self.order[:] = self.order[torch.randperm(len(self.order))]
        return iter(self.order.tolist())

class Noisy(torch.utils.data.Dataset):
    "With random numbers of its own, or of a transform, perhaps made at the first item"
    def __init__(self, tfm=None, rng=None): self.tfm,self.rng = tfm,rng
    def __len__(self): return n_rows
    def __getitem__(self, i):
        if self.tfm: return x[i] + self.tfm(i),y[i]
        self.rng = self.rng or np.random.default_rng(0)
        return x[i] + float(self.rng.normal(0, 0.3)),y[i]

class Noise:
    def __init__(self): self.steps = [SimpleNamespace(gen=torch.Generator().manual_seed(1))]
    def __call__(self, o): return torch.rand(6, generator=self.steps[0].gen)

class Jitter(Transform):
    def __init__(self): self.rng = random.Random(0)
    def encodes(self, o:Tensor): return o + self.rng.random() if o.is_floating_point() else o

class Reweights(Callback):
    "Other examples more often in each epoch"
    def after_epoch(self):
        w = torch.where(torch.arange(n_rows)%3 == self.epoch%3, 9., 1.)
        self.dls.train.sampler.weights = w.double()

def torch_dl(ds=None, **kwargs): return TorchDL(ds or torch.utils.data.TensorDataset(x, y), 16, **kwargs)
def in_batches():
    sampler = torch.utils.data.BatchSampler(InPlace(n_rows), 16, False)
    return TorchDL(torch.utils.data.TensorDataset(x, y), batch_sampler=sampler)
def weighted(): return torch_dl(sampler=torch.utils.data.WeightedRandomSampler([1.]*n_rows, n_rows))

data = dict(
    list    = lambda: torch_dl(sampler=InPlace(n_rows)),
    array   = lambda: torch_dl(sampler=InArray(n_rows)),
    tensor  = lambda: torch_dl(sampler=InTensor(n_rows)),
    batches = in_batches,
    made_late = lambda: torch_dl(Noisy(), shuffle=True),
    own     = lambda: torch_dl(Noisy(rng=np.random.default_rng(1)), shuffle=True),
    tfm     = lambda: torch_dl(Noisy(Noise()), shuffle=True),
    subset  = lambda: torch_dl(torch.utils.data.Subset(Noisy(), list(range(n_rows))[::-1]), shuffle=True),
    fastai  = lambda: DataLoader(Noisy(rng=np.random.default_rng(1)), bs=16, shuffle=True),
    after_batch = lambda: TfmdDL(list(zip(x, y)), bs=16, shuffle=True, after_batch=Jitter()))

# Models, losses and optimisers
class Calls(Module):
    def __init__(self):
        self.net,self.st,self.base = mlp(),SimpleNamespace(calls=0),nn.Parameter(torch.ones(1))
    def forward(self, x):
        self.st.calls += 1
        return self.net(x)*self.base + self.st.calls/1000

class Turns(Module):
    "A setting that a forward pass changes"
    def __init__(self): self.mode,self.net = 'a',nn.Linear(6, 3)
    def forward(self, x):
        if self.training: self.mode = 'b' if self.mode == 'a' else 'a'
        return self.net(x)*(0.3 if self.mode == 'b' else 1)

class Gains(Module):
    "Parameters that are one number each, in a list of the model's"
    def __init__(self):
        self.net,self.a,self.b = mlp(),nn.Parameter(torch.tensor(1.)),nn.Parameter(torch.tensor(1.))
        self.gains = [self.a,self.b]
    def forward(self, x): return self.net(x)*self.gains[0]*self.gains[1]

class Recurrent(Module):
    def __init__(self): self.rnn,self.out = nn.LSTM(6, 8, 2),nn.Linear(8, 3)
    def forward(self, x): return self.out(self.rnn(x[None])[0][0])

class Sums(Module):
    "A buffer that it replaces, and that is not in its `state_dict`"
    def __init__(self):
        self.lin = nn.Linear(6, 3)
        self.register_buffer('sum', torch.zeros(1), persistent=False)
    def forward(self, x):
        self.sum = self.sum + 1
        return self.lin(x)*(1 + self.sum/100)

class Scale:
    "A loss with a learnt scale, no nn.Module"
    def __init__(self): self.s = nn.Parameter(torch.ones(1))
    def __call__(self, p, y): return F.cross_entropy(p*self.s, y)

class Weighs(nn.Module):
    "A loss that counts, and has a buffer"
    def __init__(self):
        super().__init__()
        self.n = 0
        self.register_buffer('mean', torch.ones(1))
    def forward(self, p, y):
        self.n += self.training
        self.mean = 0.9*self.mean + 0.1*p.detach().abs().mean()
        return F.cross_entropy(p, y)*(1 + self.n/50)/self.mean

def scripted(f=normed):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return torch.jit.script(f())
def traced():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return torch.jit.trace(normed().train(), torch.randn(8, 6), check_trace=False)
def part_scripted(): return nn.Sequential(scripted(), nn.Identity())
def tied():
    m = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.Linear(6, 3))
    m[2].weight = m[0].weight
    return m

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

def odd(params, lr): return OptimWrapper(params, Odd, lr=lr, momentum=0.9)

models = dict(calls=dict(model=Calls), turns=dict(model=Turns), gains=dict(model=Gains),
              lstm=dict(model=Recurrent), buffer=dict(model=Sums), scripted=dict(model=scripted),
              traced=dict(model=traced),
              part=dict(model=part_scripted), sums=dict(model=partial(scripted, Sums)), tied=dict(model=tied),
              adam=dict(opt_func=Adam), odd=dict(opt_func=odd))

smoothing = LabelSmoothingCrossEntropyFlat

def with_callback(cb, path, cbs=()): return learner(path, [*L(cb()), *cbs])
def with_data(train, path, cbs=()): return learner(path, cbs, train=train)
def with_model(kwargs, path, cbs=()): return learner(path, cbs, **kwargs)
def with_scale(path, cbs=()):
    loss = Scale()
    return learner(path, cbs, loss_func=loss, splitter=lambda m: [params(m), [loss.s]])

cases = ({k:partial(with_callback, o) for k,o in callbacks.items()} |
         {f'data {k}':partial(with_data, o) for k,o in data.items()} |
         {f'model {k}':partial(with_model, o) for k,o in models.items()} |
         {'loss scale':with_scale, 'loss module':lambda path, cbs=(): learner(path, cbs, loss_func=Weighs()),
          'loss smoothing':lambda path, cbs=(): learner(path, cbs, loss_func=smoothing()),
          'metric':lambda path, cbs=(): learner(path, cbs, metrics=Confusion()),
          'weights of a sampler':lambda path, cbs=(): learner(path, [Reweights(), *cbs], train=weighted)})

@pytest.mark.parametrize('make', cases.values(), ids=cases)
def test_killed_and_searched_runs_are_the_same(make, tmp_path):
    "Killed, or with a range test and a step without trace before it, a run is the same bit for bit"
    run = partial(fit, cycle_len=2)
    whole = outcome(run(make(tmp_path)))
    with told() as texts:
        killed(make(tmp_path, [CrashAt('after_batch', 10)]), cycle_len=2, every_iter=3)
        assert outcome(resumed(make(tmp_path), cycle_len=2, every_iter=3)) == whole
    assert not texts
    searched = make(tmp_path)
    search(searched, trials=[0.1])
    with searched.no_trace():
        searched.add_cb(CrashAt('after_batch', 3))
        with pytest.raises(KeyboardInterrupt): fit(searched, cycle_len=1)
    assert outcome(run(searched)) == whole

frame = pd.DataFrame(dict(text=['the film was good and long and good', 'bad acting in a bad plot']*20))

def test_language_model(tmp_path):
    "An AWD-LSTM, killed three times"
    def make(cbs=None):
        set_seed(0, reproducible=True)
        dls = TextDataLoaders.from_df(frame, text_col='text', is_lm=True, bs=4, seq_len=5, seed=0)
        config = {**awd_lstm_lm_config, 'emb_sz':8, 'n_hid':8}
        return language_model_learner(dls, AWD_LSTM, pretrained=False, config=config, path=tmp_path, cbs=cbs)
    whole = fit(make())
    n = len(whole.dls.train)
    for at in n-1,n+3,2*n+1: killed(make(CrashAt('after_batch', at)), every_iter=2, resume=True)
    assert_same_run(resumed(make(), every_iter=2), whole)

def test_twice_in_one_learner(tmp_path):
    "In a notebook, the Learner that was interrupted is resumed itself, with settings that have changed"
    whole = fit(learner(tmp_path, Switch()))
    learn = learner(tmp_path, Switch())
    for at in 9,15:
        kill = CrashAt('after_batch', at)
        learn.add_cb(kill)
        killed(learn, every_iter=2, resume=True)
        learn.remove_cb(kill)
    assert_same_run(resumed(learn, every_iter=2), whole)

def test_lazy_modules_are_refused(tmp_path):
    "A forward pass gives them their shapes, which could not be undone"
    m = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.Linear(8, 3))
    learn = learner(tmp_path, model=lambda: m)
    for run in search,partial(fit, checkpoint='run'):
        with pytest.raises(ValueError, match='0.weight has no shape yet .* send a batch'): run(learn)
    with pytest.raises(ValueError, match='0.weight has no shape yet'):
        with learn.no_trace(): m(x)
    assert type(m[0]) is nn.LazyLinear
    m(x)
    search(learn)

def test_memory_is_shared_as_before(tmp_path):
    "Views, expanded and tied tensors show the same memory after a range test"
    learn = learner(tmp_path, model=tied)
    w = learn.model[0].weight
    learn.part,learn.wide = w.detach()[:,:4],torch.ones(1).expand(5)
    search(learn)
    with torch.no_grad(): w.fill_(3)
    assert (learn.part == 3).all() and learn.model[2].weight is w and (learn.wide == 1).all()
    with learn.no_trace(): learn.part = None
    with torch.no_grad(): w.fill_(4)
    assert (learn.part == 4).all()

class Averages(Callback):
    "It starts with the memory of the parameters, and has its own from the first step on"
    def __init__(self, make): self.make = make
    def before_fit(self): self.avg = [self.make(p) for p in self.model.parameters()]
    def after_step(self):
        self.avg = [0.9*a + 0.1*self.make(p) for a,p in zip(self.avg, self.model.parameters())]

def normed_by_singular_value():
    m = mlp()
    torch.nn.utils.spectral_norm(m[0])
    return m

class Anchored(nn.Sequential):
    "A buffer that is the weight's own memory at first, and later another tensor"
    def __init__(self):
        super().__init__(*mlp())
        self.register_buffer('anchor', self[0].weight.data)
    def forward(self, x):
        self.anchor = self.anchor*0.5
        return super().forward(x)

def as_array(p): return p.detach().numpy()
begin_shared = dict(
    tensors  = lambda p: learner(p, Averages(lambda o: o.data)),
    arrays   = lambda p: learner(p, Averages(as_array)),
    parts    = lambda p: learner(p, Averages(lambda o: o.data[:2])),
    spectral = lambda p: learner(p, model=normed_by_singular_value),
    buffers  = lambda p: learner(p, model=Anchored))

def state_of_callbacks(learn): return str([[*map(np.array, o.avg)] for o in learn.cbs if hasattr(o, 'avg')])

@pytest.mark.parametrize('name', begin_shared)
def test_what_shares_memory_at_the_start_only_overwrites_no_weight(name, tmp_path):
    whole = fit(begin_shared[name](tmp_path))
    broken = begin_shared[name](tmp_path)
    broken.add_cb(CrashAt('after_batch', 9))
    killed(broken)
    again = resumed(begin_shared[name](tmp_path))
    assert_same_run(whole, again)
    assert state_of_callbacks(whole) == state_of_callbacks(again)

def test_what_shares_memory_all_along_still_shares_it_after_a_kill(tmp_path):
    class Watch(Callback):
        def before_fit(self): self.seen = [p.data.view(-1) for p in self.model.parameters()]
    broken = learner(tmp_path, [Watch(), CrashAt('after_batch', 9)])
    killed(broken)
    again = resumed(learner(tmp_path, Watch()))
    for p,o in zip(again.model.parameters(), again.watch.seen): assert p.data_ptr() == o.data_ptr()

# What warnings name
class Draws(Callback):
    "It has a figure from the start and makes another one on the way"
    def before_fit(self): self.first = figure()
    def after_step(self):
        if self.train_iter == 7: self.second = figure()

def test_a_warning_names_each_attribute_once(tmp_path):
    with told() as texts: fit(learner(tmp_path, Draws()), checkpoint='run', every_iter=1)
    assert ['`Draws.first` (matplotlib.' in o for o in texts] == [True, False]
    assert ['`Draws.second` (matplotlib.' in o for o in texts] == [False, True]
    assert all('keep=' in o and 'state_dict' in o for o in texts)

def mean_confidence(p, y): return p.softmax(1).max(1)[0].mean()

def distance(p, y): return rmse(p.softmax(1), one_hot(y))
def one_hot(y): return F.one_hot(y, 3).float()

stock = dict(
    progress = lambda p: dict(),
    csv      = lambda p: dict(cbs=CSVLogger(fname=p/'history.csv')),
    tracking = lambda p: dict(cbs=[SaveModelCallback(fname='best'), EarlyStoppingCallback(patience=5),
                                   ReduceLROnPlateau()]),
    mixup    = lambda p: dict(cbs=MixUp(0.4)),
    cutmix   = lambda p: dict(cbs=CutMix()),
    accumulate = lambda p: dict(cbs=[GradientAccumulation(32), GradientClip(0.5)]),
    graph    = lambda p: dict(cbs=ShowGraphCallback()),
    nan      = lambda p: dict(cbs=[TerminateOnNaNCallback(), ActivationStats(with_hist=True)]),
    metrics  = lambda p: dict(metrics=[accuracy, error_rate, mean_confidence, AvgMetric(distance),
                                       Perplexity(), F1Score(average='macro'), RocAuc()]))

class Images(nn.Sequential):
    "For CutMix, the same numbers as images"
    def forward(self, x): return super().forward(x.flatten(1))

def stock_learner(path, name):
    learn = learner(path, model=lambda: Images(*mlp()), **stock[name](path))
    items = [(a.view(1, 2, 3), b) for a,b in zip(x, y)]
    learn.dls = DataLoaders(DataLoader(items, bs=16, shuffle=True), DataLoader(items, bs=64), device='cpu')
    return learn

@pytest.mark.parametrize('name', stock)
def test_stock_callbacks_and_metrics_need_no_warning(name, tmp_path, capsys):
    "Those of fastai are saved, or begin anew without a word"
    whole = stock_learner(tmp_path/'whole', name)
    (tmp_path/'whole').mkdir()
    whole.fit_clr_beta(0.1, cycle_len=2)
    with told() as texts:
        learn = stock_learner(tmp_path, name)
        learn.add_cb(CrashAt('after_batch', 8))
        run = dict(lrs=0.1, cycle_len=2, checkpoint='run', every_iter=4)
        with pytest.raises(KeyboardInterrupt): learn.fit_clr_beta(**run)
        learn = stock_learner(tmp_path, name)
        learn.fit_clr_beta(**run, resume=True)
    assert [o for o in texts if re.search('saved|replaced|without it', o)] == []
    assert_same_run(learn, whole)

def test_tensorboard_needs_no_warning(tmp_path):
    pytest.importorskip('tensorboard')
    from fastai.callback.tensorboard import TensorBoardCallback
    cbs = lambda: TensorBoardCallback(log_dir=tmp_path/'log', log_preds=False)
    with told() as texts:
        # Adam is fastai's own: the callback cannot log the settings of an optimiser of torch that are None
        killed(learner(tmp_path, [cbs(), CrashAt('after_batch', 8)], opt_func=Adam))
        resumed(learner(tmp_path, cbs(), opt_func=Adam))
    assert [o for o in texts if re.search('saved|replaced', o)] == []

# What a run replaces
def after_first_epoch(f):
    def after_epoch(self):
        if self.epoch == 0: f(self.learn)
    return type('Once', (Callback,), dict(after_epoch=after_epoch))()

def items(): return list(zip(x*2, y))
def new_loader(learn): learn.dls.loaders[0] = DataLoader(items(), bs=16, shuffle=True)
def new_data(learn): learn.dls.train.dataset = items()
def new_loss(learn): learn.loss_func = partial(F.cross_entropy, label_smoothing=0.3)
def without_mixup(learn): learn.remove_cb(learn.mix_up)
def hook(learn): learn.model[0].register_forward_hook(lambda m, i, o: o*2)
def new_layer(learn): learn.model[2] = nn.Dropout(0.9)
def prune(learn): torch.nn.utils.prune.l1_unstructured(learn.model[0], 'weight', 0.5)

changes = {new_loader:'a loader', new_data:'a data set', new_loss:'the loss', without_mixup:'callbacks',
           hook:'hooks', new_layer:'modules'}

@pytest.mark.parametrize('change,what', changes.items(), ids=lambda o: getattr(o, '__name__', ''))
def test_what_a_run_replaces_is_named(change, what, tmp_path):
    "A resumed run has what it begins with, and says so while it could still be helped"
    mixup = lambda: [MixUp()] if change is without_mixup else []
    make = lambda *cbs: learner(tmp_path, [after_first_epoch(change), *mixup(), *cbs])
    with told() as texts: killed(make(CrashAt('after_batch', 15)))
    assert sum('replaced' in o and what in o for o in texts) == 1
    assert not any('cannot be saved' in o for o in texts)
    resumed(make())

def test_a_pruned_model_is_not_resumed_as_another(tmp_path):
    with told() as texts: killed(learner(tmp_path, [after_first_epoch(prune), CrashAt('after_batch', 15)]))
    assert sum('parameters or buffers' in o for o in texts) == 1
    learn = learner(tmp_path, after_first_epoch(prune))
    before = weights(learn)
    with pytest.raises(ValueError, match='0.weight_orig.*0.weight_mask'): resumed(learn)
    assert weights(learn) == before

# Events
events = 'after_create before_epoch before_train before_batch after_pred after_loss before_backward \
after_backward before_step after_step after_batch after_train before_validate after_validate \
after_epoch'.split()

def noting(event):
    def note(self):
        learn = self.learn
        self.noted.append((event, learn.epoch, getattr(learn, 'iter', None), learn.training))
    return note
Events = type('Events', (Callback,), {o:noting(o) for o in events[1:]})
def noting_events():
    cb = Events()
    cb.noted = []
    return cb

@pytest.fixture(scope='module')
def all_events(tmp_path_factory):
    return fit(learner(tmp_path_factory.mktemp('events'), noting_events()), cycle_len=2).events.noted

in_a_step = [o for o in events if re.search('batch|pred|loss|step|backward', o)]
in_a_step = [(o, 4) for o in in_a_step] + [('after_step', 1), ('after_loss', None)]
@pytest.mark.parametrize('event,every_iter', in_a_step)
def test_no_event_is_sent_twice(event, every_iter, tmp_path, all_events):
    "To a callback of a user a resumed run looks like one that was not interrupted"
    killed(learner(tmp_path, [noting_events(), CrashAt(event, 8)]), every_iter=every_iter, cycle_len=2)
    again = resumed(learner(tmp_path, noting_events()), every_iter=every_iter, cycle_len=2)
    assert again.events.noted == all_events

@pytest.mark.parametrize('event', [o for o in events if re.search('epoch|train|validate', o)])
def test_no_event_is_sent_twice_between_epochs(event, tmp_path, all_events):
    step = 6 if event in ('before_epoch','before_train') else 12  # of the second epoch
    killed(learner(tmp_path, [noting_events(), CrashAt(event, step)]), cycle_len=2)
    assert resumed(learner(tmp_path, noting_events()), cycle_len=2).events.noted == all_events

class Todo(Callback):
    "One value for each epoch"
    def before_fit(self): self.todo = [0.5, 1., 2.]
    def before_epoch(self): self.k = self.todo.pop(0)
    def after_loss(self): scale(self, self.k)

def test_values_that_are_used_up(tmp_path):
    whole = fit(learner(tmp_path, Todo()))
    killed(learner(tmp_path, [Todo(), CrashAt('after_batch', 15)]))
    assert_same_run(resumed(learner(tmp_path, Todo())), whole)

# Data are the user's
class Labelled(torch.utils.data.Dataset):
    def __init__(self, y, file=None):
        self.y = y
        if file: self.tokens = np.memmap(file, np.int64)  # NumPy's default: it can be written to
    def __len__(self): return n_rows
    def __getitem__(self, i): return x[i],int(self.y[i])

class Looks(Callback):
    "A callback that knows the labels"
    def before_fit(self): self.labels,self.n = self.dls.train.dataset.y,0
    def after_loss(self): self.n += 1

class ByLabel(torch.utils.data.Sampler):
    "A sampler that knows the labels"
    def __init__(self, y): self.labels = y
    def __len__(self): return n_rows
    def __iter__(self): return iter(torch.randperm(n_rows).tolist())

@pytest.mark.parametrize('holder', ['nobody','callback','sampler'])
@pytest.mark.parametrize('kind', [torch.tensor, np.array, list])
def test_corrected_labels_stay_corrected(kind, holder, tmp_path):
    "Neither a range test nor a resumed run writes to a data set, even if others know its labels"
    old,new = y.tolist(),y.tolist()
    new[1:60] = [0]*59
    def make(labels, *cbs):
        ds = Labelled(kind(labels))
        order = dict(sampler=ByLabel(ds.y)) if holder == 'sampler' else dict(shuffle=True)
        dl = lambda: TorchDL(ds, 16, **order)
        return learner(tmp_path, [*([Looks()] if holder == 'callback' else []), *cbs], train=dl)
    killed(make(old, CrashAt('after_batch', 9)), cycle_len=2)
    learn = make(new)
    labels = learn.dls.train.dataset.y
    search(learn)
    resumed(learn, cycle_len=2)
    assert learn.dls.train.dataset.y is labels and list(labels) == new
    if holder == 'callback': assert learn.looks.labels is labels and learn.looks.n == 16
    if holder == 'sampler': assert learn.dls.train.sampler.labels is labels

def test_no_file_of_the_data_is_written_to(tmp_path):
    file = tmp_path/'tokens.bin'
    np.arange(1000).tofile(file)
    train = lambda: TorchDL(Labelled(y.clone(), file), 16, shuffle=True)
    def make(*cbs): return learner(tmp_path, cbs, train=train)
    killed(make(CrashAt('after_batch', 9)))
    tokens = np.arange(1000)
    tokens[500:] = 7
    tokens.tofile(file)
    os.utime(file, (0, 0))
    learn = make()
    search(learn)
    resumed(learn)
    learn.dls.train.dataset.tokens.flush()
    assert (np.fromfile(file, np.int64) == tokens).all() and file.stat().st_mtime == 0

# Errors
class Unwilling:
    "It can be read, but not restored"
    def __init__(self): self.n = 0
    def state_dict(self): return dict(n=self.n)
    def load_state_dict(self, state): raise RuntimeError('not willing')

class Holds(Callback):
    "An attribute that cannot be restored between two that can"
    def __init__(self): self.a,self.b,self.z = [0],Unwilling(),[0]
    def after_loss(self):
        self.a.append(1)
        self.z.append(1)

class Items(list):
    "What an export needs of a data set"
    def new_empty(self): return Items()

def can_save(learn):
    for dl in learn.dls.loaders: dl.dataset = Items(dl.dataset)
    learn.save('again')
    learn.export('again.pkl')
    return (learn.path/learn.model_dir/'again.pth').exists() and (learn.path/'again.pkl').exists()

def sweep(learn, **kwargs):
    learn.lr_find_sweep(wd=[0, 0.1], num_it=12, show_plot=False, trials=False, **kwargs)

@pytest.mark.parametrize('run', [search, sweep])
def test_an_error_prevents_no_other_restoring_after_a_search(run, tmp_path):
    learn = learner(tmp_path, Holds())
    before = weights(learn)
    with pytest.raises(RuntimeError, match='not willing'): run(learn)
    assert weights(learn) == before and learn.holds.a == learn.holds.z == [0] and can_save(learn)

def test_an_error_while_a_run_is_resumed_leaves_the_learner_as_it_was(tmp_path):
    killed(learner(tmp_path, [Holds(), CrashAt('after_batch', 9)]))
    learn = learner(tmp_path, Holds())
    before = weights(learn)
    with pytest.raises((RuntimeError, ValueError), match='not willing'): resumed(learn)
    assert weights(learn) == before and can_save(learn)
    assert learn.holds.a == learn.holds.z == [0]

# keep=
class Meters:
    def __init__(self): self.n = 0
    def state_dict(self): return dict(n=self.n)
    def load_state_dict(self, state): self.n = state['n']

class Uses(Callback):
    "It trains by what is elsewhere"
    def after_loss(self):
        kept['meters'].n += self.training
        noise = torch.rand(1, generator=kept['gen']).item()
        scale(self, 1/(1+kept['meters'].n) + kept['rng'].random() + noise)
kept = {}

def keeping(path, *cbs):
    kept.update(meters=Meters(), rng=random.Random(0), gen=torch.Generator().manual_seed(0))
    return learner(path, [Uses(), *cbs])

def kept_state(): return kept['meters'].n,kept['rng'].getstate(),kept['gen'].get_state().tolist()

def test_keep_saves_and_restores(tmp_path):
    whole = fit(keeping(tmp_path))
    end = kept_state()
    killed(keeping(tmp_path, CrashAt('after_batch', 4)), keep=kept)
    killed(keeping(tmp_path, CrashAt('after_batch', 9)), keep=kept, resume=True)
    assert_same_run(resumed(keeping(tmp_path), keep=kept), whole)
    assert kept_state() == end

@pytest.mark.parametrize('how', ['search','sweep','no_trace'])
def test_keep_leaves_no_trace(how, tmp_path):
    learn = keeping(tmp_path)
    before,objects = kept_state(),[*kept.values()]
    if how == 'search': search(learn, keep=kept, trials=[0.1])
    elif how == 'sweep': sweep(learn, keep=kept)
    else:
        with learn.no_trace(keep=kept): fit(learn, cycle_len=1)
    assert kept_state() == before and all(a is b for a,b in zip(objects, kept.values()))

def test_names_of_keep_must_be_those_of_the_checkpoint(tmp_path):
    killed(keeping(tmp_path, CrashAt('after_batch', 4)), keep=kept)
    learn = keeping(tmp_path)
    before = weights(learn)
    with pytest.raises(ValueError, match='The checkpoint holds meters, rng, gen.*keep='): resumed(learn)
    with pytest.raises(ValueError, match='The checkpoint holds gen.*keep='):
        resumed(learn, keep={k:kept[k] for k in ('meters','rng')})
    more = kept | dict(other=Meters())
    with pytest.raises(ValueError, match='does not hold other'): resumed(learn, keep=more)
    assert weights(learn) == before and learn.opt is None and kept['meters'].n == 0

@pytest.mark.parametrize('keep,msg', [
    (dict(a=3), "'a' is a int"), (dict(a=[Meters()]), "'a' is a list"), (dict(a=Meters), "'a' is a type"),
    ([Meters()], 'keep='), ({1:Meters()}, 'keep'), ({1:random.Random(0)}, 'keep')])
def test_a_bad_keep_is_refused_at_once(keep, msg, tmp_path):
    learn = learner(tmp_path)
    before = weights(learn)
    def no_trace(learn, keep):
        with learn.no_trace(keep=keep): pass
    for run in partial(fit, checkpoint='run'),fit,search,sweep,no_trace:
        with pytest.raises(ValueError, match=msg): run(learn, keep=keep)
    assert weights(learn) == before and learn.opt is None and not (tmp_path/'models').exists()

# A gradient scaler
class Scaler(Callback):
    "As fastai's `MixedPrecision`, on the CPU"
    order = 10
    def before_fit(self):
        self.learn.scaler,self.scales = torch.amp.GradScaler('cpu', init_scale=4., growth_interval=5),[]
    def before_backward(self): self.learn.loss_grad = self.scaler.scale(self.loss_grad)
    def before_step(self):
        self.scaler.step(self)
        self.scales.append(self.scaler.get_scale())
    def after_step(self): self.scaler.update()
    @property
    def param_groups(self): return self.opt.param_groups
    def step(self, *args, **kwargs): pass

def test_a_gradient_scaler_comes_back(tmp_path):
    whole = fit(learner(tmp_path, Scaler()))
    killed(learner(tmp_path, [Scaler(), CrashAt('after_batch', 4)]))
    killed(learner(tmp_path, [Scaler(), CrashAt('after_batch', 10)]), resume=True)
    learn = resumed(learner(tmp_path, Scaler()))
    assert_same_run(learn, whole)
    assert learn.scaler.state_dict() == whole.scaler.state_dict() and learn.scaler.get_scale() == 4*2**3
    state = learn.scaler.state_dict()
    search(learn, trials=[0.1])
    assert learn.scaler.state_dict() == state

class NoisyItems(ItemTransform):
    "A transform of a data set with a generator"
    def __init__(self): self.rng,self.n_calls = np.random.default_rng(0),0
    def encodes(self, o):
        self.n_calls += 1
        return o[0]+self.rng.normal(), o[1]

@pytest.mark.parametrize('n_items', [20, 96])
def test_generators_in_transforms_of_data_sets_are_put_back(n_items, tmp_path):
    "And looking for them transforms no item"
    noise = NoisyItems()
    items = [(a, b) for a,b in zip(x, y)][:n_items]
    learn = learner(tmp_path, train=lambda: TfmdDL(TfmdLists(items, noise), bs=10))
    before,n_before = str(noise.rng.bit_generator.state),noise.n_calls
    with learn.no_trace():
        assert noise.n_calls == n_before
        learn.dls.train.one_batch()
        assert str(noise.rng.bit_generator.state) != before
    assert str(noise.rng.bit_generator.state) == before

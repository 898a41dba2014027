"What a run consists of: it comes back after a range test and after a kill, or a warning names it"
import copy, datetime as dt, enum, io, os, re, warnings
from collections import Counter, OrderedDict, deque, namedtuple
from dataclasses import dataclass, field, replace
from decimal import Decimal
from types import FunctionType, SimpleNamespace
import pytest
from fastai.callback.all import *
from fastai.text.all import *
from fastai_clrbeta.all import *
from helpers import *

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
    "How a value begins and what becomes of it in step `i`. One that is `named` need not come back after a kill."
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
    kind          = Value(lambda: Stats, lambda v,i: Fixed if i == 9 else v),
    tuple         = Value(lambda: (0, [1]), lambda v,i: (*v, i)),
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
    tensor_shape  = Value(lambda: torch.ones(2), lambda v,i: torch.cat([v, v[:1]+i])),
    expanded      = Value(lambda: torch.ones(1).expand(4), lambda v,i: (v[:1]+i).expand(4)),
    sparse        = Value(sparse, lambda v,i: v+v),
    sparse_inplace = inplace(sparse, lambda v,i: v.mul_(2)),
    parameter     = inplace(lambda: nn.Parameter(torch.ones(2)), lambda v,i: v.add_(i)),
    module        = inplace(linear, lambda v,i: v.weight.add_(i)),
    optimiser     = inplace(optimiser, optimise),
    frame         = inplace(lambda: pd.DataFrame(dict(a=[0], b=[0.])), add_row),
    frame_text    = Value(lambda: pd.DataFrame(dict(a=['x'])), lambda v,i: pd.concat([v, v[:1]+str(i)])),
    frame_kinds   = Value(lambda: pd.DataFrame(dict(a=pd.Categorical(['x', 'y']))), lambda v,i: pd.concat([v, v[:1]])),
    frame_dates   = Value(lambda: pd.DataFrame(dict(a=pd.to_datetime(['2020-01-01']))), lambda v,i: v+day(i)),
    series        = Value(lambda: pd.Series([1, 2], name='s'), lambda v,i: v+i),
    dataclass     = inplace(Stats, count),
    frozen        = Value(Fixed, lambda v,i: replace(v, n=v.n+i)),
    slots         = inplace(Slots, count),
    plain         = inplace(Plain, count),
    namespace     = inplace(lambda: SimpleNamespace(n=0, seen=[]), count),
    fastcore_list = inplace(lambda: L(1), lambda v,i: v.append(i)),
    function      = Value(lambda: lambda: 0, lambda v,i: lambda: v, named=True),
    file          = inplace(lambda: open(__file__), lambda v,i: v.readline(), named=True),
    figure        = inplace(figure, draw, named=True),
    functions     = inplace(lambda: [lambda: 0], lambda v,i: v.append(lambda: i), named=True),
    with_figure   = inplace(lambda: SimpleNamespace(n=0, seen=[], fig=figure()), count, named=True))

def shown(o):
    "What `o` is and holds, in plain values that can be compared and that later changes leave alone"
    return type(o),_contents(o)

def _contents(o):
    if isinstance(o, (FunctionType, plt.Figure, io.IOBase, type)): return id(type(o))
    if isinstance(o, Tensor): return o.dtype,o.requires_grad,str(o.detach().to_dense().tolist()),shown(vars(o))
    if isinstance(o, np.random.Generator): return str(o.bit_generator.state)
    if isinstance(o, torch.Generator): return o.get_state().tolist()
    if isinstance(o, random.Random): return o.getstate()
    if isinstance(o, (np.ndarray, np.generic)): return o.dtype,o.shape,[shown(v) for v in o.ravel().tolist()]
    if isinstance(o, (nn.Module, torch.optim.Optimizer)): return shown(dict(o.state_dict()))
    if isinstance(o, (pd.DataFrame, pd.Series)): return str(o.to_frame().dtypes if o.ndim == 1 else o.dtypes),str(o.to_dict())
    if isinstance(o, dict): return [[shown(k), shown(v)] for k,v in o.items()],getattr(o, 'default_factory', 0),_attributes(o)
    if isinstance(o, (list, tuple, deque)): return [shown(v) for v in o],getattr(o, 'maxlen', 0),_attributes(o)
    if isinstance(o, (set, frozenset)): return sorted(map(repr, o))
    return _attributes(o) or repr(o)

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

everything = [(k, owner, when) for k in values for owner in ('Table','Meter','learn') for when in ('start','late')]

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
    learn = holding(path, names)
    objects = held(learn, names)
    before = {at:shown(o) for at,o in objects.items()}
    search(learn)
    res = wrong(before, learn, names)
    return {at:'another object' for at,o in held(learn, names).items() if o is not objects.get(at)} | res

def after_kills(path, names):
    whole = fit(holding(path/'whole', names))
    with told() as texts:
        killed(holding(path, names, [Kill(13)]))
        killed(holding(path, names, [Kill(19)]), resume=True)
        learn = resumed(holding(path, names))
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

@pytest.mark.parametrize('at', everything, ids=' '.join)
def test_every_value_comes_back_or_is_named(at, table):
    "As an attribute of a callback, a metric and the Learner, there at the start or made on the way"
    assert table.get(at) is None

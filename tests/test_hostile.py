"Loading a checkpoint runs no code: whatever its content, it calls no function or class and chooses no path"
from fastai.callback.all import *
from fastai_clrbeta.all import *
from fastai_clrbeta.cli import EpochCSV
from helpers import *
import enum, functools, os, random, shutil, sys, zipfile
import pytest

marks = []  # what was called

class Trap:
    "Calling the class or an object of it, or deleting one, leaves a mark"
    def __init__(self, *args): marks.append('__init__')
    def __call__(self, *args, **kwargs): marks.append('__call__')

class Dying:
    def __del__(self): marks.append('__del__')

class TrapDict(dict):
    def update(self, *args): marks.append('update')
    def clear(self): marks.append('clear')
    def __setitem__(self, k, v): marks.append('__setitem__')

class TrapList(list):
    def __setitem__(self, k, v): marks.append('__setitem__')

class TrapSet(set):
    def clear(self): marks.append('clear')
    def update(self, *args): marks.append('update')

class TrapRandom(random.Random):
    def setstate(self, state): marks.append('setstate')

class TrapState:
    def state_dict(self): return {}
    def load_state_dict(self, state): marks.append('load_state_dict')

class TrapAttribute:
    def __setattr__(self, k, v): marks.append('__setattr__')

class TrapProperty:
    @property
    def a(self): marks.append('get')
    @a.setter
    def a(self, v): marks.append('set')

class TrapHash:
    def __hash__(self):
        marks.append('__hash__')
        return 1

class TrapCallback(Callback):
    def __init__(self, *args): marks.append('__init__')

class Holds(Callback):
    "A callback of a user with all kinds of attributes"
    def __init__(self):
        self.counts,self.items,self.table,self.n = defaultdict(int),[1, 'a'],dict(a=1),0
        self.numbers,self.best,self.rng = np.zeros(2),None,np.random.default_rng(1)
    def before_fit(self): pass
    def after_loss(self): self.counts[self.train_iter] += 1
    def after_batch(self): self.n += 1

def make(path, *cbs):
    history = EpochCSV(path/'models/epochs.csv')
    loggers = [SaveModelCallback(fname='best'), CSVLogger(fname='models/history.csv'), history]
    return learner(path, [Holds(), *loggers, *cbs], train=lambda: TorchDL(Labelled(), 16, shuffle=True))

class Labelled(torch.utils.data.Dataset):
    def __init__(self): self.labels,self.name,self.rng = y.clone(),'mine',random.Random(0)
    def __len__(self): return n_rows
    def __getitem__(self, i): return x[i] + self.rng.random()/100,self.labels[i]

@pytest.fixture(scope='module')
def real(tmp_path_factory):
    "A real checkpoint, in mid-epoch"
    path = tmp_path_factory.mktemp('real')
    killed(make(path, CrashAt('after_batch', 9)), cycle_len=2)
    return path/'models/run.ckpt'

@pytest.fixture
def place(tmp_path, real):
    "A folder with this checkpoint, and a victim beside it"
    path = tmp_path/'run'
    (path/'models').mkdir(parents=True)
    for o in 'run.ckpt','best.pth': shutil.copy(real.parent/o, path/'models')
    (tmp_path/'victim').write_text('precious', encoding='utf-8')
    os.utime(tmp_path/'victim', (0, 0))
    marks.clear()
    return path

ours = {f'models/{o}' for o in ('run.ckpt','run.prev.ckpt','best.pth','history.csv','epochs.csv')}

def attack(place, refused=None):
    """Resume the checkpoint in `place`, and see that nothing was called, and nothing written elsewhere. It
    must be refused, or not, or (None) either."""
    learn,error = make(place),None
    before,labels = weights(learn),learn.dls.train.dataset.labels
    try: resumed(learn, cycle_len=2)
    except ValueError as e: error = e
    files = {str(o.relative_to(place)) for o in place.rglob('*') if o.is_file()}
    victim = place.parent/'victim'
    assert not marks
    assert files <= ours and {o.name for o in place.parent.iterdir()} == {'run','victim'}
    assert victim.read_text(encoding='utf-8') == 'precious' and victim.stat().st_mtime == 0
    assert learn.path == place and learn.model_dir == 'models' and learn.dls.train.dataset.labels is labels
    assert labels.equal(y) and learn.save_model.fname == 'best'
    assert learn.epoch_csv.fname == place/'models/epochs.csv'
    if refused is not None: assert bool(error) == refused, error
    return learn,error,before

def refused_before_anything_changes(place):
    learn,_,before = attack(place, refused=True)
    assert weights(learn) == before and learn.holds.n == 0

def edit(place, f):
    path = place/'models/run.ckpt'
    content = torch.load(path, weights_only=True)
    f(content)
    torch.save(content, path)

def node(content, root):
    "The data of the root called `root`, which may be none of the run's"
    roots = content['state']['roots']
    if root not in roots: roots[root] = new(content, 'Objects', Holds, {})[1]
    return content['state']['nodes'][roots[root]][2]

def new(content, kind, cls, data):
    "Add an object to the file; return what refers to it."
    nodes = content['state']['nodes']
    nodes.append([kind, cls if isinstance(cls, str) else name_of(cls), data])
    return 'ref',len(nodes)-1

def name_of(cls): return f'{cls.__module__}:{cls.__qualname__}'

def test_the_real_checkpoint_is_resumed(place):
    edit(place, lambda content: None)
    learn = attack(place, refused=False)[0]
    assert len(learn.recorder.losses) == 12 and learn.holds.n == 16

# Pickles
class Calls:
    "Loaded by pickle, this calls `f`"
    def __init__(self, f, *args): self.call = f,args
    def __reduce__(self): return self.call

def evil(victim): return dict(
    system   = Calls(os.system, f'echo gone > {victim}'),
    memmap   = Calls(np.memmap, str(victim), 'uint8', 'w+', 0, (3,)),
    callback = Calls(TrapCallback, str(victim)),
    trap     = Calls(Trap),
    csv      = Calls(EpochCSV, str(victim)),
    partial  = Calls(functools.partial, os.system, f'echo gone > {victim}'),
    open     = Calls(open, str(victim), 'w'),
    evaluate = Calls(eval, f'open({str(victim)!r}, "w")'))

@pytest.mark.parametrize('where', ['top','node','whole'])
@pytest.mark.parametrize('name', evil(''))
def test_a_pickle_that_calls_something(name, where, place):
    "As an entry of the file, as a value in it, or in place of it"
    o = evil(place.parent/'victim')[name]
    if where == 'top': edit(place, lambda content: content.update(extra=o))
    elif where == 'node': edit(place, lambda content: node(content, 'Holds 0').update(best=o))
    else: torch.save(o, place/'models/run.ckpt')
    refused_before_anything_changes(place)

@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('protocol', ['global','stack_global','build'])
def test_opcodes(protocol, zipped, place):
    "A pickle put together by hand, in a file of torch's form or bare"
    call = f"V echo gone > {place.parent/'victim'}\n".encode()
    code = {'global':b'cposix\nsystem\n(' + call + b'tR.',
            'stack_global':b'\x80\x04Vposix\nVsystem\n\x93(' + call + b'tR.',
            'build':b'ccollections\nOrderedDict\n)R}V__class__\nctest_hostile\nTrap\nsb.'}[protocol]
    path = place/'models/run.ckpt'
    if not zipped: path.write_bytes(code)
    else:
        with zipfile.ZipFile(path) as z: files = {o:z.read(o) for o in z.namelist()}
        with zipfile.ZipFile(path, 'w') as z:
            for k,v in files.items(): z.writestr(k, code if k.endswith('data.pkl') else v)
    refused_before_anything_changes(place)

# Values
def test_a_generator_with_methods_of_its_own(place):
    def f(content):
        data = content['state']['nodes'][rng_code(content)[1]][2]
        node(content, 'Holds 0')['best'] = new(content, 'Generators', TrapRandom, data)
    edit(place, f)
    attack(place)

@pytest.mark.parametrize('attribute', ['path','model_dir','opt_func','logger','save','model','loss_func'])
def test_the_learner_keeps_its_path_and_functions(attribute, place):
    def f(content):
        value = ('path', str(place.parent)) if attribute != 'model_dir' else str(place.parent)
        if attribute not in ('path','model_dir'): value = new(content, 'Objects', Trap, {})
        node(content, 'learn')[attribute] = value
    edit(place, f)
    attack(place)

@pytest.mark.parametrize('root', ['SaveModelCallback 0','CSVLogger 0','EpochCSV 0'])
@pytest.mark.parametrize('attribute', ['fname','path','model_dir','file'])
def test_callbacks_keep_their_paths(root, attribute, place):
    "In this run and in those after it"
    victim = place.parent/'victim'
    elsewhere = str(place.parent/'elsewhere')
    values = dict(fname=('path', str(victim)), file=('path', str(victim)), path=('path', elsewhere),
                  model_dir=elsewhere)
    value = values[attribute]
    edit(place, lambda content: node(content, root).update({attribute:value}))
    learn = attack(place)[0]
    fit(learn, cycle_len=1)
    assert {o.name for o in place.parent.iterdir()} == {'run','victim'}
    assert victim.read_text(encoding='utf-8') == 'precious'

def array(shape, dtype): return dict(bits=torch.zeros(8, dtype=torch.uint8), shape=shape, dtype=dtype)
def tensor_data():
    return dict(numbers=torch.ones(1), needs_grad=False, grad=None, own={}, parameter=False, device='cpu')

def made(victim):
    "Objects that a file might want to have: kind, class and data"
    closer = dict(name=str(victim), delete=True, close_called=False, file=None,
                  unlink=('class', name_of(Trap)))
    return dict(
        popen      = ('Objects', 'subprocess:Popen', dict(args='true')),
        closer     = ('Objects', 'tempfile:_TemporaryFileCloser', closer),
        folder     = ('Objects', 'tempfile:TemporaryDirectory', dict(name=str(victim))),
        dying      = ('Objects', Dying, {}),
        memmap     = ('Arrays', np.memmap, array([3], "'|u1'")),
        dict       = ('Dicts', TrapDict, dict(items=[['a', 1]], own={}, factory=None)),
        list       = ('Lists', TrapList, dict(items=[1], own={})),
        set        = ('Sets', TrapSet, [1]),
        stateful   = ('Stateful', TrapState, {}),
        attribute  = ('Objects', TrapAttribute, dict(a=1)),
        property   = ('Objects', TrapProperty, dict(a=1)),
        wrong_kind = ('Tensors', Trap, tensor_data()),
        wrong_list = ('Lists', Trap, dict(items=[1], own={})),
        deque      = ('Deques', Trap, dict(items=[1], maxlen=2)),
        callback   = ('Objects', TrapCallback, {}),
        function   = ('Objects', 'os:system', {}),
        module     = ('Objects', 'os', {}))

@pytest.mark.parametrize('kind', made(''))
def test_objects_that_do_something(kind, place):
    "Made, filled or deleted, they do nothing"
    def f(content): node(content, 'Holds 0')['best'] = new(content, *made(place.parent/'victim')[kind])
    edit(place, f)
    learn,error,_ = attack(place)
    learn.holds.best = None
    del learn,error
    assert not marks and (place.parent/'victim').read_text(encoding='utf-8') == 'precious'

factories = ('class', 'test_hostile:Trap'),('class', 'subprocess:Popen'),'object',('kept',)

@pytest.mark.parametrize('factory', factories, ids=str)
@pytest.mark.parametrize('there', [True, False])
def test_a_default_that_is_called(factory, there, place):
    "`default_factory` of a dictionary that is there, and of a new one in its place"
    def f(content):
        value = new(content, 'Objects', Trap, {}) if factory == 'object' else factory
        counts = new(content, 'Dicts', defaultdict, dict(items=[], own={}, factory=value))
        if there: content['state']['nodes'][node(content, 'Holds 0')['counts'][1]][2]['factory'] = value
        else: node(content, 'Holds 0')['counts'] = counts
    edit(place, f)
    learn = attack(place)[0]
    assert learn.holds.counts.default_factory in (int, None)

events = 'before_fit after_loss after_batch before_step after_epoch after_fit'.split()

@pytest.mark.parametrize('value', ['object','class'])
@pytest.mark.parametrize('event', events)
def test_an_attribute_called_as_an_event(event, value, place):
    "Whether the callback has a method of this name or not"
    def f(content):
        trap = new(content, 'Objects', Trap, {}) if value == 'object' else ('class', name_of(Trap))
        node(content, 'Holds 0')[event] = trap
    edit(place, f)
    learn = attack(place)[0]
    fit(learn, cycle_len=1)
    assert not marks

def hooks(content): return new(content, 'Dicts', dict, dict(items=[[0, trap(content)]], own={}, factory=None))
def list_of(content, items): return new(content, 'Lists', list, dict(items=items, own={}))
def trap(content): return new(content, 'Objects', Trap, {})
def first_layer(content): return content['state']['nodes'][node(content, 'model')['_modules']['0'][1]][2]

called = dict(
    forward_hooks = lambda c: first_layer(c)['attrs'].update(_forward_hooks=hooks(c)),
    forward       = lambda c: first_layer(c)['attrs'].update(forward=trap(c)),
    submodule     = lambda c: node(c, 'model')['_modules'].update({'1':trap(c)}),
    optimiser     = lambda c: node(c, 'optimiser').update(cbs=list_of(c, [trap(c)])),
    step          = lambda c: node(c, 'optimiser').update(step=trap(c)),
    one_batch     = lambda c: node(c, 'learn').update(one_batch=trap(c), _split=trap(c), validate=trap(c)),
    collate       = lambda c: node(c, 'loader 0').update(collate_fn=trap(c), sampler=trap(c)),
    loader        = lambda c: node(c, 'loader 1').update(sample=trap(c), get_idxs=trap(c)),
    recorder      = lambda c: node(c, 'Recorder 0').update(log=trap(c), after_batch=trap(c)),
    metric        = lambda c: node(c, 'AvgMetric 0').update(func=trap(c), to_np=trap(c)),
    tracker       = lambda c: node(c, 'SaveModelCallback 0').update(comp=trap(c), _save=trap(c)),
    logger        = lambda c: node(c, 'CSVLogger 0').update(old_logger=trap(c), _write_line=trap(c)),
    special       = lambda c: node(c, 'Holds 0').update(__class__=('class', name_of(Trap)), __dict__=trap(c)),
    callback      = lambda c: node(c, 'learn').update(_cbs=list_of(c, [trap(c)])))

@pytest.mark.parametrize('f', called.values(), ids=called)
def test_what_the_training_loop_calls(f, place):
    "Hooks, methods and functions of modules, optimisers, loaders and callbacks of fastai stay what they are"
    edit(place, f)
    attack(place)

class Color(enum.Enum): red = 1

@pytest.mark.parametrize('as_what', ['Objects','Lists','class','enum','packed','key'])
def test_no_module_is_imported(as_what, place, monkeypatch):
    code = place.parent.parent/f'{place.parent.name}_code'
    code.mkdir()
    (code/'evil_module.py').write_text('raise SystemExit("imported")\nclass X: pass', encoding='utf-8')
    monkeypatch.syspath_prepend(code)
    name = 'evil_module:X'
    def f(content):
        holds = node(content, 'Holds 0')
        if as_what == 'Objects': holds['best'] = new(content, 'Objects', name, {})
        elif as_what == 'Lists': holds['best'] = new(content, 'Lists', name, dict(items=[1], own={}))
        elif as_what == 'class': holds['best'] = 'class',name
        elif as_what == 'enum': holds['best'] = 'enum',name,'red'
        elif as_what == 'packed':
            packed = 'packed',[[name, 2]],torch.ones(2)
            holds['items'] = new(content, 'Lists', list, dict(items=packed, own={}))
        else:
            data = dict(items=[[('class', name), 1]], own={}, factory=None)
            holds['table'] = new(content, 'Dicts', dict, data)
    edit(place, f)
    attack(place, refused=True)
    assert 'evil_module' not in sys.modules

def rng_code(content): return node(content, 'data')[0][1]
paths = dict(
    labels  = lambda c: [['loader 0', ['attr','dataset'], ['attr','labels']], list_of(c, [0]*n_rows)],
    text    = lambda c: [['loader 0', ['attr','dataset'], ['attr','name']], 'theirs'],
    method  = lambda c: [['loader 0', ['attr','dataset'], ['attr','__getitem__']], trap(c)],
    rng     = lambda c: [['loader 0', ['attr','dataset'], ['attr','rng']], trap(c)],
    dataset = lambda c: [['loader 0', ['attr','dataset']], trap(c)],
    collate = lambda c: [['loader 0', ['attr','collate_fn']], trap(c)],
    module  = lambda c: [['loader 0', ['attr','__class__'], ['attr','hacked']], rng_code(c)],
    nowhere = lambda c: [['loader 7', ['attr','dataset']], rng_code(c)],
    empty   = lambda c: [[], rng_code(c)],
    number  = lambda c: [3, rng_code(c)],
    item    = lambda c: [['loader 1', ['attr','dataset'], ['item', 0]], trap(c)])

@pytest.mark.parametrize('f', paths.values(), ids=paths)
def test_paths_of_the_data_lead_to_generators_only(f, place):
    edit(place, lambda content: node(content, 'data').append(f(content)))
    learn = attack(place, refused=True)[0]
    ds = learn.dls.train.dataset
    assert ds.name == 'mine' and isinstance(ds.rng, random.Random) and not hasattr(TorchDL, 'hacked')
    assert learn.dls.valid.dataset[0][1] == y[0]

# Forms
def weight(content): return content['state']['nodes'][first_layer(content)['_parameters']['weight'][1]][2]
def set_holds(k, code): return lambda c: node(c, 'Holds 0').update({k:code})
def holds_new(*args): return lambda c: node(c, 'Holds 0').update(best=new(c, *args))
def deep(content):
    o = []
    for _ in range(100_000): o = [o]
    node(content, 'Holds 0')['best'] = o
def cut_node(content): content['state']['nodes'][-1] = content['state']['nodes'][-1][:2]

int_name = 'builtins:int'
malformed = dict(
    negative_ref = set_holds('best', ('ref', -1)),
    large_ref    = set_holds('best', ('ref', 10**9)),
    true_ref     = set_holds('best', ('ref', True)),
    text_ref     = set_holds('best', ('ref', '0')),
    bare_ref     = set_holds('best', ('ref',)),
    long_ref     = set_holds('best', ('ref', 0, 0)),
    unknown_tag  = set_holds('best', ('call', 'os:system')),
    empty_tuple  = set_holds('best', ()),
    short_node   = cut_node,
    text_node    = lambda c: c['state']['nodes'].append('text'),
    unknown_kind = holds_new('Code', 'builtins:list', {}),
    nodes        = lambda c: c['state'].update(nodes=None),
    no_nodes     = lambda c: c['state'].pop('nodes'),
    roots        = lambda c: c['state']['roots'].update(learn=-1),
    text_root    = lambda c: c['state']['roots'].update(learn='0'),
    roots_list   = lambda c: c['state'].update(roots=[]),
    names        = lambda c: c['state'].update(names=3),
    state        = lambda c: c.update(state=3),
    missing_key  = lambda c: c.pop('begin'),
    epoch_text   = lambda c: c.update(epoch='1'),
    epoch_below  = lambda c: c.update(epoch=-5),
    iter_text    = lambda c: c.update(iter='4'),
    iter_beyond  = lambda c: c.update(iter=10**6),
    iter_below   = lambda c: c.update(iter=-4),
    others       = lambda c: c.update(others=[3]),
    keep         = lambda c: c.update(keep=3),
    run          = lambda c: c.update(run=[]),
    deep         = deep,
    no_data      = lambda c: content_of(c, 'Holds 0').__setitem__(2, None),
    weight_text  = lambda c: weight(c).update(numbers='abc'),
    weight_shape = lambda c: weight(c).update(numbers=torch.zeros(3)),
    weight_empty = lambda c: weight(c).clear(),
    grad_text    = lambda c: weight(c).update(grad='abc'),
    items_number = holds_new('Lists', 'builtins:list', dict(items=3, own={})),
    items_gone   = holds_new('Lists', 'builtins:list', {}),
    packed       = holds_new('Lists', 'builtins:list', dict(items=('packed', [], torch.ones(2)), own={})),
    packed_text  = holds_new('Lists', 'builtins:list', dict(items=('packed', [[int_name, 2]], 'ab'), own={})),
    maxlen       = holds_new('Deques', 'collections:deque', dict(items=[1], maxlen='many')),
    array_dtype  = holds_new('Arrays', 'numpy:ndarray', array([1], "'|O'")),
    array_shape  = holds_new('Arrays', 'numpy:ndarray', array([10**12], "'<f8'")),
    array_large  = holds_new('Arrays', 'numpy:ndarray', dict(items=[1], shape=[10**12])),
    array_code   = holds_new('Arrays', 'numpy:ndarray', array([1], 'exit()')),
    generator    = holds_new('Generators', 'torch._C:Generator', dict(state='abc', bits='')),
    bits         = holds_new('Generators', np.random.Generator, dict(state={}, bits='system')),
    range        = set_holds('best', ('range', ['a', 'b'])),
    date         = set_holds('best', ('date', 'tomorrow')),
    frame        = set_holds('best', ('frame', 3)),
    live         = set_holds('best', ('live', 'os')))

def content_of(content, root): return content['state']['nodes'][content['state']['roots'][root]]

@pytest.mark.parametrize('f', malformed.values(), ids=malformed)
def test_a_file_of_another_form_is_refused(f, place):
    "With a `ValueError`, and not with whatever error comes of it"
    try: edit(place, f)
    except RecursionError: pytest.skip('torch cannot write it')
    attack(place, refused=True)

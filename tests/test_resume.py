"A run survives: killed, interrupted, without room on the disk, or in a folder that can't be written in"
import json, os, pickle, shutil, signal, subprocess, sys, warnings
import pytest
from conftest import root
from fastai.callback.all import *
from fastai_clrbeta.all import *
from fastai_clrbeta.checkpoint import checkpoint_paths as _paths
from matplotlib import pyplot as plt

def faults(*args):
    p = subprocess.run([sys.executable, str(root/'tests/faults.py'), *map(str, args)], capture_output=True, text=True, cwd=root)
    assert p.returncode == 0, p.stderr[-3000:]
    return json.loads(p.stdout.splitlines()[-1])

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_sigkill_at_20_random_moments(tmp_path, record_property):
    res = faults('kill', 20, tmp_path)
    assert len(res) == 20 and all(o['killed'] and o['resumed'] and o['same'] for o in res), res
    assert sum('run.ckpt' in o['left'] for o in res) >= 5, res
    record_property('times', len(res))

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_two_processes_are_killed(tmp_path):
    "Both, and one of them"
    res = faults('kill', 2, tmp_path, 2)
    assert len(res) == 2 and all(o['killed'] and o['resumed'] and o['same'] for o in res), res
    assert sorted(o['codes'].count(-signal.SIGKILL) for o in res) == [1,2]
    f = next(tmp_path.glob('[0-9]*/models/run.ckpt'))
    learn = learner(f.parent.parent)
    with pytest.raises(ValueError, match='is of a run in 2 processes, and this one has 1'): train(learn, resume=True)
    assert learn.opt is None

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_two_processes_of_a_lengthened_run_are_killed(tmp_path):
    "The run diverges in one of the processes, twice"
    res = faults('lengthened', tmp_path)
    assert res['same'] and res['codes'][0] == res['codes'][-1] == [0,0], res
    assert all(-signal.SIGKILL in o for o in res['codes'][1:-1]), res

def test_workers_that_outlive_an_epoch_are_told(tmp_path):
    learn = learner(tmp_path)
    dl = torch.utils.data.DataLoader(learn.dls.train.dataset, 32, num_workers=1, persistent_workers=True)
    learn.dls = DataLoaders(dl, learn.dls.valid)
    with pytest.warns(UserWarning, match='persistent_workers=True: these workers keep .* Without it, it is the same bit for bit'):
        train(learn, cycle_len=1)

@pytest.mark.skipif(sys.platform == 'win32', reason='needs RLIMIT_FSIZE')
def test_disk_full(tmp_path):
    res = faults('disk_full', tmp_path)
    assert res['epochs'] == 4 and res['same']
    assert len(res['warned']) == 3 and 'the last one is kept' in res['warned'][0]
    assert res['left'] == ['run.ckpt','run.prev.ckpt']

@pytest.mark.skipif(not hasattr(os, 'setuid'), reason='needs setuid')
def test_read_only_folder(tmp_path):
    for o in (tmp_path, *tmp_path.parents):
        if not o.stat().st_mode & 1: o.chmod(0o755)  # for whoever is not root to get there
    res = faults('read_only', tmp_path)
    assert "checkpoint='run': can't write in" in res['error'] and res['untouched']
    assert res['epochs'] == 4 and len(res['warned']) == 3

def learner(folder, cbs=None, seed=0):
    set_seed(seed, reproducible=True)
    x,y = torch.randn(96,8),torch.arange(96)%4
    ds = list(zip(x, y))
    dls = DataLoaders(DataLoader(ds, bs=16, shuffle=True), DataLoader(ds, bs=32))
    set_seed(seed+1)
    model = nn.Sequential(nn.Linear(8,16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16,4))
    return Learner(dls, model, loss_func=CrossEntropyLossFlat(), opt_func=sgd, metrics=accuracy, path=folder, cbs=cbs)

def train(learn, lrs=0.1, cycle_len=3, **kwargs):
    with learn.no_bar(), learn.no_logging():
        learn.fit_clr_beta(lrs, cycle_len=cycle_len, **{**dict(checkpoint='run', every_iter=4, use_clr_beta=(10,13.68,0.95,0.8)), **kwargs})
    return learn

def same(a, b):
    assert all(p.equal(q) for p,q in zip(a.model.state_dict().values(), b.model.state_dict().values()))
    for k in ('values','losses','lrs','hps','iters'): assert getattr(a.recorder, k) == getattr(b.recorder, k), k

@pytest.fixture(scope='module')
def peace(tmp_path_factory): return train(learner(tmp_path_factory.mktemp('peace')))

class Signal(Callback):
    "Ctrl-C at the `n`th time that `event` happens"
    order = 2000
    def __init__(self, event, n):
        self.left = n
        setattr(self, event, self._count)
    def _count(self):
        self.left -= 1
        if self.left == 0: signal.raise_signal(signal.SIGINT)

_train = 'before_batch after_pred after_loss before_backward after_backward before_step after_step after_batch'.split()
@pytest.mark.parametrize('event,n', [(o,1) for o in ('before_fit','after_fit')] + [(o,2) for o in
    'before_epoch before_train after_train before_validate after_validate after_epoch'.split()] + [(o,n) for o in _train for n in (1,9)])
def test_sigint_in_every_phase(event, n, tmp_path, peace):
    with pytest.raises(KeyboardInterrupt): train(learner(tmp_path, cbs=Signal(event, n)))
    same(train(learner(tmp_path), resume=True), peace)

@pytest.mark.parametrize('where', ['fsync','replace'])
@pytest.mark.parametrize('n', [1,2,5,8])
def test_sigint_while_writing(where, n, tmp_path, peace, monkeypatch):
    real,left = getattr(os, where),[n]
    def f(*args):
        left[0] -= 1
        if left[0] == 0: signal.raise_signal(signal.SIGINT)
        return real(*args)
    with monkeypatch.context() as m:
        m.setattr(os, where, f)
        with pytest.raises(KeyboardInterrupt): train(learner(tmp_path))
    assert not _paths(tmp_path/'models'/'run')[2].exists()
    same(train(learner(tmp_path), resume=True), peace)

def test_sigint_in_each_function_that_writes(tmp_path):
    "There is always a whole checkpoint. Python survives: torch aborts it if a file is closed too early"
    res = faults('interrupted_writing', tmp_path)
    assert res['times'] > 100 and not res['bad'], res

def test_the_interrupted_learner_resumes_itself(tmp_path, peace):
    "After an interrupt in a notebook, the Learner that was interrupted is the one at hand"
    learn = learner(tmp_path, cbs=Signal('after_step', 11))
    with pytest.raises(KeyboardInterrupt): train(learn)
    learn.remove_cbs(learn.cbs.filter(risinstance(Signal)))
    same(train(learn, resume=True), peace)
    assert not {'_do_fit','all_batches'} & set(vars(learn))

def test_a_plain_run_is_the_same(tmp_path, peace): same(train(learner(tmp_path), checkpoint=None, every_iter=None), peace)

def test_stock_callbacks_keep_their_state(tmp_path):
    "In fastai's own resumed fit SaveModel and EarlyStopping crash, or forget their best value"
    def cbs(): return [SaveModelCallback(fname='best'), EarlyStoppingCallback(patience=2, min_delta=0.5), ReduceLROnPlateau(patience=9)]
    full = train(learner(tmp_path/'full', cbs()), cycle_len=6)
    assert len(full.recorder.values) < 6  # it has stopped early
    with pytest.raises(KeyboardInterrupt): train(learner(tmp_path/'cut', [*cbs(), Signal('after_epoch', 2)]), cycle_len=6)
    again = train(learner(tmp_path/'cut', cbs()), cycle_len=6, resume=True)
    same(again, full)
    assert again.early_stopping.wait == full.early_stopping.wait and again.save_model.best == full.save_model.best

class Stateful(Callback):
    "Keeps state of every kind, and trains by it"
    order = -1
    def __init__(self):
        self.first,self.window,self.seen = True,collections.deque(maxlen=3),set()
        set_seed(5)
        self.count,self.average = defaultdict(int),nn.Linear(4,4)
    def before_epoch(self): self.first = True
    def after_loss(self):
        if not self.training: return
        self.window.append(self.loss.item()); self.seen.add(round(self.loss.item(), 1)); self.count[self.first] += 1
        with torch.no_grad(): self.average.weight.mul_(0.9).add_(0.1*self.model[3].weight[:,:4])
        factor = 1 + sum(self.window) + len(self.seen) + self.count[False] + self.average.weight.abs().mean().item()
        self.learn.loss_grad = self.learn.loss_grad/factor
        self.first = False

@pytest.mark.parametrize('cut', [3,7,11])
@pytest.mark.parametrize('same_learner', [False,True])
def test_state_of_every_kind(cut, same_learner, tmp_path):
    full = train(learner(tmp_path, Stateful()), checkpoint='full')
    learn = learner(tmp_path, [Stateful(), Signal('after_batch', cut)])
    with pytest.raises(KeyboardInterrupt): train(learn, every_iter=1)
    if same_learner: learn.remove_cbs(learn.cbs.filter(risinstance(Signal)))
    else: learn = learner(tmp_path, Stateful())
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='.*cannot be saved')
        same(train(learn, every_iter=1, resume=True), full)
    assert learn.stateful.window.maxlen == 3 and type(learn.stateful.count) is defaultdict

class Figures(Callback):
    "Makes a figure, which no file can hold, at its step number `at`; and a table, which a file can hold"
    def __init__(self, at):
        self.at = at
        if at == 0: self.figure = plt.figure()
    def after_batch(self):
        if self.train_iter == self.at: self.figure,self.table = plt.figure(),pd.DataFrame(dict(a=[1,2]))

@pytest.mark.parametrize('at', [0,7])
def test_what_cannot_be_saved_is_named_once(at, tmp_path):
    "Whether it exists from the start or is made during the run"
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        whole = train(learner(tmp_path/'whole', Figures(at)))
        w.clear()
        with pytest.raises(KeyboardInterrupt):
            train(learner(tmp_path, [Figures(at), Signal('after_batch', 12)]))
    named = [str(o.message) for o in w if 'cannot be saved' in str(o.message)]
    assert len(named) == 1, named
    assert named[0].startswith('`Figures.figure` (matplotlib.Figure) cannot be saved')
    same(train(learner(tmp_path, Figures(at)), resume=True), whole)

def test_without_resume_the_checkpoint_that_was_there_is_kept(tmp_path, peace):
    with pytest.raises(KeyboardInterrupt): train(learner(tmp_path, Signal('after_batch', 8)))
    with pytest.warns(UserWarning, match='It is now run.old.ckpt'): train(learner(tmp_path, seed=5))
    models = tmp_path/'models'
    assert sorted(o.name for o in models.iterdir()) == ['run.ckpt','run.old.ckpt','run.prev.ckpt']
    os.replace(models/'run.old.ckpt', models/'run.ckpt')
    same(train(learner(tmp_path), resume=True), peace)

def test_numbers_of_numpy(tmp_path):
    def make(cbs=None):
        learn = learner(tmp_path, cbs)
        learn.dls = DataLoaders(DataLoader(learn.dls.train.dataset, bs=np.int64(16), shuffle=True), learn.dls.valid)
        return learn
    full = train(make(), checkpoint='full')
    with pytest.raises(KeyboardInterrupt): train(make(Signal('after_batch', 8)))
    same(train(make(), resume=True), full)

def test_other_runs_are_refused(tmp_path):
    class Mine(CLRBeta):
        def lr_at(self, i, nb): return 0.5
    train(learner(tmp_path).to_precision('bf16'))
    with pytest.raises(ValueError, match='precision bf16 there, fp32 here'): train(learner(tmp_path), resume=True)
    with pytest.raises(ValueError, match='precision bf16 there, fp32 here'): train(learner(tmp_path).to_bf16(), resume=True)
    train(learner(tmp_path).to_bf16())  # does nothing on the CPU
    with pytest.raises(ValueError, match='precision fp32 there, bf16 here'): train(learner(tmp_path).to_precision('bf16'), resume=True)
    with pytest.raises(ValueError, match='kinds MixedPrecision there'): train(learner(tmp_path), resume=True)
    train(learner(tmp_path))
    with pytest.raises(ValueError, match='schedule: learning rate differs from step 0 on: .* there, .* here'):
        train(learner(tmp_path), resume=True, use_clr_beta=Mine(10,13.68,0.95,0.8))
    def augmented(*tfms):
        learn = learner(tmp_path)
        learn.dls = DataLoaders(TfmdDL(learn.dls.train.dataset, bs=16, shuffle=True, after_batch=list(tfms)), learn.dls.valid)
        return learn
    train(augmented())
    with pytest.raises(ValueError, match='transforms .* there, IntToFloatTensor here'): train(augmented(IntToFloatTensor()), resume=True)
    with pytest.raises(ValueError, match='leave them out'): train(learner(tmp_path), use_clr_beta=CLRBeta(10, 10, lrs=0.7))

def test_the_learner_can_be_saved_in_a_resumed_run(tmp_path):
    class Pickles(Callback):
        def before_batch(self): pickle.dumps(self.model); assert not {'_do_fit','all_batches'} & set(vars(self.learn))
    with pytest.raises(KeyboardInterrupt): train(learner(tmp_path, Signal('after_batch', 8)), every_iter=3)
    train(learner(tmp_path, Pickles()), every_iter=3, resume=True)

def test_other_loaders(tmp_path):
    "torch's DataLoader with a generator and a sampler of its own, through two cuts"
    def make(cut=None):
        learn = learner(tmp_path, cbs=Signal('after_batch', cut) if cut else None)
        g = torch.Generator().manual_seed(3)
        ds = learn.dls.train.dataset
        dl = torch.utils.data.DataLoader(ds, 16, sampler=torch.utils.data.RandomSampler(ds, generator=g))
        learn.dls = DataLoaders(dl, torch.utils.data.DataLoader(ds, 32))
        return learn
    full = train(make(), checkpoint='full')
    with pytest.raises(KeyboardInterrupt): train(make(9))
    with pytest.raises(KeyboardInterrupt): train(make(6), resume=True)
    same(train(make(), resume=True), full)

def test_amp_accumulation_and_frozen_groups(tmp_path):
    def make(cut=None):
        learn = learner(tmp_path, [GradientAccumulation(40), MixUp(0.4), *([Signal('after_batch', cut)] if cut else [])])
        learn.opt_func,learn.splitter = Adam,lambda m: [params(m[:2]), params(m[2:])]
        learn.to_precision('bf16')
        learn.freeze()
        return learn
    full = train(make(), lrs=slice(1e-3,1e-2), checkpoint='full')
    with pytest.raises(KeyboardInterrupt): train(make(10), lrs=slice(1e-3,1e-2))
    with pytest.raises(ValueError, match='optimiser: trained'):
        learn = make(); learn.unfreeze(); train(learn, lrs=slice(1e-3,1e-2), resume=True)
    same(train(make(), lrs=slice(1e-3,1e-2), resume=True), full)

@pytest.mark.parametrize('kwargs,msg', [
    (dict(checkpoint=None, resume=True, every_iter=None), "checkpoint='name'"), (dict(every_iter=0), 'every_iter=0'),
    (dict(checkpoint='no/folder'), 'there is no folder'),
    (dict(checkpoint='', every_iter=None), "checkpoint=''")])
def test_bad_arguments(kwargs, msg, tmp_path):
    learn = learner(tmp_path)
    with pytest.raises(ValueError, match=msg): train(learn, **kwargs)
    assert learn.opt is None and not (tmp_path/'models').exists()

def test_more_runs_are_told_apart(tmp_path):
    "A loss, a callback of fastai's that changes training, a schedule's own parameters"
    train(learner(tmp_path))
    def other(**kwargs):
        learn = learner(tmp_path)
        for k,v in kwargs.items(): setattr(learn, k, v)
        return learn
    for loss in LabelSmoothingCrossEntropyFlat(eps=0.3),CrossEntropyLossFlat(weight=tensor([1.,2,3,4])):
        with pytest.raises(ValueError, match='loss: settings .* there'): train(other(loss_func=loss), resume=True)
    with pytest.raises(ValueError, match='callbacks: kinds nothing there, MixUp here'): train(learner(tmp_path), cbs=MixUp, resume=True)
    train(learner(tmp_path, MixUp(0.4)), checkpoint='mixed')
    train(learner(tmp_path, MixUp(0.4)), checkpoint='mixed', resume=True)
    with pytest.raises(ValueError, match='callbacks: settings MixUp.*0.4.* there, MixUp.*0.2.* here'):
        train(learner(tmp_path, MixUp(0.2)), checkpoint='mixed', resume=True)
    with pytest.raises(ValueError, match='callbacks: kinds nothing there, GradientClip here'): train(learner(tmp_path, GradientClip), resume=True)
    train(learner(tmp_path, [TerminateOnNaNCallback(), CSVLogger(fname=tmp_path/'h.csv')]), resume=True)  # these only look on

def test_a_complete_run_says_so(tmp_path, capsys):
    whole = train(learner(tmp_path))
    capsys.readouterr()
    again = train(learner(tmp_path), resume=True)
    assert 'nothing is left to do' in capsys.readouterr().out
    same(again, whole)

def test_nothing_that_was_kept_is_lost(tmp_path):
    "However often a run is started over, and where a kill has left the checkpoint before last only"
    models,kept = tmp_path/'models',lambda: sorted(o.name for o in (tmp_path/'models').glob('run.old*'))
    train(learner(tmp_path))
    long = (models/'run.ckpt').read_bytes()
    for n in range(3):
        with pytest.warns(UserWarning, match='It is now run.old'), pytest.raises(KeyboardInterrupt):
            train(learner(tmp_path, Signal('after_batch', 2)))
        assert (models/'run.old.ckpt').read_bytes() == long and len(kept()) == n+1
    (models/'run.ckpt').rename(models/'run.prev.ckpt')
    with pytest.warns(UserWarning, match='It is now run.old4.ckpt'): train(learner(tmp_path))
    assert kept() == ['run.old.ckpt','run.old2.ckpt','run.old3.ckpt','run.old4.ckpt']

def cut(path):
    data = path.read_bytes()
    path.write_bytes(data[:len(data)//2])
def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data)//2] ^= 0xff
    path.write_bytes(data)
def of_format(name): return lambda path: torch.save(dict(format=name), path)
bad_files = dict(cut=cut, damaged=damage, empty=lambda path: path.write_bytes(b''),
                 text=lambda path: path.write_text('not a checkpoint'),
                 oldest=of_format('fastai_clrbeta 2'), older=of_format('fastai_clrbeta 3'),
                 newer=of_format('fastai_clrbeta 99'))
told = dict(oldest='Version 0.1.0 wrote .*run.ckpt', older='Version 0.2.0 wrote .*run.ckpt',
            newer='its format is fastai_clrbeta 99')

@pytest.fixture(scope='module')
def interrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp('interrupted')
    with pytest.raises(KeyboardInterrupt): train(learner(folder, Signal('after_batch', 9)))
    return folder/'models'

@pytest.mark.parametrize('name', bad_files)
def test_a_bad_file_is_refused_in_one_line_before_anything_changes(name, tmp_path, interrupted):
    shutil.copytree(interrupted, tmp_path/'models')
    for o in _paths(tmp_path/'models'/'run')[:2]: bad_files[name](o)
    learn = learner(tmp_path)
    before = [v.clone() for v in learn.model.state_dict().values()]
    with pytest.raises(ValueError, match=told.get(name, 'damaged or no checkpoint')) as e:
        train(learn, resume=True)
    assert '\n' not in str(e.value) and learn.opt is None and learn.path == tmp_path
    assert all(map(torch.equal, before, learn.model.state_dict().values()))

@pytest.mark.parametrize('name', [*bad_files,'missing'])
def test_the_checkpoint_before_a_bad_one_is_resumed(name, tmp_path, interrupted, peace):
    shutil.copytree(interrupted, tmp_path/'models')
    newest = _paths(tmp_path/'models'/'run')[0]
    if name == 'missing':
        newest.unlink()
        same(train(learner(tmp_path), resume=True), peace)
    else:
        bad_files[name](newest)
        with pytest.warns(UserWarning, match='Resuming from the one before it, run.prev.ckpt'):
            same(train(learner(tmp_path), resume=True), peace)

def test_items_of_any_kind_tell_data_sets_apart(tmp_path):
    "Rows of tables are told by what they hold, not by where they lie in memory"
    class Rows:
        def __init__(self, word): self.df = pd.DataFrame(dict(a=[f'{word} {i}' for i in range(64)], y=range(64)))
        def __len__(self): return 64
        def __getitem__(self, i): return self.df.iloc[i]
    def rows(word):
        learn = learner(tmp_path)
        coll = lambda b: (torch.tensor([[float(len(r.a))]*8 for r in b]), torch.tensor([r.y%4 for r in b]))
        learn.dls = DataLoaders(*(torch.utils.data.DataLoader(Rows(word), 16, collate_fn=coll) for _ in range(2)))
        return learn
    train(rows('text'))
    train(rows('text'), resume=True)
    with pytest.raises(ValueError, match='data: training contents'): train(rows('word'), resume=True)

class Validates(Callback):
    "A callback may look at the whole model within a fit: in `lr`, `epoch` and the recorder fastai then starts anew"
    order = 60
    def __init__(self, event, look): self.event,self.look,self.told = event,look,[]
    def after_train(self): self._look('after_train')
    def after_epoch(self): self._look('after_epoch')
    def _look(self, event):
        if event != self.event or self.learn.lock.locked(): return
        self.told.append(self.look(self.learn))

@pytest.mark.parametrize('event', ['after_train','after_epoch'])
@pytest.mark.parametrize('look', [lambda l: float(l.validate(0)[0]), lambda l: l.get_preds()[0].sum().item()], ids=['validate','get_preds'])
def test_a_callback_that_validates_does_not_confuse_a_run(event, look, tmp_path):
    kw = dict(n_cycle=3, cycle_len=1, on_diverge='raise', cycle_save_name='c')
    start = lambda k,*cbs: learner(tmp_path/k, cbs=[Validates(event, look), MixUp(), *cbs])
    whole = train(start('whole'), **kw)
    with pytest.raises(KeyboardInterrupt): train(start('cut', Signal('before_step', 15)), **kw)
    again = train(start('cut'), resume=True, **kw)
    same(again, whole)
    assert again.validates.told == whole.validates.told and len(whole.validates.told) == 3
    for k in 'whole','cut':
        assert sorted(o.name for o in (tmp_path/k/'models').glob('c_*')) == [f'c_cyc_{i}.pth' for i in range(3)]

def test_the_contents_of_the_data_stay_out(tmp_path):
    class Held:
        def __init__(self): self.x,self.names,self.seen = torch.randn(4096,8),[f'{i}' for i in range(4096)],0
        def __len__(self): return 64
        def __getitem__(self, i): return self.x[i],i%4
    for ds in Held(),torch.utils.data.TensorDataset(torch.randn(4096,8), torch.arange(4096)%4):
        learn = learner(tmp_path)
        learn.dls = DataLoaders(*(torch.utils.data.DataLoader(ds, 1024, shuffle=True) for _ in range(2)))
        train(learn, checkpoint=type(ds).__name__)
        assert (tmp_path/f'models/{type(ds).__name__}.ckpt').stat().st_size < 131072 # as much as the data takes

class Explode(Callback):
    "Diverge at the fifth step of a run of less than 3 epochs"
    order = -11
    def after_loss(self):
        if self.training and self.n_epoch < 3 and self.epoch*self.n_iter+self.iter == 4: self.learn.loss = self.learn.loss*float('nan')

@pytest.mark.parametrize('cut', [3,7,13])
def test_a_lengthened_run_resumes_in_its_attempt(cut, tmp_path, capsys):
    "Two attempts diverge; cut in the first, the second or the third"
    batches = itertools.count(1)
    class Cut(Callback):
        order = 2000
        def after_batch(self):
            if self.training and next(batches) == cut: raise KeyboardInterrupt
    kw = dict(cycle_len=1, on_diverge='lengthen', every_iter=1)
    full = train(learner(tmp_path, Explode()), checkpoint='full', **kw)
    assert len(full.recorder.values) == 3
    with pytest.raises(KeyboardInterrupt): train(learner(tmp_path, [Explode(), Cut()]), **kw)
    again = learner(tmp_path, Explode())
    with torch.no_grad():
        for p in again.model.parameters(): p.add_(1.)  # the beginning is in the file
    set_seed(9)
    capsys.readouterr()
    same(train(again, resume=True, **kw), full)
    told = [o[:25] for o in capsys.readouterr().out.splitlines()]
    assert told == ['Resuming from epoch 0, st', *[f'Diverged with cycle_len={n}' for n in (1,2)][cut//5:]]
    with pytest.raises(ValueError, match=r'schedule: lengthen .* there, None here'): train(learner(tmp_path, Explode()), resume=True, cycle_len=1)

def test_what_a_run_has_replaced_is_named(tmp_path):
    "A run that has grown another layer is refused where that layer is missing"
    class Grows(Callback):
        def before_epoch(self):
            if self.epoch == 1 and len(self.model) == 4: self.model.insert(3, nn.Dropout(0.5))
    class Turns(Callback):
        def before_epoch(self):
            if self.epoch == 1: self.learn.loss_func = LabelSmoothingCrossEntropyFlat()
    with pytest.warns(UserWarning, match='The run has replaced modules, parameters or buffers since it'):
        with pytest.raises(KeyboardInterrupt):
            train(learner(tmp_path, cbs=[Grows(), Signal('before_step', 15)]))
    with pytest.raises(ValueError, match='does not fit this run: it holds .* model.4.weight'):
        train(learner(tmp_path), resume=True)
    with pytest.warns(UserWarning, match='The run has replaced the loss function since it began'):
        train(learner(tmp_path/'turns', cbs=Turns()))

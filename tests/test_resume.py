"A run survives: killed, interrupted, without room on the disk, or in a folder that can't be written in"
import os, pickle, shutil, signal, warnings
from collections import defaultdict, deque
import pytest
from conftest import needs_fork
from fastai.callback.all import *
from fastai_clrbeta.all import *
from fastai_clrbeta.checkpoint import checkpoint_paths
from helpers import CrashAt, Explode, TorchDL, assert_same_run, fit, interrupt, learner, nth, told, weights
from processes import fault
from matplotlib import pyplot as plt


@needs_fork
@pytest.mark.slow
def test_sigkill_at_random_moments(tmp_path, record_property):
    runs = fault('kill', 6, tmp_path)
    assert len(runs) == 6
    assert all(o['killed'] and o['resumed'] and o['same'] for o in runs), runs
    assert sum('run.ckpt' in o['left'] for o in runs) >= 2, runs
    record_property('times', len(runs))

@needs_fork
@pytest.mark.slow
def test_two_processes_of_a_lengthened_run_are_killed(tmp_path):
    "The run diverges in one of the processes, twice"
    res = fault('lengthened', tmp_path)
    assert res['same'] and res['codes'][0] == res['codes'][-1] == [0,0], res
    assert all(-signal.SIGKILL in o for o in res['codes'][1:-1]), res

def test_workers_that_outlive_an_epoch_are_told(tmp_path):
    learn = new_learner(tmp_path)
    dl = TorchDL(learn.dls.train.dataset, 32, num_workers=1, persistent_workers=True)
    learn.dls = DataLoaders(dl, learn.dls.valid)
    text = 'persistent_workers=True: a checkpoint does not hold .*, it is the same bit for bit'
    with pytest.warns(UserWarning, match=text): train(learn, cycle_len=1)

@needs_fork
def test_disk_full(tmp_path):
    res = fault('disk_full', tmp_path)
    assert res['epochs'] == 4 and res['same']
    assert len(res['warned']) == 3 and 'The last one is kept' in res['warned'][0]
    assert res['left'] == ['run.ckpt','run.prev.ckpt']

@needs_fork
def test_read_only_folder(tmp_path):
    for o in (tmp_path, *tmp_path.parents):
        if not o.stat().st_mode & 1: o.chmod(0o755)  # for whoever is not root to get there
    res = fault('read_only', tmp_path)
    assert "checkpoint='run': can't write in" in res['error'] and res['untouched']
    assert res['epochs'] == 4 and len(res['warned']) == 3

new_learner = partial(learner, kind='normed')
train = partial(fit, checkpoint='run', every_iter=4, use_clr_beta=(10,13.68,0.95,0.8))

def cut(learn, **kwargs):
    "Train until the `CrashAt` of `learn` strikes."
    with pytest.raises(KeyboardInterrupt): train(learn, **kwargs)
    return learn

def crashing(path, *args, **kwargs): return new_learner(path, CrashAt(*args, **kwargs))

@pytest.fixture(scope='module')
def whole(tmp_path_factory): return train(new_learner(tmp_path_factory.mktemp('whole')))

# Two steps of training, one of them in the second epoch, or the moment within validation
of_both = [(o, *at) for o in ('before_batch','after_pred','after_loss','after_batch')
           for at in ((0, False), (9, False), (6, True))]
of_step = [(o, step, False) for o in ('before_backward','after_backward','before_step','after_step')
           for step in (0, 8)]
of_epoch = [('before_epoch', 6, False), ('before_train', 6, False),
            *[(o, 12, False) for o in ('after_train','before_validate','after_validate','after_epoch')]]
of_fit = [('before_fit', 0, False), ('after_fit', 0, False)]

@pytest.mark.parametrize('event,step,valid', [*of_fit, *of_epoch, *of_step, *of_both])
def test_sigint_in_every_phase(event, step, valid, tmp_path, whole):
    cut(crashing(tmp_path, event, step, valid=valid))
    assert_same_run(train(new_learner(tmp_path), resume=True), whole)

@pytest.mark.parametrize('where', ['fsync','replace'])
@pytest.mark.parametrize('n', [1,2,5,8])
def test_sigint_while_writing(where, n, tmp_path, whole, monkeypatch):
    real,count = getattr(os, where),nth(n, interrupt)
    def interrupted(*args):
        count()
        return real(*args)
    with monkeypatch.context() as m:
        m.setattr(os, where, interrupted)
        cut(new_learner(tmp_path))
    assert {o.name for o in (tmp_path/'models').iterdir()} <= {'run.ckpt','run.prev.ckpt'}
    assert_same_run(train(new_learner(tmp_path), resume=True), whole)

@pytest.mark.skipif(not hasattr(os, 'ftruncate'), reason='needs os.ftruncate')
def test_a_file_that_is_damaged_while_it_is_written(tmp_path, whole, monkeypatch):
    "It does not replace the checkpoint before it"
    damage = nth(1, lambda: os.ftruncate(files[0], 1000))
    files = []
    def damaged(f):
        files.append(f)
        damage()
    learn = crashing(tmp_path, 'after_batch', 9)
    class Damage(Callback):
        def before_train(self):
            if self.epoch == 1: monkeypatch.setattr(os, 'fsync', damaged)
    learn.add_cb(Damage())
    text = 'No checkpoint was written at epoch 1, step 2. .* run.tmp.ckpt does not hold what was written'
    with pytest.warns(UserWarning, match=text): cut(learn)
    monkeypatch.undo()
    assert_same_run(train(new_learner(tmp_path), resume=True), whole)

@needs_fork
def test_sigint_in_each_function_that_writes(tmp_path):
    "There is always a whole checkpoint. Python survives: torch aborts it if a file is closed too early"
    res = fault('interrupted_writing', tmp_path)
    # at least those of `torch.save`
    assert res['times'] > 50 and not res['bad'], res

def test_the_interrupted_learner_resumes_itself(tmp_path, whole):
    "After an interrupt in a notebook, the Learner that was interrupted is the one at hand"
    crash = CrashAt('after_step', 10)
    learn = cut(new_learner(tmp_path, crash))
    learn.remove_cb(crash)
    assert_same_run(train(learn, resume=True), whole)
    assert not replaced_methods(learn)

def replaced_methods(learn): return vars(learn).keys() & vars(Learner).keys()

def test_a_plain_run_is_the_same(tmp_path, whole):
    assert_same_run(train(new_learner(tmp_path), checkpoint=None, every_iter=None), whole)

def test_stock_callbacks_keep_their_state(tmp_path):
    "In fastai's own resumed fit SaveModel and EarlyStopping crash, or forget their best value"
    def make(name, *cbs):
        stop = EarlyStoppingCallback(patience=2, min_delta=0.5)
        tracking = SaveModelCallback(fname='best'), stop, ReduceLROnPlateau(patience=9)
        return new_learner(tmp_path/name, [*tracking, *cbs])
    full = train(make('full'), cycle_len=6)
    assert len(full.recorder.values) < 6  # it has stopped early
    cut(make('cut', CrashAt('after_epoch', 12)), cycle_len=6)
    again = train(make('cut'), cycle_len=6, resume=True)
    assert_same_run(again, full)
    assert again.early_stopping.wait == full.early_stopping.wait
    assert again.save_model.best == full.save_model.best

class Stateful(Callback):
    "Keeps state of every kind, and trains by it"
    order = -1
    def __init__(self):
        self.first,self.window,self.seen = True,deque(maxlen=3),set()
        set_seed(5)
        self.count,self.average = defaultdict(int),nn.Linear(4,3)
    def before_epoch(self): self.first = True
    def after_loss(self):
        if not self.training: return
        self.window.append(self.loss.item())
        self.seen.add(round(self.loss.item(), 1))
        self.count[self.first] += 1
        with torch.no_grad(): self.average.weight.mul_(0.9).add_(0.1*self.model[3].weight[:,:4])
        of_average = self.average.weight.abs().mean().item()
        factor = 1 + sum(self.window) + len(self.seen) + self.count[False] + of_average
        self.learn.loss_grad = self.learn.loss_grad/factor
        self.first = False

@pytest.mark.parametrize('step,valid', [(3, False), (6, True), (8, False)])
@pytest.mark.parametrize('same_learner', [False,True])
def test_state_of_every_kind(step, valid, same_learner, tmp_path):
    full = train(new_learner(tmp_path, Stateful()), checkpoint='full')
    crash = CrashAt('after_batch', step, valid=valid)
    learn = cut(new_learner(tmp_path, [Stateful(), crash]), every_iter=1)
    if same_learner: learn.remove_cb(crash)
    else: learn = new_learner(tmp_path, Stateful())
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='.*cannot be saved')
        assert_same_run(train(learn, every_iter=1, resume=True), full)
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
        whole = train(new_learner(tmp_path/'whole', Figures(at)))
        w.clear()
        cut(new_learner(tmp_path, [Figures(at), CrashAt('after_batch', 9)]))
    named = [str(o.message) for o in w if 'cannot be saved' in str(o.message)]
    assert len(named) == 1, named
    assert named[0].startswith('`Figures.figure` (matplotlib.Figure) cannot be saved')
    assert_same_run(train(new_learner(tmp_path, Figures(at)), resume=True), whole)

@pytest.mark.parametrize('name,of_run', [
    ('best_save_name', dict(best_save_name='best')), ('cycle_save_name', dict(cycle_save_name='cycle')),
    ('DivergenceGuard', dict(cbs=DivergenceGuard()))])
def test_what_a_resumed_run_leaves_out_is_named_as_it_was_given(name, of_run, tmp_path):
    cut(crashing(tmp_path, 'after_batch', 8), **of_run)
    with told() as texts: train(new_learner(tmp_path), resume=True)
    assert texts == [f'The checkpoint was made with {name}, and this run is resumed without it. '
                     'Pass it again if that is not intended.']

def test_without_resume_the_checkpoint_that_was_there_is_kept(tmp_path, whole):
    cut(crashing(tmp_path, 'after_batch', 8))
    with pytest.warns(UserWarning, match='It is now run.old.ckpt'): train(new_learner(tmp_path, seed=5))
    models = tmp_path/'models'
    assert sorted(o.name for o in models.iterdir()) == ['run.ckpt','run.old.ckpt','run.prev.ckpt']
    os.replace(models/'run.old.ckpt', models/'run.ckpt')
    assert_same_run(train(new_learner(tmp_path), resume=True), whole)

def test_numbers_of_numpy(tmp_path):
    def make(cbs=()):
        learn = new_learner(tmp_path, cbs)
        train_dl = DataLoader(learn.dls.train.dataset, bs=np.int64(16), shuffle=True)
        learn.dls = DataLoaders(train_dl, learn.dls.valid)
        return learn
    full = train(make(), checkpoint='full')
    cut(make(CrashAt('after_batch', 8)))
    assert_same_run(train(make(), resume=True), full)

def refused(learn, match, **kwargs):
    with pytest.raises(ValueError, match=match): train(learn, **dict(resume=True) | kwargs)

def test_another_precision_is_refused(tmp_path):
    train(new_learner(tmp_path).to_precision('bf16'))
    refused(new_learner(tmp_path), 'precision: bf16 in the checkpoint, fp32 in this run')
    refused(new_learner(tmp_path).to_bf16(), 'precision: bf16 in the checkpoint, fp32 in this run')
    train(new_learner(tmp_path).to_bf16())  # does nothing on the CPU
    refused(new_learner(tmp_path).to_precision('bf16'), 'precision: fp32 in the checkpoint, bf16 in this run')
    refused(new_learner(tmp_path), 'training: MixedPrecision in the checkpoint')

class Constant(CLRBeta):
    def lr_at(self, i, nb): return 0.5

def test_another_schedule_is_refused(tmp_path):
    train(new_learner(tmp_path))
    refused(new_learner(tmp_path), 'learning rate from step 0 on: .* in the checkpoint, .* in this run',
            use_clr_beta=Constant(10,13.68,0.95,0.8))
    refused(new_learner(tmp_path), 'leave them out', use_clr_beta=CLRBeta(10, 10, lrs=0.7), resume=False)

def test_other_transforms_are_refused(tmp_path):
    def augmented(*tfms):
        learn = new_learner(tmp_path)
        dl = TfmdDL(learn.dls.train.dataset, bs=16, shuffle=True, after_batch=list(tfms))
        learn.dls = DataLoaders(dl, learn.dls.valid)
        return learn
    train(augmented())
    refused(augmented(IntToFloatTensor()), 'transforms: .* in the checkpoint, IntToFloatTensor in this run')

def test_the_learner_can_be_saved_in_a_resumed_run(tmp_path):
    class Pickles(Callback):
        def before_batch(self):
            pickle.dumps(self.model)
            assert not replaced_methods(self.learn)
    cut(crashing(tmp_path, 'after_batch', 8), every_iter=3)
    train(new_learner(tmp_path, Pickles()), every_iter=3, resume=True)

def test_other_loaders(tmp_path):
    "torch's DataLoader with a sampler that has a generator, through two cuts"
    def make(cbs=()):
        learn = new_learner(tmp_path, cbs)
        generator = torch.Generator().manual_seed(3)
        ds = learn.dls.train.dataset
        sampler = torch.utils.data.RandomSampler(ds, generator=generator)
        learn.dls = DataLoaders(TorchDL(ds, 16, sampler=sampler), TorchDL(ds, 32))
        return learn
    full = train(make(), checkpoint='full')
    cut(make(CrashAt('after_batch', 9)))
    cut(make(CrashAt('after_batch', 14)), resume=True)
    assert_same_run(train(make(), resume=True), full)

def test_amp_accumulation_and_frozen_groups(tmp_path):
    run = partial(train, lrs=slice(1e-3,1e-2))
    def make(cbs=()):
        learn = new_learner(tmp_path, [GradientAccumulation(40), MixUp(0.4), *L(cbs)])
        learn.opt_func,learn.splitter = Adam,lambda m: [params(m[:2]), params(m[2:])]
        learn.to_precision('bf16')
        learn.freeze()
        return learn
    full = run(make(), checkpoint='full')
    with pytest.raises(KeyboardInterrupt): run(make(CrashAt('after_batch', 7)))
    learn = make()
    learn.unfreeze()
    with pytest.raises(ValueError, match='trained parameters in each group: 2, 2 in'): run(learn, resume=True)
    assert_same_run(run(make(), resume=True), full)

@pytest.mark.parametrize('kwargs,msg', [
    (dict(checkpoint=None, resume=True, every_iter=None), "checkpoint='name'"),
    (dict(every_iter=0), 'every_iter=0'),
    (dict(checkpoint=None, every_iter=None, keep=dict(a=torch.Generator())),
     "keep: no effect without a checkpoint"),
    (dict(resume='no'), "resume='no': must be True or False"),
    (dict(reset_opt='no'), "reset_opt='no': must be True or False"),
    (dict(checkpoint='run.ckpt'), 'the ending .ckpt is added to the name'),
    (dict(checkpoint='no/folder'), 'there is no folder'),
    (dict(checkpoint='', every_iter=None), "checkpoint=''")])
def test_bad_arguments(kwargs, msg, tmp_path):
    learn = new_learner(tmp_path)
    with pytest.raises(ValueError, match=msg): train(learn, **kwargs)
    assert learn.opt is None and not (tmp_path/'models').exists()

def test_more_runs_are_told_apart(tmp_path):
    "A loss, a callback of fastai's that changes training"
    train(new_learner(tmp_path))
    for loss in LabelSmoothingCrossEntropyFlat(eps=0.3),CrossEntropyLossFlat(weight=tensor([1.,2,3])):
        refused(new_learner(tmp_path, loss_func=loss), 'settings of the loss function: .* in the checkpoint')
    refused(new_learner(tmp_path), 'training: none in the checkpoint, MixUp in this run', cbs=MixUp)
    refused(new_learner(tmp_path, GradientClip), 'training: none in the checkpoint, GradientClip in this run')
    observers = [TerminateOnNaNCallback(), CSVLogger(fname=tmp_path/'h.csv')]  # they do not change the run
    train(new_learner(tmp_path, observers), resume=True)
    mixed = partial(train, checkpoint='mixed')
    mixed(new_learner(tmp_path, MixUp(0.4)))
    mixed(new_learner(tmp_path, MixUp(0.4)), resume=True)
    differs = 'settings of callbacks: MixUp.*0.4.* in the checkpoint, MixUp.*0.2.* in this run'
    refused(new_learner(tmp_path, MixUp(0.2)), differs, checkpoint='mixed')

def test_a_complete_run_says_so(tmp_path, capsys):
    whole = train(new_learner(tmp_path))
    capsys.readouterr()
    again = train(new_learner(tmp_path), resume=True)
    assert 'nothing is left to do' in capsys.readouterr().out
    assert_same_run(again, whole)

def test_nothing_that_was_kept_is_lost(tmp_path):
    "However often a run is started over, and where a kill has left the checkpoint before last only"
    models = tmp_path/'models'
    def kept(): return sorted(o.name for o in models.glob('run.old*'))
    train(new_learner(tmp_path))
    long = (models/'run.ckpt').read_bytes()
    for n in range(3):
        with pytest.warns(UserWarning, match='It is now run.old'): cut(crashing(tmp_path, 'after_batch', 2))
        assert (models/'run.old.ckpt').read_bytes() == long and len(kept()) == n+1
    (models/'run.ckpt').rename(models/'run.prev.ckpt')
    with pytest.warns(UserWarning, match='It is now run.old4.ckpt'): train(new_learner(tmp_path))
    assert kept() == ['run.old.ckpt','run.old2.ckpt','run.old3.ckpt','run.old4.ckpt']

# Files that are no checkpoint
def cut_off(path):
    data = path.read_bytes()
    path.write_bytes(data[:len(data)//2])
def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data)//2] ^= 0xff
    path.write_bytes(data)
def of_format(name): return lambda path: torch.save(dict(format=name), path)
bad_files = dict(cut_off=cut_off, damaged=damage, empty=lambda path: path.write_bytes(b''),
                 text=lambda path: path.write_text('not a checkpoint', encoding='utf-8'),
                 oldest=of_format('fastai_clrbeta 2'), older=of_format('fastai_clrbeta 3'),
                 newer=of_format('fastai_clrbeta 99'))
reasons = dict(oldest='Version 0.1.0 wrote .*run.ckpt', older='Version 0.2.0 wrote .*run.ckpt',
               newer='its format is fastai_clrbeta 99')

@pytest.fixture(scope='module')
def interrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp('interrupted')
    cut(crashing(folder, 'after_batch', 9))
    return folder/'models'

@pytest.mark.parametrize('name', bad_files)
def test_a_bad_file_is_refused_in_one_line_before_anything_changes(name, tmp_path, interrupted):
    shutil.copytree(interrupted, tmp_path/'models')
    for o in checkpoint_paths(tmp_path/'models'/'run')[:2]: bad_files[name](o)
    learn = new_learner(tmp_path)
    before = [v.clone() for v in learn.model.state_dict().values()]
    with pytest.raises(ValueError, match=reasons.get(name, 'damaged or not a checkpoint')) as e:
        train(learn, resume=True)
    assert '\n' not in str(e.value) and learn.opt is None and learn.path == tmp_path
    assert all(map(torch.equal, before, learn.model.state_dict().values()))

@pytest.mark.parametrize('name', [*bad_files,'missing'])
def test_the_checkpoint_before_a_bad_one_is_resumed(name, tmp_path, interrupted, whole):
    shutil.copytree(interrupted, tmp_path/'models')
    newest = checkpoint_paths(tmp_path/'models'/'run')[0]
    if name == 'missing':
        newest.unlink()
        again = train(new_learner(tmp_path), resume=True)
    else:
        bad_files[name](newest)
        with pytest.warns(UserWarning, match='Resuming from the one before it, run.prev.ckpt'):
            again = train(new_learner(tmp_path), resume=True)
    assert_same_run(again, whole)

class Rows:
    "A table, of which an item is a row"
    def __init__(self, word): self.df = pd.DataFrame(dict(a=[f'{word} {i}' for i in range(64)], y=range(64)))
    def __len__(self): return 64
    def __getitem__(self, i): return self.df.iloc[i]

def numbers(rows):
    "A batch of rows, as tensors"
    return torch.tensor([[float(len(r.a))]*6 for r in rows]),torch.tensor([r.y%3 for r in rows])

def test_items_of_any_kind_tell_data_sets_apart(tmp_path):
    "Rows of tables are told by what they hold, not by where they lie in memory"
    def rows(word):
        learn = new_learner(tmp_path)
        learn.dls = DataLoaders(*(TorchDL(Rows(word), 16, collate_fn=numbers) for _ in range(2)))
        return learn
    train(rows('text'))
    train(rows('text'), resume=True)
    refused(rows('word'), 'the training contents differ')

class Validates(Callback):
    """A callback may look at the whole model within a fit. fastai then starts `lr`, `epoch` and the recorder
    again"""
    order = 60
    def __init__(self, event, look): self.event,self.look,self.told = event,look,[]
    def after_train(self): self.look_at('after_train')
    def after_epoch(self): self.look_at('after_epoch')
    def look_at(self, event):
        if event != self.event or self.learn.lock.locked(): return
        self.told.append(self.look(self.learn))

looks = dict(validate = lambda learn: float(learn.validate(0)[0]),
             get_preds = lambda learn: learn.get_preds()[0].sum().item())

@pytest.mark.parametrize('event', ['after_train','after_epoch'])
@pytest.mark.parametrize('look', looks.values(), ids=looks)
def test_a_callback_that_validates_does_not_confuse_a_run(event, look, tmp_path):
    kw = dict(n_cycle=3, cycle_len=1, on_diverge='raise', cycle_save_name='c')
    def make(name, *cbs): return new_learner(tmp_path/name, [Validates(event, look), MixUp(), *cbs])
    whole = train(make('whole'), **kw)
    cut(make('cut', CrashAt('before_step', how=nth(15, interrupt))), **kw)
    again = train(make('cut'), resume=True, **kw)
    assert_same_run(again, whole)
    assert again.validates.told == whole.validates.told and len(whole.validates.told) == 3
    for name in 'whole','cut':
        saved = sorted(o.name for o in (tmp_path/name/'models').glob('c_*'))
        assert saved == [f'c_cyc_{i}.pth' for i in range(3)]

class Held:
    "A data set in memory"
    def __init__(self, inputs): self.x,self.names,self.seen = inputs,[f'{i}' for i in range(len(inputs))],0
    def __len__(self): return 64
    def __getitem__(self, i): return self.x[i],i%3

def test_the_contents_of_the_data_stay_out(tmp_path):
    inputs = torch.randn(4096,6)
    for ds in Held(inputs),torch.utils.data.TensorDataset(inputs, torch.arange(4096)%3):
        learn = new_learner(tmp_path)
        learn.dls = DataLoaders(*(TorchDL(ds, 1024, shuffle=True) for _ in range(2)))
        train(learn, checkpoint=type(ds).__name__)
        assert (tmp_path/f'models/{type(ds).__name__}.ckpt').stat().st_size < inputs.nbytes

@pytest.mark.parametrize('batch', [3,7,13])
def test_a_lengthened_run_resumes_in_its_attempt(batch, tmp_path, capsys):
    "Two attempts diverge; cut in the first, the second or the third"
    kw = dict(cycle_len=1, on_diverge='lengthen', every_iter=1)
    explode = Explode(fewer_than=3)
    full = train(new_learner(tmp_path, explode), checkpoint='full', **kw)
    assert len(full.recorder.values) == 3
    cut(new_learner(tmp_path, [explode, CrashAt('after_batch', how=nth(batch, interrupt))]), **kw)
    again = new_learner(tmp_path, explode)
    with torch.no_grad():
        for p in again.model.parameters(): p.add_(1.)  # the beginning is in the file
    set_seed(9)
    capsys.readouterr()
    assert_same_run(train(again, resume=True, **kw), full)
    lines = [o[:25] for o in capsys.readouterr().out.splitlines()]
    attempts = [f'Diverged with cycle_len={n}' for n in (1,2)]
    assert lines == ['Resuming from epoch 0, st', *attempts[batch//5:]]
    refused(new_learner(tmp_path, explode), r'lengthen: .* in the checkpoint, none in this run', cycle_len=1)

class Grows(Callback):
    def before_epoch(self):
        if self.epoch == 1 and len(self.model) == 4: self.model.insert(3, nn.Dropout(0.5))

class Turns(Callback):
    def before_epoch(self):
        if self.epoch == 1: self.learn.loss_func = LabelSmoothingCrossEntropyFlat()

def test_what_a_run_has_replaced_is_named(tmp_path):
    "A run that has grown another layer is refused where that layer is missing"
    with pytest.warns(UserWarning, match='The run has replaced modules, parameters or buffers since it'):
        cut(new_learner(tmp_path, [Grows(), CrashAt('before_step', 14)]))
    refused(new_learner(tmp_path), 'does not fit this run: it holds .* model.4.weight')
    with pytest.warns(UserWarning, match='The run has replaced the loss function since it began'):
        train(new_learner(tmp_path/'turns', Turns()))

# A checkpoint that does not fit
class Average(Callback):
    "The mean weight of each layer, in an object of the user's"
    def __init__(self, n): self.mean = nn.Linear(n, n)

def other_shape(path, again): return new_learner(path, cbs=[]), dict(keep=dict(mean=nn.Linear(2+again, 2)))

def other_loader(path, again):
    learn = new_learner(path)
    if again: learn.dls = DataLoaders(TorchDL(learn.dls.train.dataset, 16, shuffle=True), learn.dls.valid)
    return learn, {}

@pytest.mark.parametrize('make', [other_shape, other_loader])
def test_a_checkpoint_that_does_not_fit_changes_nothing(make, tmp_path):
    learn,kwargs = make(tmp_path, False)
    learn.add_cb(CrashAt('after_batch', 8))
    cut(learn, **kwargs)
    learn,kwargs = make(tmp_path, True)
    logger = CSVLogger(fname='history.csv')
    (tmp_path/'history.csv').write_text('epoch,train_loss\n0,1\n1,2\n')
    learn.add_cb(logger)
    before,random_state = weights(learn),torch.get_rng_state()
    refused(learn, 'run.ckpt|shuffle', **kwargs)
    assert weights(learn) == before and learn.opt is None and torch.equal(torch.get_rng_state(), random_state)
    assert '1,2' in (tmp_path/'history.csv').read_text()

def test_what_only_the_loaders_tell_is_compared(tmp_path):
    def make(shuffle=True, valid=True):
        learn = new_learner(tmp_path)
        loaders = [DataLoader(learn.dls.train.dataset, 16, shuffle=shuffle), learn.dls.valid]
        learn.dls = DataLoaders(*loaders[:1+valid])
        return learn
    train(make())
    refused(make(shuffle=False), 'training shuffle: True in the checkpoint, False in this run')
    refused(make(valid=False), 'validation kind: list in the checkpoint, none in this run')

def test_another_dtype_of_the_weights_is_refused(tmp_path):
    train(new_learner(tmp_path))
    learn = new_learner(tmp_path)
    learn.model.double()
    refused(learn, 'parameters and buffers: .*0.weight .* float32 in the checkpoint, .* float64 in this run')

def test_numbers_that_differ_late_are_shown_with_all_digits(tmp_path):
    train(new_learner(tmp_path), lrs=0.1)
    refused(new_learner(tmp_path), 'lrs: 0.1000.* in the checkpoint, 0.1000.*1 in this run', lrs=0.1+1e-9)

def test_two_runs_cannot_write_one_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr('fastai_clrbeta.checkpoint._patience', 0.1)
    class Second(Callback):
        "Start another run with the same checkpoint in the middle of this one"
        def after_epoch(self): refused(new_learner(tmp_path), "checkpoint='run': another process is training")
    train(new_learner(tmp_path, Second()))
    train(new_learner(tmp_path), resume=True)
    assert not (tmp_path/'models'/'run.ckpt.lock').exists()

def test_a_run_that_is_complete_prints_no_table(tmp_path, capsys):
    new_learner(tmp_path).fit_clr_beta(0.1, checkpoint='run')
    capsys.readouterr()
    learn = new_learner(tmp_path)
    learn.fit_clr_beta(0.1, checkpoint='run', resume=True)
    out = capsys.readouterr().out
    assert 'complete' in out and 'epoch' not in out.replace('checkpoint', '')
    assert len(learn.recorder.values) == 1

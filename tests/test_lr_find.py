"`lr_find_val`: what it measures, that it leaves no trace, and rough use of it"
import gc, pickle, random, signal, sys, weakref
from copy import deepcopy
import pytest
from fastai.text.all import *
from fastai_clrbeta.all import *
from fastai_clrbeta.peak import centred, find_peak
from fastai_clrbeta.results import combine_runs
import processes
from searches import *

# no trace

setups = dict(
    fastai     = dict(),
    torch      = dict(dls=torch_loaders),
    adam       = dict(opt_func=Adam),
    fastai_sgd = dict(opt_func=partial(SGD, mom=0.9)),
    torch_adam = dict(opt_func=partial(OptimWrapper, opt=torch.optim.Adam)),
    loss       = dict(loss_func=CountingLoss))

def make(setup):
    "A Learner of one of the `setups`, with a loss of its own"
    loss_func = setup.get('loss_func')
    return learner(**setup | dict(loss_func=loss_func and loss_func()))

@pytest.mark.parametrize('setup', setups.values(), ids=setups)
@pytest.mark.parametrize('trained', [False,True])
def test_no_trace(setup, trained, tmp_path):
    learn = make(setup)
    learn.path = tmp_path
    if trained: train(learn)
    before = state(learn)
    r = find(learn)
    assert len(r.df) == 12 and r.stopped == 'finished: 12 steps'
    assert not diff(before, state(learn))
    assert not list(tmp_path.iterdir())
    with learn.no_trace(): pickle.dumps(learn.lr_find_result)

@pytest.mark.parametrize('setup', setups.values(), ids=setups)
def test_what_follows_is_the_same(setup):
    states = []
    for n_searches in 0,1,2:
        learn = make(setup)
        if n_searches: find(learn)
        train(learn)
        if n_searches > 1:
            find(learn)
            find(learn, num_it=20, stop_div=True, end_lr=100.)
        train(learn)
        states.append(state(learn))
    for k in 'weights buffers hidden calls loss opt hypers rng recorder smooth counters'.split():
        assert repr(states[0][k]) == repr(states[1][k]) == repr(states[2][k]), k

class OwnLoader:
    "A loader written by hand, with random numbers of its own"
    def __init__(self): self.batches,self.rng = list(torch_loaders().train),random.Random(3)
    def __len__(self): return len(self.batches)
    def __iter__(self): return iter(self.rng.sample(self.batches, len(self.batches)))

class Noisy(torch.utils.data.Dataset):
    "Items with random noise"
    def __init__(self): self.x,self.y = torch_loaders().train.dataset.tensors
    def __len__(self): return 128
    def __getitem__(self, i): return self.x[i]+0.1*torch.randn(3,8,8), self.y[i]

def sampler_loader(): return TorchDL(torch_loaders().train.dataset, 32, sampler=Shuffler(256))
def worker_loader(): return TorchDL(Noisy(), 32, shuffle=True, num_workers=1, persistent_workers=True)

@pytest.mark.parametrize('make_loader', [sampler_loader, OwnLoader, worker_loader], ids=lambda o: o.__name__)
def test_loaders_with_a_state_of_their_own(make_loader):
    weights = []
    for search in False,True:
        set_seed(1)
        learn = learner(lambda: DataLoaders(make_loader(), torch_loaders().valid))
        train(learn)
        if search: find(learn)
        train(learn)
        weights.append(state(learn)['weights'])
    assert weights[0] == weights[1]

class Odd(Dropped):
    "A model with other containers that a forward pass changes"
    def __init__(self):
        super().__init__()
        self.last,self.ids = collections.deque([0], maxlen=3),{0}
        self.arr,self.gen = np.zeros(2),np.random.default_rng(0)

    def forward(self, x):
        self.last.append(self.calls)
        self.ids.add(self.calls)
        self.arr += 1
        return super().forward(x)*(1+0.1*self.gen.random())

def test_other_containers_in_the_model():
    values = lambda m: repr((m.last, m.ids, m.arr, m.gen.bit_generator.state))
    learn = learner()
    learn.model = Odd()
    before = values(learn.model)
    find(learn)
    assert values(learn.model) == before

def test_learner_pickles_after_it():
    learn = learner()
    find(learn)
    pickle.dumps(learn)
    learn.add_cb(Stop('before_batch', RuntimeError))
    with pytest.raises(RuntimeError): find(learn)
    learn.remove_cb(Stop)
    loaded = pickle.loads(pickle.dumps(learn))
    assert 'RuntimeError' in learn.lr_find_result.stopped and loaded.lr_find_result is None

def test_results_go_with_their_learner():
    "They are beside it: not in its attributes, which an export would write, and not for longer than it lives"
    learn = learner()
    assert learn.lr_find_result is None and learn.lr_find_sweep_result is None
    with learn.no_trace():
        last_sweep = sweep(learn, wd=[0,1e-2])
    assert learn.lr_find_sweep_result is last_sweep
    assert learn.lr_find_result is last(last_sweep.runs.values())
    assert not {'lr_find_result','lr_find_sweep_result'} & vars(learn).keys()
    for o in 'lr_find_result','lr_find_sweep_result':
        with pytest.raises(AttributeError): setattr(learn, o, None)
    refs = [weakref.ref(o) for o in (learn, last_sweep, learn.lr_find_result)]
    del learn,last_sweep
    gc.collect()
    assert [o() for o in refs] == [None]*3

def test_read_only_path(tmp_path):
    (tmp_path/'file').write_text('', encoding='utf-8')
    learn = learner(path=tmp_path/'file')  # no folder can be made here
    assert len(find(learn).df) == 12

# interrupted

class BoomLoss(CountingLoss):
    def forward(self, p, y):
        boom(RuntimeError, self)
        return super().forward(p, y)

class BoomMetric(Metric):
    name,count = 'boom',0
    def reset(self): pass
    def accumulate(self, learn): boom(RuntimeError, self)
    @property
    def value(self): return 1.

class BoomDL(TfmdDL):
    count = 0
    def create_item(self, i):
        boom(RuntimeError, self)
        return super().create_item(i)

def boom_loader(): return BoomDL([(torch.rand(3,8,8), i%10) for i in range(64)], bs=4, num_workers=0)

events = 'before_batch after_pred after_loss before_backward before_step after_step after_batch'.split()

@pytest.mark.parametrize('event', events)
@pytest.mark.parametrize('exc', [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize('trained', [False,True])
def test_killed_in_a_callback(event, exc, trained):
    learn = learner()
    if trained: train(learn)
    learn.add_cb(Stop(event, exc))
    before = state(learn)
    with pytest.raises(exc): find(learn)
    assert not diff(before, state(learn))
    assert len(learn.lr_find_result.df) in (3,4,5) and exc.__name__ in learn.lr_find_result.stopped
    pickle.dumps(learn.lr_find_result)

@pytest.mark.parametrize('where', ['model','loss','metric','train data','valid data','train metric'])
def test_killed_elsewhere(where):
    learn = learner(loss_func=BoomLoss() if where == 'loss' else None)
    if where == 'model': boom_model(learn, RuntimeError)
    if where == 'train data': learn.dls.loaders[0] = boom_loader()
    if where == 'valid data': learn.dls.loaders[1] = boom_loader()
    if 'metric' in where: learn.metrics = [BoomMetric()]
    if where == 'train metric': learn.recorder.train_metrics = True
    for o in learn.loss_func, learn.model.head, *learn.metrics, *learn.dls.loaders: o.count = 0
    before = state(learn)
    with pytest.raises(RuntimeError, match='stop'): find(learn, num_it=30)
    assert not diff(before, state(learn))
    assert 'RuntimeError' in learn.lr_find_result.stopped

@pytest.mark.skipif(not hasattr(signal, 'setitimer'), reason='Windows has no such signals')
def test_real_ctrl_c(record_property):
    "A signal at many moments of a search"
    learn = learner()
    train(learn)
    before,n_stopped = state(learn),0
    def handler(*args): raise KeyboardInterrupt
    old = signal.signal(signal.SIGALRM, handler)
    try:
        for k in range(12):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.02+0.03*k)
                find(learn, num_it=60)
            except KeyboardInterrupt: n_stopped += 1
            finally: signal.setitimer(signal.ITIMER_REAL, 0)
            assert not diff(before, state(learn)), k
    finally: signal.signal(signal.SIGALRM, old)
    assert n_stopped > 5
    record_property('times', n_stopped)

class Interrupted(Callback):
    "Raise a `KeyboardInterrupt` the first time that it is restored."
    times = 0
    def state_dict(self): return {}
    def load_state_dict(self, state):
        Interrupted.times += 1
        if Interrupted.times == 1: raise KeyboardInterrupt

def test_an_interrupt_of_the_restoring_itself():
    "Ctrl-C while the Learner is being restored does not leave it half restored"
    learn = learner()
    learn.add_cb(Interrupted())
    train(learn)
    before = state(learn)
    with pytest.raises(KeyboardInterrupt), learn.no_trace(): train(learn)
    assert Interrupted.times == 2 and not diff(before, state(learn))

def test_memory_is_given_back():
    "Even while the exception that ended the search, and with it its frames, is still held"
    def held():
        gc.collect()
        return sum(o.numel() for o in gc.get_objects() if issubclass(type(o), Tensor))
    learn = learner()
    learn.model.big = nn.Parameter(torch.zeros(1_000_000))
    train(learn)
    boom_model(learn, RuntimeError)
    before = held()
    with pytest.raises(RuntimeError) as e: find(learn)
    assert e.value and held() < before + 500_000

def test_autocast_is_left():
    learn = learner()
    learn.to_fp16()
    boom_model(learn, RuntimeError)
    def nesting():
        n = torch.autocast_increment_nesting()
        torch.autocast_decrement_nesting()
        return n
    n = nesting()
    with pytest.raises(RuntimeError): find(learn)
    assert nesting() == n

def test_interrupted_in_the_third_run():
    steps = []
    class InThird(Callback):
        def before_step(self):
            steps.append(1)
            if len(steps) == 12*2+6: raise KeyboardInterrupt
    learn = learner(cbs=InThird())
    before = state(learn)
    with pytest.raises(KeyboardInterrupt): find(learn, n_runs=4)
    assert not diff(before, state(learn))
    r = learn.lr_find_result
    assert r.df.groupby('run').size().tolist() == [12,12,5]
    assert 'run 3: interrupted after 5 steps: KeyboardInterrupt' in r.stopped
    assert len(r.plot()) == 3 and repr(r)

def test_the_real_error_is_told(monkeypatch):
    def broken(*args, **kwargs): raise RuntimeError('while the result was made')
    monkeypatch.setattr('fastai_clrbeta.lr_find.combine_runs', broken)
    learn = learner(cbs=Stop('before_step', KeyboardInterrupt))
    before = state(learn)
    with pytest.raises(KeyboardInterrupt): find(learn)
    assert not diff(before, state(learn))

# other callbacks

fired = []  # not an attribute, which would be restored

class SavesEveryEpoch(Callback):
    def before_fit(self): fired.append('fit')
    def after_epoch(self): self.learn.save('x')
    def after_fit(self): fired.append('end')

class SavesInBatch(Callback):
    def after_batch(self): self.learn.save('y')

class ActsOnPrediction(Callback):
    def after_pred(self): fired.append('pred')

def test_callbacks_that_observe_keep_quiet(tmp_path):
    fired.clear()
    cbs = [SaveModelCallback(), SaveModelCallback(fname='b', every_epoch=True), ReduceLROnPlateau(),
           EarlyStoppingCallback(patience=1), CSVLogger(), ShowGraphCallback(), TerminateOnNaNCallback(),
           SavesEveryEpoch(), SavesInBatch(), ActsOnPrediction(), CLRBeta(10, 10),
           ParamScheduler({'lr':SchedLin(1,2)})]
    learn = learner(path=tmp_path, cbs=cbs)
    (tmp_path/'history.csv').write_text('keep', encoding='utf-8')
    before = state(learn)
    r = find(learn, bn='running')
    assert r.stopped == 'finished: 12 steps' and r.df.lr.is_monotonic_increasing
    assert not diff(before, state(learn))
    assert [o.name for o in tmp_path.iterdir()] == ['history.csv']
    assert (tmp_path/'history.csv').read_text(encoding='utf-8') == 'keep'
    assert fired == ['pred']*24

changes = dict(
    nothing      = noop,
    fp16         = lambda o: o.to_fp16(),
    bf16         = lambda o: o.to_bf16(),
    clip         = lambda o: o.add_cb(GradientClip(0.1)),
    mixup        = lambda o: o.add_cb(MixUp()),
    channelslast = lambda o: o.to_channelslast(use_amp=False))

@pytest.mark.parametrize('change', changes.values(), ids=changes)
@pytest.mark.filterwarnings('ignore:.*CUDA is not available:UserWarning')
def test_training_losses_are_those_of_stock_lr_find(change, tmp_path):
    "Bit for bit, with dropout, BatchNorm, shuffling, several epochs, and callbacks that change training"
    for kw in dict(start_lr=1e-3, end_lr=1, num_it=12), dict(start_lr=1e-5, end_lr=10, num_it=24):
        stock,ours = learner(path=tmp_path),learner()
        for o in stock,ours: change(o)
        before = state(ours)
        set_seed(0)
        with stock.no_bar(): stock.lr_find(**kw, stop_div=False, show_plot=False, suggest_funcs=None)
        set_seed(0)
        r = find(ours, **kw)
        assert r.df.train_loss_smooth.tolist() == [o.item() for o in stock.recorder.losses]
        assert r.df.lr.tolist() == stock.recorder.lrs
        assert [k for k in diff(before, state(ours)) if k != 'rng'] == []
        assert isinstance(ours.loss_func, CrossEntropyLossFlat)

def test_a_step_is_an_optimiser_step():
    steps,raw = [],[]
    class Watch(Callback):
        def after_step(self): steps.append(self.opt.hypers[-1]['lr'])
        def after_loss(self):
            if self.training: raw.append(self.loss.item())
    r = find(learner(cbs=[GradientAccumulation(64), Watch()]))
    assert len(r.df) == 12 and len(raw) == 24 and steps == r.df.lr.tolist()
    np.testing.assert_allclose(r.df.train_loss, np.array(raw).reshape(12,2).mean(1), rtol=1e-6)

def test_a_step_may_take_several_epochs():
    "An epoch of one batch, of which two make a step"
    learn = learner(lambda: DataLoaders(Loader().batches[:1], Loader().batches), cbs=GradientAccumulation(64))
    assert find(learn).stopped == 'finished: 12 steps'

def test_short_epochs():
    "`ShortEpochCallback` ends an epoch after a step, and validation after a mini-batch"
    r = find(learner(cbs=ShortEpochCallback(0.5)))
    assert r.stopped == 'finished: 12 steps' and len(r.df) == 12 and r.df.valid_loss.notna().all()
    np.testing.assert_array_equal(r.df.lr, find(learner()).df.lr)
    used = []
    class Watch(Callback):
        def before_step(self): used.append(self.opt.hypers[-1]['lr'])
    learn = learner(cbs=[ShortEpochCallback(0.5), Watch()])
    assert find(learn).df.lr.tolist() == used  # no step that isn't in the table

@pytest.mark.parametrize('exc', [CancelBatchException, CancelValidException])
def test_a_validation_batch_that_is_left_out(exc):
    class Skip(Callback):
        def before_batch(self):
            if not self.training: raise exc()
    with pytest.warns(UserWarning, match='leaves out validation mini-batches'): r = find(learner(cbs=Skip()))
    assert len(r.df) == 12 and r.df.valid_loss.isna().all() and r.df.accuracy.isna().all()
    assert len(r.plot()) == 3

def test_the_learning_rate_that_was_used():
    class Half(Callback):
        order = 70
        def before_step(self): self.opt.set_hyper('lr', self.opt.hypers[-1]['lr']/2)
    for opt_func in sgd,Adam:
        learn = learner(cbs=Half(), opt_func=opt_func)
        with pytest.warns(UserWarning, match='a callback replaces the learning rates'): r = find(learn)
        np.testing.assert_allclose(r.df.lr, np.geomspace(1e-3, 1, 13)[:-1]/2)
    learn = learner(cbs=Half())
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='a callback replaces')
        learn.remove_cb(Half)
        find(learn)

def test_stopped_by_a_callback():
    class Enough(Callback):
        def after_batch(self):
            if self.training and self.train_iter == 4: raise CancelFitException
    learn = learner(cbs=Enough())
    assert 'stopped by a callback after' in find(learn).stopped
    assert len(sweep(learn, wd=[0,1e-2], num_it=100).table) == 2

# what is measured

def by_hand(learn, lrs):
    "The search written out: train on the next batch, evaluate the next validation batch"
    model,opt = learn.model,torch.optim.SGD(learn.model.parameters(), 0.1, 0.9)
    train,valid = itertools.cycle(list(learn.dls.train)),itertools.cycle(list(learn.dls.valid))
    rows = []
    for lr in lrs:
        x,y = (o.as_subclass(Tensor) for o in next(train))
        opt.param_groups[0]['lr'] = lr
        model.train()
        loss = F.cross_entropy(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        x,y = (o.as_subclass(Tensor) for o in next(valid))
        model.eval()
        with torch.no_grad(): pred = model(x)
        rows.append(dict(train_loss=loss.item(), valid_loss=F.cross_entropy(pred, y).item(),
                         accuracy=(pred.argmax(1)==y).float().mean().item()))
    return pd.DataFrame(rows)

def debiased(xs, beta=0.98):
    res,avg = [],0.
    for i,x in enumerate(xs, 1):
        avg = beta*avg + (1-beta)*x
        res.append(avg/(1-beta**i))
    return res

def test_against_a_loop():
    a,b = learner(loaders_in_order),learner(loaders_in_order)
    a.model.drop.p = b.model.drop.p = 0.
    r = find(a, 1e-4, 1., num_it=40, valid_order='loader')
    lrs = [1e-4*(1/1e-4)**(i/40) for i in range(40)]
    want = by_hand(b, lrs)
    assert r.df.lr.tolist() == lrs
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    for k in want:
        close(r.df[k], want[k], err_msg=k)
        close(r.df[f'{k}_smooth'], debiased(want[k]), err_msg=k)

def test_a_linear_test():
    r = find(learner(), 0, 3, 30, linear=True)
    assert r.df.lr.tolist() == pytest.approx([3*i/30 for i in range(30)]) and r.linear

def test_the_columns():
    r = find(learner(), 1e-4, 1e4, 100, bn='both')  # far into the explosion
    names = ['train_loss','valid_loss','accuracy','valid_loss_batch','accuracy_batch']
    assert r.names == names
    measured = [o+x for o in names for x in ('','_smooth')]
    assert list(r.df.columns) == ['lr', *measured, *[f'{o}_centred' for o in names]]
    for k in names: np.testing.assert_array_equal(r.df[f'{k}_centred'], centred(r.df[k], 100, 'loss' in k))
    low = r.df.train_loss_centred.idxmin()
    assert r.df.train_loss_centred[low] < 1.2*r.df.train_loss[max(0,low-3):low+4].max()
    assert low < r.df.train_loss_smooth.idxmin()

def test_metrics():
    auc = RocAuc()
    learn = learner(metrics=[accuracy, error_rate, F1Score(average='macro'), Perplexity(), auc])
    with pytest.warns(UserWarning, match='roc_auc'):  # 32 images do not hold every digit
        r = find(learn, 1e-4, 1e-3)
    for k in 'accuracy error_rate f1_score perplexity'.split():
        assert np.isfinite(r.df[k]).all() and np.isfinite(r.df[f'{k}_smooth']).all()
    np.testing.assert_allclose(r.df.accuracy, 1-r.df.error_rate, rtol=1e-5)
    np.testing.assert_allclose(r.df.perplexity, np.exp(r.df.valid_loss), rtol=1e-5)
    assert r.df.roc_auc_score.isna().any()
    assert find(learn, metrics=[error_rate], bn='running').names == ['train_loss','valid_loss','error_rate']
    assert learn.metrics[4] is auc

def test_metrics_with_the_same_name():
    metrics = [F1Score(average='macro'), F1Score(average='micro'), accuracy]
    r = find(learner(metrics=metrics), bn='running')
    assert r.names == ['train_loss','valid_loss','f1_score','f1_score_2','accuracy']
    np.testing.assert_allclose(r.df.f1_score_2, r.df.accuracy, rtol=1e-5)  # micro F1 is accuracy

names_of_metrics = [['lr','run'], ['train_loss','valid_loss'], ['dice','dice_smooth'], ['dice_smooth','dice'],
                    ['a','a','a_2'], ['a','a_batch'], ['a_batch'], ['a_centred','a']]

@pytest.mark.parametrize('names', names_of_metrics)
def test_metrics_of_any_name(names):
    metrics = [AvgMetric(lambda p,y,i=i: tensor(float(i))) for i in range(len(names))]
    for metric,name in zip(metrics, names): metric.func.__name__ = name
    r = find(learner(metrics=metrics), n_runs=2, bn='both')
    assert r.df.columns.is_unique and r.df.lr.iloc[0] == 1e-3 and r.df.train_loss[0] > 1
    both_losses = r.names[:2] + [f'{r.names[1]}_batch']
    assert both_losses == ['train_loss','valid_loss','valid_loss_batch']
    columns = r.names[2:2+len(names)]
    assert [r.df[o].iloc[0] for o in columns] == list(range(len(names)))
    assert len(r.plot()) == 2+len(names)

def test_a_validation_set_of_one_class_is_told():
    learn = learner()
    mixed = learn.dls.valid
    by_class = mixed.new(sorted(mixed.dataset, key=lambda o: int(o[1])))
    learn.dls.loaders[1] = by_class
    with pytest.warns(UserWarning, match='one class') as told: find(learn, valid_order='loader')
    assert sum('one class' in str(o.message) for o in told) == 1
    learn.dls.loaders[1] = mixed
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='.*one class')
        find(learn, valid_order='loader')

# when it ends

def test_nan_stops_it():
    class Poison(Callback):
        def after_loss(self):
            if self.training and self.train_iter == 6:
                self.learn.loss = self.learn.loss*nan
                self.learn.loss_grad = self.learn.loss_grad*nan
    for stop_div in True,False:
        learn = learner(cbs=Poison())
        before = state(learn)
        r = find(learn, stop_div=stop_div)
        assert len(r.df) == 7 and 'nan at step 7' in r.stopped and not diff(before, state(learn))
        assert r.peak == pytest.approx(r.df.lr[6]/4) and 'slide' in r.reasons
        assert len(r.plot()) == 3

def test_divergence_stops_it():
    r = find(learner(), 1e-2, 1e3, num_it=50, stop_div=True)
    assert len(r.df) < 50 and 'diverged' in r.stopped
    loss,smooth = r.df.train_loss,r.df.train_loss_smooth
    is_above = (smooth > 4*smooth.cummin()) & (loss > 4*smooth.cummin())
    assert is_above[-5:].all() and not is_above[-6:-5].any()

@pytest.mark.parametrize('shift', [-3, -1])
def test_negative_losses(shift):
    learn = learner(loss_func=lambda p,y: F.cross_entropy(p, y)+shift)
    assert find(learn, 1e-4, 1e-1, 30, stop_div=True).stopped == 'finished: 30 steps'
    r = find(learn, 1e-2, 1e4, 60, stop_div=True)
    assert 'diverged' in r.stopped and len(r.df) > 10
    # no worse than losses that are not shifted
    assert len(r.df) <= len(find(learner(), 1e-2, 1e4, 60, stop_div=True).df)+5

# several runs

def any_order_loaders():
    "Loaders of torch whose sampler draws the order"
    return DataLoaders(sampler_loader(), torch_loaders().valid)

@pytest.mark.parametrize('dls', [fastai_loaders, torch_loaders, any_order_loaders], ids=lambda o: o.__name__)
def test_several_runs(dls):
    learn = learner(dls)
    learn.model.drop.p = 0.  # the order of batches is all that differs
    train(learn)
    before = state(learn)
    one,several,again = find(learn),find(learn, n_runs=3),find(learn, n_runs=3)
    assert not diff(before, state(learn))
    assert several.df.run.tolist() == [1]*12+[2]*12+[3]*12 and 'run' not in one.df
    assert repr(several.runs[0][one.df.columns].to_dict()) == repr(one.df.to_dict())
    assert repr(several.df.to_dict()) == repr(again.df.to_dict())
    assert len({o.train_loss.iloc[0] for o in several.runs}) == 3  # other batches
    assert several.stopped == 'finished: 12 steps, in each of 3 runs'

def test_several_runs_have_other_random_numbers():
    "If there is but one order of batches, dropout differs"
    learn = learner(lambda: DataLoaders(Loader().batches, Loader().batches))
    assert len({o.train_loss.iloc[0] for o in find(learn, n_runs=3).runs}) == 3

def test_suggestions_of_several_runs_are_medians():
    r = find(learner(), 1e-4, 10, 60, n_runs=3, stop_div=True)
    single = [combine_runs([o], [''], (valley,minimum), 60) for o in r.runs]
    for k in 'valley','minimum':
        lrs = sorted(getattr(o, k) for o in single)
        assert getattr(r, k) == pytest.approx(lrs[1]) and r.spread[k] == pytest.approx((lrs[0],lrs[-1]))
    assert r.spread['peak'][0] <= r.peak <= r.spread['peak'][1]

def test_one_bar_over_all_runs(monkeypatch):
    seen = []
    class Bar:
        def __init__(self, gen, **kwargs): seen.append(len(gen))
        def update(self, n): seen.append(n)
        def on_iter_end(self): seen.append('end')
    monkeypatch.setattr('fastai_clrbeta.lr_find.progress_bar', Bar)
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: True)
    find(learner(), n_runs=3)
    assert seen == [36, *range(37), 'end']
    seen.clear()
    learn = learner()
    with learn.no_mbar(): find(learn)
    assert not seen
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: False)
    find(learn)
    assert not seen

def test_a_pipe_gets_no_bar(capsys):
    learn = learner()
    find(learn)
    sweep(learn, wd=[0,1e-2])
    assert '\r' not in capsys.readouterr().out

# both kinds of BatchNorm statistics

class Norms(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.conv,self.norm = nn.Conv2d(3,8,3,2,1),norm
        self.drop,self.head = nn.Dropout(0.5),nn.Linear(8*16,10)
    def forward(self, x): return self.head(self.drop(self.norm(self.conv(x)).relu().flatten(1)))

class Flat(nn.Module):
    "A norm for `n` dimensions, in a network of images"
    def __init__(self, norm, n):
        super().__init__()
        self.norm,self.n = norm,n
    def forward(self, x): return self.norm(x.flatten(2) if self.n==1 else x[:,:,None]).view_as(x)

class OwnNorm(nn.BatchNorm2d):
    "A user's own class, which needs its running averages"
    def forward(self, x):
        dims,shape = (0,2,3),(1,-1,1,1)
        mean,var = self.running_mean,self.running_var
        if self.training:
            mean.lerp_(x.detach().mean(dims), 0.1)
            var.lerp_(x.detach().var(dims), 0.1)
            mean,var = x.mean(dims),x.var(dims, unbiased=False)
        return (x-mean.view(shape))/(var.view(shape)+1e-5).sqrt()

class OnCPU(nn.SyncBatchNorm):
    "Trains on a CPU, as torch's doesn't"
    def forward(self, x):
        if not self.training: return super().forward(x)
        assert torch.is_grad_enabled()  # while measuring, it would wait for other processes
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, True, 0.1)
OnCPU.__module__ = 'torch.nn'  # it's to be taken for torch's own

norms = dict(
    bn1d   = lambda: Flat(nn.BatchNorm1d(8), 1),
    bn2d   = lambda: nn.BatchNorm2d(8),
    bn3d   = lambda: Flat(nn.BatchNorm3d(8), 3),
    fastai = lambda: BatchNorm(8),
    zero   = lambda: BatchNorm(8, norm_type=NormType.BatchZero),
    own    = lambda: OwnNorm(8),
    sync   = lambda: OnCPU(8),
    inst   = lambda: nn.InstanceNorm2d(8, track_running_stats=True),
    inst1d = lambda: Flat(nn.InstanceNorm1d(8, affine=True, track_running_stats=True), 1),
    lazy   = lambda: nn.LazyBatchNorm2d())

models = []
class KeepModel(Callback):
    "Copies of the model after each step, with the averages that it has then"
    run_valid = False
    def after_step(self): models.append(deepcopy(self.model))

@pytest.mark.parametrize('norm', norms.values(), ids=norms)
def test_both_kinds_of_statistics(norm):
    learn = learner(torch_loaders, cbs=KeepModel())
    learn.model = model = Norms(norm())
    model(torch.randn(2,3,8,8))
    models.clear()
    before = [o.clone() for o in model.state_dict().values()]
    df = find(learn, 1e-3, 1, bn='both', valid_order='loader').df
    assert all(torch.equal(a, b) for a,b in zip(before, model.state_dict().values()))
    check_by_hand(models, itertools.cycle(list(learn.dls.valid)), df)
    assert not np.allclose(df.valid_loss, df.valid_loss_batch)

def test_each_kind_is_measured_as_if_there_were_no_other():
    learn = learner(torch_loaders)
    kinds = 'both','running','batch'
    both,running,batch = [find(learn, 1e-3, 1, bn=o, valid_order='loader') for o in kinds]
    assert list(batch.df.columns) == list(running.df.columns)
    for k in running.df: assert both.df[k].equals(running.df[k]), k
    for k in 'valid_loss','accuracy':
        for o in '','_smooth','_centred': assert both.df[f'{k}_batch{o}'].equals(batch.df[f'{k}{o}'])
    assert (both.bn, len(both.plot())) == ('both', 3)

def check_by_hand(models, valid, df):
    "Compare what was measured with what the `models` give."
    assert len(models) == len(df)
    for i,model in enumerate(models):
        x,y = next(valid)
        model.eval()
        with torch.no_grad(): loss = F.cross_entropy(model(x), y)
        assert df.valid_loss[i] == pytest.approx(loss.item(), rel=1e-5)
        for o in model.modules():
            if isinstance(o, nn.modules.batchnorm._NormBase): o.train()
        pred = model(x)
        assert df.valid_loss_batch[i] == pytest.approx(F.cross_entropy(pred, y).item(), rel=1e-4)
        assert df.accuracy_batch[i] == pytest.approx((pred.argmax(1)==y).float().mean().item())

def test_without_batchnorm_both_are_the_same():
    learn = learner()
    learn.model.body[1] = nn.GroupNorm(2,8)
    running,batch,both = [find(learn, bn=o).df for o in ('running','batch','both')]
    assert running.equals(batch) and running.equals(both)

def test_frozen_batchnorm_keeps_its_averages():
    learn = learner(cbs=BnFreeze())
    learn.model.body[1].requires_grad_(False)
    both = find(learn, bn='both').df
    assert both.valid_loss.equals(both.valid_loss_batch)

@pytest.mark.filterwarnings('ignore')
def test_scripted_batchnorm_is_measured_with_its_averages():
    learn = learner()
    learn.model.body[1] = torch.jit.script(nn.BatchNorm2d(8))
    with pytest.raises(ValueError, match="body.1 is scripted .* bn='running'"): find(learn, bn='batch')
    assert find(learn).names == ['train_loss','valid_loss','accuracy']

def small_learner(bs, valid_bs, n=9, same=False, **kwargs):
    "A Learner of `n` items, with BatchNorm"
    items = [(torch.randn(4), torch.tensor(0 if same else i%3)) for i in range(n)]
    dls = DataLoaders(DataLoader(items, bs=bs), DataLoader(items, bs=valid_bs), device='cpu')
    model = nn.Sequential(nn.Linear(4,3), nn.BatchNorm1d(3))
    return Learner(dls, model, loss_func=F.cross_entropy, opt_func=sgd, **kwargs)

def test_a_validation_batch_of_one_has_no_statistics():
    learn = small_learner(3, 4, metrics=accuracy)
    with pytest.warns(UserWarning, match='a validation mini-batch has only one item'):
        df = find(learn, bn='both').df
    is_single = [i%3 == 2 for i in range(12)]
    assert df.valid_loss.notna().all()
    for k in 'valid_loss_batch','accuracy_batch','valid_loss_batch_smooth','valid_loss_batch_centred':
        assert df[k].isna().tolist() == is_single

def test_each_kind_costs_one_forward_pass():
    for bn,n in ('running',1),('batch',1),('both',2):
        learn = learner()
        calls = []
        learn.model.register_forward_hook(lambda m,*args: calls.append(m.training))
        find(learn, bn=bn)
        assert (sum(calls), len(calls)) == (12, 12*(1+n))

def test_a_model_that_writes_into_its_input():
    class Writes(Dropped):
        def forward(self, x): return super().forward(x.mul_(2))
    learn = learner(torch_loaders)
    learn.model = Writes()
    def first_row(bn):
        learn.dls.loaders[1] = [(torch.ones(32,3,8,8), torch.arange(32)%10)]
        return find(learn, bn=bn).df.iloc[0]
    both = first_row('both')
    assert both.valid_loss == first_row('running').valid_loss
    assert both.valid_loss_batch == first_row('batch').valid_loss

# Learners and data that need care

def test_no_validation_set():
    learn = learner(lambda: DataLoaders(fastai_loaders().train))
    before = state(learn)
    with pytest.warns(UserWarning, match='no validation set'): r = find(learn)
    assert [*r.df] == ['lr','train_loss','train_loss_smooth','train_loss_centred']
    assert not diff(before, state(learn)) and len(r.plot()) == 1

def test_groups_keep_their_ratios():
    lrs = []
    class Watch(Callback):
        def before_step(self): lrs.append([h['lr'] for h in self.opt.hypers])
    cases = [(dict(), dict(), 1),
             (dict(lr=slice(1e-4,1e-2)), dict(), 1e-2),
             (dict(opt_func=partial(Adam, lr=slice(1e-4,1e-2))), dict(), 1e-2),
             (dict(), dict(start_lr=slice(1e-5,1e-3)), 1e-2),
             (dict(), dict(start_lr=[1e-4,1e-3]), 0.1),
             (dict(lr=slice(1e-4,1e-2)), dict(start_lr=[1e-4,1e-3], end_lr=[0.1,1.]), 0.1),
             (dict(), dict(end_lr=slice(1.)), 0.1)]
    for of_learner,of_test,ratio in cases:
        lrs.clear()
        r = find(groups_learner(cbs=Watch(), **of_learner), **of_test)
        np.testing.assert_allclose(lrs, [[ratio*o, o] for o in r.df.lr], rtol=1e-9)
        assert r.df.lr[0] == 1e-3

def test_frozen():
    learn = groups_learner()
    learn.freeze()
    before = state(learn)
    find(learn)
    assert not diff(before, state(learn))

class Liar(Loader):
    "Fewer batches than it says"
    def __len__(self): return 10

class Stream(torch.utils.data.IterableDataset):
    def __iter__(self): return itertools.cycle(zip(*torch_loaders().train.dataset.tensors))

odd_loaders = {'stream':TorchDL(Stream(), 16), 'infinite':Loader(), 'unsized':Loader(3), 'liar':Liar(3),
               'one batch':Loader().batches[:1]}

@pytest.mark.parametrize('loader', odd_loaders.values(), ids=odd_loaders)
def test_odd_loaders(loader):
    learn = learner(lambda: DataLoaders(loader, Loader().batches))
    assert len(find(learn, num_it=30).df) == 30
    assert learn.dls.train is loader

class Two(nn.Module):
    "A model of two inputs"
    def __init__(self):
        super().__init__()
        self.a,self.b = nn.Linear(4,3),nn.Linear(4,3)
    def forward(self, x, y): return self.a(x)+self.b(y)

def test_several_inputs():
    batches = [(torch.randn(8,4), torch.randn(8,4), torch.randint(3,(8,))) for _ in range(4)]
    dls = DataLoaders(batches, batches)
    dls.n_inp = 2
    r = find(Learner(dls, Two(), loss_func=F.cross_entropy, metrics=accuracy, opt_func=sgd))
    assert len(r.df) == 12 and r.df.accuracy.notna().all()

def test_language_model():
    df = pd.DataFrame(dict(text=['the film was good and long and good']*60))
    dls = TextDataLoaders.from_df(df, text_col='text', is_lm=True, bs=4, seq_len=5, valid_pct=0.2)
    config = {**awd_lstm_lm_config, 'emb_sz':8, 'n_hid':8}
    weights = []
    for search in False,True:
        set_seed(3)
        dls.train.rng.seed(5)
        dls.train.items.idxs = L.range(len(dls.train.items.coll))
        learn = language_model_learner(dls, AWD_LSTM, pretrained=False, config=config, metrics=Perplexity())
        with learn.no_bar(), learn.no_logging():
            if search: assert find(learn, 1e-5, 10, 30, stop_div=True).df.perplexity.notna().all()
            learn.fit_clr_beta(0.01, cycle_len=2)
        weights.append(plain(list(learn.model.parameters())))
    assert weights[0] == weights[1]

def test_lazy_modules_are_refused():
    learn = learner()
    learn.model = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
    for f in find, partial(sweep, wd=[0,1e-2]):
        with pytest.raises(ValueError, match='1.weight has no shape yet.*one_batch'): f(learn)
    learn.model(learn.dls.one_batch()[0].cpu())
    assert len(find(learn).df) == 12

@pytest.mark.parametrize('bs,frozen,cbs,ok', [(8,False,None,False), (1,False,None,False), (3,False,None,True),
    (9,False,None,True), (1,True,BnFreeze,True), (1,True,None,False), (1,False,BnFreeze,False)])
def test_a_batch_of_one_and_batchnorm(bs, frozen, cbs, ok):
    learn = small_learner(bs, 3, cbs=cbs)
    if frozen: learn.model[1].requires_grad_(False)
    before = [o.clone() for o in learn.model.state_dict().values()]
    if ok: assert len(find(learn).df) == 12
    else:
        with pytest.raises(ValueError, match=f'one item .*batch size {bs}, 9 items'): find(learn)
    assert all(torch.equal(a, b) for a,b in zip(before, learn.model.state_dict().values()))

def test_a_batch_of_one_image():
    "BatchNorm has all pixels of one image to go by"
    learn = learner()
    learn.dls.train.bs = 1
    assert len(find(learn).df) == 12

# suggestions

def test_suggestions_look_at_the_training_loss():
    r = find(learner(), 1e-4, 10, num_it=100)
    lrs,losses = (torch.tensor(r.df[k].tolist())[10:-5] for k in ('lr','train_loss_smooth'))
    for f in valley,minimum,steep,slide:
        assert getattr(r, f.__name__) == pytest.approx(f(lrs, losses, 100)[0])
    assert r.suggestions._fields == ('peak','valley','minimum','steep','slide')

def test_suggestions_by_other_functions():
    class Mine:
        def __call__(self, lrs, losses, n): return 1.,(1.,2.)
    learn = learner()
    funcs = partial(slide, lr_diff=5), partial(slide, lr_diff=9), lambda *args: (2.,(2.,2.)), Mine()
    r = find(learn, num_it=40, suggest_funcs=funcs)
    assert list(r.found) == ['slide','slide_2','<lambda>','Mine'] and r.suggestions[2:] == (2.,1.)

def test_default_and_other_peaks():
    learn = learner()
    kw = dict(start_lr=1e-4, end_lr=10, num_it=40)
    default,none = find(learn, **kw),find(learn, **kw, suggest_funcs=None)
    own = find(learn, **kw, suggest_funcs=partial(peak, usual=1e-3))
    assert next(iter(default.found)) == 'peak' and default.peak > 0
    assert default.found['peak'] == default.peak == default.suggestions.peak
    assert (none.peak, none.found) == (default.peak, {})
    assert own.found == {'peak':own.peak} and own.peak == own.usual == 1e-3 and default.usual == 0.1

def test_peak_in_stock_lr_find(tmp_path):
    kw = dict(start_lr=1e-5, end_lr=10, num_it=100)
    a,b = learner(path=tmp_path),learner()
    set_seed(0)
    ours = b.lr_find_val(**kw, show_plot=False, trials=False)
    set_seed(0)
    stock = a.lr_find(**kw, suggest_funcs=(peak,valley))
    assert stock._fields == ('peak','valley')
    assert ours.peak and abs(np.log10(stock.peak/ours.peak)) < 0.2
    a.lr_find(1e-7, 1e-6, 50, suggest_funcs=(peak,))  # no signal: drawn all the same

@pytest.mark.filterwarnings('ignore:there is no validation set')
@pytest.mark.parametrize('opt_func,usual', [(sgd,0.1), (Adam,0.03), (Larc,None)])
def test_the_usual_rate_is_that_of_the_optimiser(opt_func, usual):
    dls = DataLoaders([(torch.ones(2,1), torch.ones(2,1))]*10)
    learn = Learner(dls, nn.Linear(1,1), loss_func=Scripted(curve()), opt_func=opt_func)
    r = find(learn, 1e-5, 10, 100)
    assert r.usual == usual and r.peak == find_peak(r.df.lr, r.df.train_loss, 100, usual).lr

# bad input

bad_arguments = [
    (dict(start_lr=0), 'start_lr=0'),
    (dict(start_lr=-1), 'start_lr=-1'),
    (dict(start_lr=None), 'start_lr=None'),
    (dict(start_lr=nan), 'start_lr=nan'),
    (dict(start_lr=1, end_lr=1), 'end_lr=1'),
    (dict(end_lr=0), 'end_lr=0'),
    (dict(end_lr='x'), "end_lr='x'"),
    (dict(start_lr=[1e-4]*3), '1 parameter group'),
    (dict(num_it=9), 'num_it=9'),
    (dict(num_it=20.), 'num_it=20.0'),
    (dict(wd=-1), 'wd=-1'),
    (dict(metrics='accuracy'), 'accuracy'),
    (dict(metrics=[3]), 'metrics: 3'),
    (dict(stop_div=0.5), 'stop_div=0.5'),
    (dict(suggest_funcs='valley'), 'is no function'),
    (dict(trials='all'), "trials='all': must be True, False, 'thorough' or a list"),
    *[(dict(trials=o), 'trials=.*: must be True') for o in (None, 0.1, 3, [], np.array(0.1), b'')],
    *[(dict(trials=[0.1,o]), 'trials=.*a list of rates above 0') for o in (0, -1, nan, math.inf, 'x', None)],
    (dict(trials=[[0.1]]), 'trials=.*a list of rates above 0'),
    *[(dict(n_runs=o), 'n_runs') for o in (0,1.5,None,True)],
    *[(dict(bn=o), 'bn=') for o in ('eval',None,True,3,['both'],{},np.zeros(2))],
    *[({name:np.zeros(2)}, name) for name in ('linear','stop_div','suggest_funcs','valid_order','keep')],
    *[(dict(linear=o), 'linear=.*must be True or False') for o in ('no',['x'],None)],
    *[(dict(stop_div=o), 'stop_div=') for o in ('',[],{})]]

def test_bad_arguments():
    learn = learner()
    before = state(learn)
    for kw,msg in bad_arguments:
        with pytest.raises(ValueError, match=msg): find(learn, **kw)
    assert not diff(before, state(learn)) and learn.lr_find_result is None

@pytest.mark.parametrize('make,msg', [
    (lambda: learner(lambda: DataLoaders([], Loader().batches)), 'training loader has no batches'),
    (lambda: learner(lambda: DataLoaders(Loader(0), Loader().batches)), 'gave no batch'),
    (lambda: learner(opt_func=lambda p: OptimWrapper(p, partial(torch.optim.SGD, lr=1))), 'learning rate')])
def test_bad_learners(make, msg):
    learn = make()
    before = state(learn)
    with pytest.raises(ValueError, match=msg): find(learn)
    assert not diff(before, state(learn))

def test_bad_groups_and_wd():
    learn = groups_learner()
    for kw,msg in [(dict(start_lr=[1e-4,1e-3], end_lr=[1.,1.]), 'ratios of the parameter groups must be'),
                   (dict(start_lr=[0,0], linear=False), 'above 0'),
                   (dict(start_lr=[1e-4]*3), '2 parameter group')]:
        with pytest.raises(ValueError, match=msg): find(learn, **kw)
    assert find(learn, [0,0], 1., linear=True).df.lr[0] == 0
    learn = learner(opt_func=partial(OptimWrapper, opt=torch.optim.Rprop))
    with pytest.raises(ValueError, match='no weight decay'): find(learn, wd=0.1)

def returns(answer):
    def rule(lrs, losses, num_it): return answer
    return rule

def raises(lrs, losses, num_it): raise RuntimeError('no idea')

@pytest.mark.parametrize('func,msg', [
    (raises, 'raises RuntimeError: no idea'),
    *[(returns(o), 'returns .*, not') for o in ('text', 'a', '12', 0.1, None, [], ([1,2],0), ('0.1',0))]])
def test_a_wrong_suggestion_function_is_left_out(func, msg):
    learn = learner()
    with pytest.warns(UserWarning, match=f'{func.__name__} is left out: the function {msg}'):
        r = find(learn, num_it=20, suggest_funcs=[func, minimum])
    assert r.found[func.__name__] is None and re.search(msg, r.reasons[func.__name__]) and r.minimum

@pytest.mark.parametrize('lr', [-1, 0, nan, math.inf, -math.inf])
def test_a_suggestion_is_a_rate_above_0(lr):
    r = find(learner(), num_it=20, suggest_funcs=[returns((lr,0)), minimum], n_runs=2)
    assert r.rule is None and f'gives {lr:g}' in r.reasons['rule'] and r.minimum

# sweeps

def test_sweep_leaves_no_trace_and_keeps_what_it_has():
    learn = learner()
    train(learn)
    before = state(learn)
    s = sweep(learn, wd=[1e-2,1e-4], mom=[0.8,0.95], bs=[16,32])
    assert not diff(before, state(learn)) and len(s.runs) == 8
    settings = ['wd','mom','bs']
    columns = 'peak','diverged_at','min_valid_loss','lr_at_min','stopped'
    assert list(s.table.columns) == [*settings, *columns]
    assert len(s.table) == 8 and len(s.plot()) == 2
    n_steps = []
    class StopIn2nd(Callback):
        def before_step(self):
            n_steps.append(1)
            if len(n_steps) == 20: raise KeyboardInterrupt
    learn.add_cb(StopIn2nd())
    with pytest.raises(KeyboardInterrupt): sweep(learn, wd=[1e-2,1e-4])
    assert len(learn.lr_find_sweep_result.runs) == 1 and len(learn.lr_find_result.df) < 12

def test_a_sweep_has_the_same_weights_and_batches():
    learn = learner()
    s = sweep(learn, wd=[0.3,1e-3])
    assert s.names == ['wd'] and s.table.wd.tolist() == [0.3,1e-3] and len(s.df) == 24
    assert len({o.df.train_loss[0] for o in s.runs.values()}) == 1
    s = sweep(learn, mom=[0.5,0.9], bs=[16,32])
    assert s.names == ['mom','bs'] and len(s.runs) == 4
    assert s.runs[(0.5,16)].df.train_loss[0] == s.runs[(0.9,16)].df.train_loss[0]
    assert (learn.opt, learn.dls.train.bs) == (None, 32)

def test_a_sweep_interrupted_before_its_first_step():
    class AtOnce(Callback):
        def before_fit(self): raise CancelFitException
    for cb in AtOnce(),Stop('before_batch', CancelFitException, 1):
        learn = learner(cbs=cb)
        s = sweep(learn, wd=[1e-2,1e-4])
        assert len(s.table) == 2 and s.table.min_train_loss.isna().all() and len(s.df) == 0
        assert len(s.plot()) == 1 and repr(s)
    learn = learner(cbs=Stop('before_batch', KeyboardInterrupt, 1))
    with pytest.raises(KeyboardInterrupt): sweep(learn, wd=[1e-2,1e-4])
    assert learn.lr_find_sweep_result is None

@pytest.mark.parametrize('values', [
    np.array([0,0.5]), torch.tensor([0,0.5]), pd.Series([0,0.5]), [tensor(0.),np.float32(0.5)], (0,0.5)])
def test_a_sweep_takes_arrays(values):
    assert sweep(learner(), wd=values).table.wd.tolist() == [0,0.5]

def test_a_sweep_of_momenta_and_one_of_batch_sizes():
    learn,values = learner(),np.array([0,0.5])
    assert sweep(learn, mom=values).table.mom.tolist() == [0,0.5]
    assert sweep(learn, bs=np.array([16,32])).table.bs.tolist() == [16,32]

def test_bad_sweeps():
    learn = learner()
    for kw,msg in [(dict(),'give at least one'), (dict(wd=[]),'give at least one'), (dict(wd=[-1]),'wd=-1'),
                   (dict(mom=[1.]),'mom=1.0'), (dict(bs=[0]),'bs=0')]:
        with pytest.raises(ValueError, match=msg): learn.lr_find_sweep(**kw)
    with pytest.raises(ValueError, match='bs=300: the training set has only 256'): sweep(learn, bs=[32,300])
    for wd in [[0,0.1]],np.zeros((2,2)):
        with pytest.raises(ValueError, match='one number for all parameter groups'): sweep(learn, wd=wd)
    for opt_func in SGD,partial(OptimWrapper, opt=torch.optim.Adagrad):
        with pytest.raises(ValueError, match='momentum.*leave out mom=') as e:
            sweep(learner(opt_func=opt_func), mom=[0.8])
        assert 'schedul' not in str(e.value) and 'use_clr_beta' not in str(e.value)
    assert learn.lr_find_sweep_result is None
    with pytest.raises(TypeError): learn.lr_find_sweep(wd=[0], num_its=12)

def show_bars():
    learn = learner()
    r = learn.lr_find_val(1e-3, 1, 12, n_runs=2, show_plot=False, trials=[0.1])
    sweep(learn, wd=[0,1e-2])
    learn.add_cb(Stop('before_step', KeyboardInterrupt))
    try: learn.lr_find_val(num_it=12)
    except KeyboardInterrupt: print('DONE', len(r.df), len(learn.lr_find_result.df))

def test_the_progress_bar_in_a_terminal():
    pytest.importorskip('pty')  # not on Windows
    code,out = processes.run(show_bars, terminal=True)
    assert code == 0, out
    assert 'DONE 24 4' in out and '[24/24' in out and '[124/124' in out and 'at each of 0.1 ' in out

"`lr_find_val`: what it measures, and that it leaves no trace"
import gc, pickle, random, signal, weakref
import pytest
from fastai.text.all import *
from fastai_clrbeta.all import *

nan = float('nan')

class Dropped(nn.Module):
    "Dropout, BatchNorm, a buffer that is not saved, and a counter: all that a forward pass can change"
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3,8,3,2,1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
        self.drop,self.head = nn.Dropout(0.3),nn.Linear(8*16,10)
        self.register_buffer('seen', torch.zeros(1), persistent=False)
        self.calls,self.hidden = 0,[torch.zeros(2)]
    def forward(self, x):
        self.seen += 1; self.calls += 1; self.hidden[0] = self.hidden[0]+1
        return self.head(self.drop(self.body(x)))

class CountingLoss(nn.Module):
    "A loss with a running mean in a buffer that acts on its value"
    def __init__(self): super().__init__(); self.register_buffer('mean', torch.zeros(()))
    def forward(self, p, y):
        l = F.cross_entropy(p, y)
        self.mean.lerp_(l.detach(), 0.1)
        return l + 0.01*self.mean

def fastai_loaders():
    dls = digits_dls(bs=32, size=8, seed=0)
    dls.train.n = 256
    return dls

def torch_loaders():
    from torch.utils.data import DataLoader as TorchDL, TensorDataset
    ds = [TensorDataset(dl.mem[0][:n].float()/255, dl.mem[1][:n]) for dl,n in zip(digits_dls(size=8).loaders, (256,100))]
    return DataLoaders(TorchDL(ds[0], 32, shuffle=True, generator=torch.Generator().manual_seed(1)), TorchDL(ds[1], 64), device='cpu')

def learner(dls=fastai_loaders, opt_func=sgd, loss_func=None, **kwargs):
    set_seed(7)
    return Learner(dls(), Dropped(), loss_func=loss_func or CrossEntropyLossFlat(), opt_func=opt_func, **{'metrics':accuracy, **kwargs})

def find(learn, start_lr=1e-3, end_lr=1., num_it=12, stop_div=False, **kwargs):
    "With a progress bar, as users have it"
    return learn.lr_find_val(start_lr, end_lr, num_it, stop_div=stop_div, show_plot=False, **kwargs)

def train(learn, *args, **kwargs):
    with learn.no_bar(), learn.no_logging(): learn.fit_clr_beta(0.1, **kwargs)

def state(learn):
    "Everything about `learn` that a search could change, as plain values"
    def t(o):
        if isinstance(o, Tensor): return o.tolist()
        if isinstance(o, (list,tuple,L)): return [t(x) for x in o]
        return {str(k):t(v) for k,v in o.items()} if isinstance(o, dict) else o
    rec,opt,m = learn.recorder,learn.opt,learn.model
    loss = learn.loss_func.state_dict() if isinstance(learn.loss_func, nn.Module) else {}
    return dict(weights=t(dict(m.state_dict())), buffers=t(list(m.buffers())), hidden=t(m.hidden), calls=m.calls,
        loss=t(loss), loss_func=id(learn.loss_func),
        opt=opt and t(list(opt.state_dict().values())), opt_id=id(opt), hypers=opt and t(list(opt.hypers)), grads=t([p.grad for p in m.parameters()]),
        rg=[p.requires_grad for p in m.parameters()], modes=[o.training for o in m.modules()], training=learn.training, rng=repr(get_random_states()),
        loaders=[(id(dl), repr(dl.rng.getstate()) if hasattr(dl, 'rng') else repr(getattr(dl, 'generator', None) and t(dl.generator.get_state())),
                  hasattr(dl, 'it')) for dl in learn.dls.loaders],
        recorder=t({k:v for k,v in vars(rec).items() if isinstance(v, (list,L)) and k != 'log'}), log=t(getattr(rec, 'log', None)),
        smooth=t(vars(rec.smooth_loss)), cbs=[id(o) for o in learn.cbs],
        attrs=sorted(vars(learn)), n_epoch=learn.n_epoch,
        counters=[t(getattr(learn, k, None)) for k in ('epoch','iter','n_iter','train_iter','pct_train','smooth_loss','final_record')])

def diff(a, b): return [k for k in a if repr(a[k]) != repr(b[k])]

setups = dict(
    fastai    = dict(),
    torch     = dict(dls=torch_loaders),
    adam      = dict(opt_func=Adam),
    fastai_sgd= dict(opt_func=partial(SGD, mom=0.9)),
    torch_adam= dict(opt_func=partial(OptimWrapper, opt=torch.optim.Adam)),
    loss      = dict(loss_func=CountingLoss()))

@pytest.mark.parametrize('kw', setups.values(), ids=setups)
@pytest.mark.parametrize('trained', [False,True])
def test_no_trace(kw, trained, tmp_path):
    learn = learner(path=tmp_path, **kw)
    if trained: train(learn)
    before = state(learn)
    r = find(learn)
    assert len(r.df) == 12 and r.stopped == 'finished: 12 steps'
    assert not diff(before, state(learn))
    assert not list(tmp_path.iterdir())
    with learn.no_trace(): pickle.dumps(learn.lr_find_result)

@pytest.mark.parametrize('kw', setups.values(), ids=setups)
def test_what_follows_is_the_same(kw):
    res = []
    for searches in 0,1,2:
        learn = learner(**{**kw, **({'loss_func':CountingLoss()} if 'loss_func' in kw else {})})
        if searches: find(learn)
        train(learn)
        if searches > 1: find(learn); find(learn, num_it=40, stop_div=True, end_lr=100.)
        train(learn)
        res.append(state(learn))
    for k in 'weights buffers hidden calls loss opt hypers rng recorder smooth counters'.split():
        assert repr(res[0][k]) == repr(res[1][k]) == repr(res[2][k]), k

class Shuffler(torch.utils.data.Sampler):
    "Keeps its order between epochs, and draws from a generator of numpy's"
    def __init__(self, n): self.order,self.gen = list(range(n)),np.random.default_rng(0)
    def __len__(self): return len(self.order)
    def __iter__(self):
        self.gen.shuffle(self.order)
        return iter(self.order)

class OwnLoader:
    "A loader written by hand, with random numbers of its own"
    def __init__(self): self.batches,self.rng = list(torch_loaders().train),random.Random(3)
    def __len__(self): return len(self.batches)
    def __iter__(self): return iter(self.rng.sample(self.batches, len(self.batches)))

class Noisy(torch.utils.data.Dataset):
    def __init__(self): self.x,self.y = torch_loaders().train.dataset.tensors
    def __len__(self): return 128
    def __getitem__(self, i): return self.x[i]+0.1*torch.randn(3,8,8), self.y[i]

TorchDL = torch.utils.data.DataLoader
loaders = dict(
    sampler = lambda: TorchDL(torch_loaders().train.dataset, 32, sampler=Shuffler(256)),
    own     = OwnLoader,
    workers = lambda: TorchDL(Noisy(), 32, shuffle=True, num_workers=1, persistent_workers=True))

@pytest.mark.parametrize('make', loaders.values(), ids=loaders)
def test_loaders_with_a_state_of_their_own(make):
    res = []
    for search in False,True:
        set_seed(1)
        learn = learner(lambda: DataLoaders(make(), torch_loaders().valid))
        train(learn)
        if search: find(learn)
        train(learn)
        res.append(state(learn)['weights'])
    assert res[0] == res[1]

def test_other_containers_in_the_model():
    class Odd(Dropped):
        def __init__(self):
            super().__init__()
            self.last,self.ids,self.arr,self.gen = collections.deque([0], maxlen=3),{0},np.zeros(2),np.random.default_rng(0)
        def forward(self, x):
            self.last.append(self.calls); self.ids.add(self.calls); self.arr += 1
            return super().forward(x)*(1+0.1*self.gen.random())
    values = lambda m: repr((m.last, m.ids, m.arr, m.gen.bit_generator.state))
    learn = learner(); learn.model = Odd()
    before = values(learn.model)
    find(learn)
    assert values(learn.model) == before

def test_an_interrupt_of_the_restoring_itself():
    "Ctrl-C while the Learner is being restored does not leave it half restored"
    class Interrupted(Callback):
        times = 0
        def state_dict(self): return {}
        def load_state_dict(self, state):
            Interrupted.times += 1
            if Interrupted.times == 1: raise KeyboardInterrupt
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
        return sum(o.numel() for o in gc.get_objects() if isinstance(o, Tensor))
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
        n = torch.autocast_increment_nesting(); torch.autocast_decrement_nesting()
        return n
    n = nesting()
    with pytest.raises(RuntimeError): find(learn)
    assert nesting() == n

class Stop(Callback):
    "Raise `exc` in the `n`-th training batch, at `event`"
    def __init__(self, event, exc, n=5):
        self.exc,self.n,self.k = exc,n,0
        setattr(self, event, self._go)
    def _go(self):
        if not self.training: return
        self.k += 1
        if self.k == self.n: raise self.exc('stop')

def boom_model(learn, exc):
    learn.model.head.register_forward_hook(lambda m,i,o: boom(exc, m))
def boom(exc, o):
    o.count = getattr(o, 'count', 0)+1
    if o.count == 9: raise exc('stop')

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
    def create_item(self, i):
        boom(RuntimeError, self)
        return super().create_item(i)

@pytest.mark.parametrize('event', ['before_batch','after_pred','after_loss','before_backward','before_step','after_step','after_batch'])
@pytest.mark.parametrize('exc', [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize('trained', [False,True])
def test_killed_in_a_callback(event, exc, trained):
    learn = learner()
    if trained: train(learn)
    learn.add_cb(Stop(event, exc))
    before = state(learn)
    with pytest.raises(exc): find(learn)
    after = state(learn)
    assert not diff(before, after)
    assert len(learn.lr_find_result.df) in (3,4,5) and exc.__name__ in learn.lr_find_result.stopped
    pickle.dumps(learn.lr_find_result)

@pytest.mark.parametrize('where', ['model','loss','metric','train data','valid data','train metric'])
def test_killed_elsewhere(where):
    learn = learner(loss_func=BoomLoss() if where=='loss' else None, metrics=[BoomMetric()] if where=='metric' else accuracy)
    if where=='model': boom_model(learn, RuntimeError)
    for i,o in enumerate(('train data','valid data')):
        if where==o: learn.dls.loaders[i] = BoomDL([(torch.rand(3,8,8), i%10) for i in range(64)], bs=4, num_workers=0)
    if where=='train metric':
        learn.recorder.train_metrics = True
        learn.metrics = [BoomMetric()]
    keep = [learn.loss_func, learn.model.head, *learn.metrics, *learn.dls.loaders]
    for o in keep: o.count = 0
    before = state(learn)
    with pytest.raises(RuntimeError, match='stop'): find(learn, num_it=30)
    assert not diff(before, state(learn))
    assert 'RuntimeError' in learn.lr_find_result.stopped

def test_real_ctrl_c(record_property):
    "SIGINT at many moments of a search"
    learn = learner()
    train(learn)
    before,stopped = state(learn),0
    def handler(*args): raise KeyboardInterrupt
    old = signal.signal(signal.SIGALRM, handler)
    try:
        for k in range(25):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.02+0.02*k)
                find(learn, num_it=60)
            except KeyboardInterrupt: stopped += 1
            finally: signal.setitimer(signal.ITIMER_REAL, 0)
            assert not diff(before, state(learn)), k
    finally: signal.signal(signal.SIGALRM, old)
    assert stopped > 5
    record_property('times', stopped)

def test_learner_pickles_after_it():
    learn = learner()
    find(learn)
    pickle.dumps(learn)
    learn.add_cb(Stop('before_batch', RuntimeError))
    with pytest.raises(RuntimeError): find(learn)
    learn.remove_cb(Stop)
    got = pickle.loads(pickle.dumps(learn))
    assert 'RuntimeError' in learn.lr_find_result.stopped and got.lr_find_result is None

def test_results_go_with_their_learner():
    "They lie beside it: not in its attributes, which an export would write, and not for longer than it lives"
    learn = learner()
    assert learn.lr_find_result is None and learn.lr_find_sweep_result is None
    with learn.no_trace():
        sweep = learn.lr_find_sweep(wd=[0,1e-2], num_it=12, show_plot=False)
    assert learn.lr_find_sweep_result is sweep and learn.lr_find_result is last(sweep.runs.values())
    assert not {'lr_find_result','lr_find_sweep_result'} & vars(learn).keys()
    for o in 'lr_find_result','lr_find_sweep_result':
        with pytest.raises(AttributeError): setattr(learn, o, None)
    refs = [weakref.ref(o) for o in (learn, sweep, learn.lr_find_result)]
    del learn,sweep
    gc.collect()
    assert [o() for o in refs] == [None]*3

def test_read_only_path(tmp_path):
    (tmp_path/'file').write_text('')
    learn = learner(path=tmp_path/'file')  # no folder can be made here
    assert len(find(learn).df) == 12

def test_callbacks_that_watch_keep_quiet(tmp_path):
    fired = []
    class Saver(Callback):
        def before_fit(self): fired.append('fit')
        def after_epoch(self): self.learn.save('x')
        def after_fit(self): fired.append('end')
    class SavesInBatch(Callback):
        def after_batch(self): self.learn.save('y')
    class TwicePred(Callback):
        def after_pred(self): fired.append('pred')
    cbs = [SaveModelCallback(), SaveModelCallback(fname='b', every_epoch=True), EarlyStoppingCallback(patience=1), ReduceLROnPlateau(),
           CSVLogger(), ShowGraphCallback(), TerminateOnNaNCallback(), Saver(), SavesInBatch(), TwicePred(),
           CLRBeta(10, 10), ParamScheduler({'lr':SchedLin(1,2)})]
    learn = learner(path=tmp_path, cbs=cbs)
    (tmp_path/'history.csv').write_text('keep')
    before = state(learn)
    r = find(learn)
    assert r.stopped == 'finished: 12 steps' and r.df.lr.is_monotonic_increasing
    assert not diff(before, state(learn))
    assert [o.name for o in tmp_path.iterdir()] == ['history.csv'] and (tmp_path/'history.csv').read_text() == 'keep'
    assert set(fired) == {'pred'} and len(fired) == 24

changes = dict(
    fp16         = lambda l: l.to_fp16(),
    bf16         = lambda l: l.to_bf16(),
    clip         = lambda l: l.add_cb(GradientClip(0.1)),
    mixup        = lambda l: l.add_cb(MixUp()),
    channelslast = lambda l: l.to_channelslast(use_amp=False))

@pytest.mark.parametrize('add', changes.values(), ids=changes)
@pytest.mark.filterwarnings('ignore:.*CUDA is not available:UserWarning')
def test_callbacks_that_change_training_work(add, tmp_path):
    a,b = learner(path=tmp_path),learner()
    for o in a,b: add(o)
    before = state(b)
    set_seed(0)
    with a.no_bar(): a.lr_find(1e-3, 1, 12, stop_div=False, show_plot=False, suggest_funcs=None)
    set_seed(0)
    r = find(b)
    assert r.df.train_loss_smooth.tolist() == [o.item() for o in a.recorder.losses]
    with a.no_bar(): set_seed(0); assert not [k for k in diff(before, state(b)) if k != 'rng']
    if hasattr(b, 'mix_up'): assert b.loss_func is not None and isinstance(b.loss_func, CrossEntropyLossFlat)

def test_a_step_is_an_optimiser_step(tmp_path):
    steps = []
    class Steps(Callback):
        def after_step(self): steps.append(self.opt.hypers[-1]['lr'])
    learn = learner(cbs=[GradientAccumulation(64), Steps()])
    raw = []
    class Raw(Callback):
        def after_loss(self):
            if self.training: raw.append(self.loss.item())
    learn.add_cb(Raw())
    r = find(learn)
    assert len(r.df) == 12 and len(raw) == 24 and steps == r.df.lr.tolist()
    np.testing.assert_allclose(r.df.train_loss, np.array(raw).reshape(12,2).mean(1), rtol=1e-6)

# what is measured

def by_hand(learn, lrs):
    "The search written out: train on the next batch, evaluate the next validation batch"
    m,opt = learn.model,torch.optim.SGD(learn.model.parameters(), 0.1, 0.9)
    valid = itertools.cycle([b for b in learn.dls.valid])
    train,val,acc,batches = [],[],[],iter(list(learn.dls.train)*9)
    for lr in lrs:
        x,y = (o.as_subclass(Tensor) for o in next(batches))
        opt.param_groups[0]['lr'] = lr
        m.train(); loss = F.cross_entropy(m(x), y); opt.zero_grad(); loss.backward(); opt.step()
        x,y = (o.as_subclass(Tensor) for o in next(valid))
        with torch.no_grad(): m.eval(); p = m(x)
        for o,v in (train,loss), (val,F.cross_entropy(p, y)), (acc,(p.argmax(1)==y).float().mean()): o.append(v.item())
    return dict(lr=lrs, train_loss_smooth=_debiased(train), valid_loss=val, valid_loss_smooth=_debiased(val),
                accuracy=acc, accuracy_smooth=_debiased(acc))

def _debiased(xs, beta=0.98):
    res,avg = [],0.
    for i,x in enumerate(xs, 1):
        avg = beta*avg + (1-beta)*x
        res.append(avg/(1-beta**i))
    return res

def loaders_in_order():
    dls = fastai_loaders()
    dls.train.shuffle = False
    return dls

def test_against_a_loop():
    a,b = learner(loaders_in_order),learner(loaders_in_order)
    a.model.drop.p = b.model.drop.p = 0.
    r = find(a, 1e-4, 1., num_it=40)
    want = by_hand(b, [1e-4*(1/1e-4)**(i/40) for i in range(40)])
    for k,v in want.items(): np.testing.assert_allclose(r.df[k], v, rtol=1e-3, atol=1e-5, err_msg=k)

def test_metrics():
    auc = RocAuc()
    learn = learner(metrics=[accuracy, error_rate, F1Score(average='macro'), Perplexity(), auc])
    with pytest.warns(UserWarning, match='roc_auc'): r = find(learn, 1e-4, 1e-3)  # 32 images do not hold every digit
    for k in 'accuracy error_rate f1_score perplexity'.split():
        assert np.isfinite(r.df[k]).all() and np.isfinite(r.df[f'{k}_smooth']).all()
    np.testing.assert_allclose(r.df.accuracy, 1-r.df.error_rate, rtol=1e-5)
    np.testing.assert_allclose(r.df.perplexity, np.exp(r.df.valid_loss), rtol=1e-5)
    assert r.df.roc_auc_score.isna().any()
    r = find(learn, metrics=[error_rate])
    assert [o for o in r.df if o.endswith('_smooth')] == ['train_loss_smooth','valid_loss_smooth','error_rate_smooth']
    assert learn.metrics[4] is auc

def test_metrics_with_the_same_name():
    r = find(learner(metrics=[F1Score(average='macro'), F1Score(average='micro'), accuracy]))
    assert [o for o in r.df if not o.endswith(('_smooth','_centred'))] == ['lr','train_loss','valid_loss','f1_score','f1_score_2','accuracy']
    np.testing.assert_allclose(r.df.f1_score_2, r.df.accuracy, rtol=1e-5)  # micro F1 is accuracy

def test_stopped_by_a_callback_or_at_once():
    class Enough(Callback):
        def after_batch(self):
            if self.training and self.train_iter == 4: raise CancelFitException
    learn = learner(cbs=Enough())
    assert 'stopped by a callback after' in find(learn).stopped
    learn.lr_find_sweep(wd=[0,1e-2], show_plot=False).table
    learn = learner(cbs=Stop('before_batch', KeyboardInterrupt, 1))
    with pytest.raises(KeyboardInterrupt): find(learn)
    r = learn.lr_find_result
    assert len(r.df) == 0 and set(r.suggestions) == {None} and repr(r)
    r.plot()

def test_nan_stops_it():
    class Poison(Callback):
        def after_loss(self):
            if self.training and self.train_iter == 6: self.learn.loss = self.learn.loss*nan; self.learn.loss_grad = self.learn.loss_grad*nan
    for stop_div in True,False:
        learn = learner(cbs=Poison())
        before = state(learn)
        r = find(learn, stop_div=stop_div)
        assert len(r.df) == 7 and 'nan at step 7' in r.stopped and not diff(before, state(learn))
        assert set(r.suggestions) == {None} and len(r.reasons) == 5
        r.plot()

def test_divergence_stops_it():
    learn = learner()
    r = find(learn, 1e-2, 1e3, num_it=50, stop_div=True)
    assert len(r.df) < 50 and 'diverged' in r.stopped
    best = r.df.train_loss_smooth.cummin()
    assert (r.df.train_loss_smooth <= 4*best)[:-1].all() and r.df.train_loss_smooth.iloc[-1] > 4*best.iloc[-1]

def test_no_validation_set():
    learn = learner(lambda: DataLoaders(fastai_loaders().train))
    before = state(learn)
    with pytest.warns(UserWarning, match='no validation set'): r = find(learn)
    assert [*r.df] == ['lr','train_loss','train_loss_smooth','train_loss_centred'] and not diff(before, state(learn))
    assert len(r.plot()) == 1

def test_groups_keep_their_ratios():
    lrs = []
    class Watch(Callback):
        def before_step(self): lrs.append([h['lr'] for h in self.opt.hypers])
    split = lambda m: [params(m.body), params(m.head)]
    for kw,call,ratio in [(dict(), dict(), 1), (dict(lr=slice(1e-4,1e-2)), dict(), 1e-2), (dict(), dict(start_lr=slice(1e-5,1e-3)), 1e-2),
                          (dict(), dict(start_lr=[1e-4,1e-3]), 0.1), (dict(), dict(end_lr=slice(1.)), 0.1)]:
        lrs.clear()
        learn = learner(splitter=split, cbs=Watch(), opt_func=partial(SGD, mom=0.9), **kw)
        r = find(learn, **call)
        np.testing.assert_allclose(lrs, [[ratio*o, o] for o in r.df.lr], rtol=1e-9)
        assert r.df.lr[0] == 1e-3

def test_frozen():
    learn = learner(splitter=lambda m: [params(m.body), params(m.head)], opt_func=partial(SGD, mom=0.9))
    learn.freeze()
    before = state(learn)
    find(learn)
    assert not diff(before, state(learn))

class Loader:
    "Batches without a length, `n` of them or for ever"
    def __init__(self, n=None): self.n,self.batches = n,list(torch_loaders().train)[:2]
    def __iter__(self): return itertools.islice(itertools.cycle(self.batches), self.n)

class Liar(Loader):
    "Fewer batches than it says"
    def __len__(self): return 10

class Stream(torch.utils.data.IterableDataset):
    def __iter__(self): return itertools.cycle(zip(*torch_loaders().train.dataset.tensors))

@pytest.mark.parametrize('train', [TorchDL(Stream(), 16), Loader(), Loader(3), Liar(3), Loader().batches[:1]],
                         ids=['stream','infinite','unsized','liar','one batch'])
def test_odd_loaders(train):
    learn = learner(lambda: DataLoaders(train, Loader().batches))
    r = learn.lr_find_val(1e-3, 1, 30, show_plot=False, stop_div=False)
    assert len(r.df) == 30
    assert learn.dls.train is train

def test_several_inputs():
    class Two(nn.Module):
        def __init__(self): super().__init__(); self.a,self.b = nn.Linear(4,3),nn.Linear(4,3)
        def forward(self, x, y): return self.a(x)+self.b(y)
    batches = [(torch.randn(8,4), torch.randn(8,4), torch.randint(3,(8,))) for _ in range(4)]
    dls = DataLoaders(batches, batches)
    dls.n_inp = 2
    r = find(Learner(dls, Two(), loss_func=F.cross_entropy, metrics=accuracy, opt_func=sgd))
    assert len(r.df) == 12 and r.df.accuracy.notna().all()

def test_language_model():
    df = pd.DataFrame(dict(text=['the film was good and long and good']*60))
    dls = TextDataLoaders.from_df(df, text_col='text', is_lm=True, bs=4, seq_len=5, valid_pct=0.2)
    res = []
    for search in False,True:
        set_seed(3)
        dls.train.rng.seed(5); dls.train.items.idxs = L.range(len(dls.train.items.coll))
        config = {**awd_lstm_lm_config, 'emb_sz':8, 'n_hid':8}
        learn = language_model_learner(dls, AWD_LSTM, pretrained=False, config=config, metrics=Perplexity())
        with learn.no_bar(), learn.no_logging():
            if search: assert learn.lr_find_val(show_plot=False, num_it=30).df.perplexity.notna().all()
            learn.fit_clr_beta(0.01, cycle_len=2)
        res.append([o.tolist() for o in learn.model.parameters()])
    assert res[0] == res[1]

# suggestions

def test_suggestions_are_fastais():
    learn = learner()
    r = find(learn, 1e-4, 10, num_it=100, stop_div=True)
    lrs,losses = (torch.tensor(r.df[k].tolist())[10:-5] for k in ('lr','valid_loss_centred'))
    for f in valley,minimum,steep,slide: assert getattr(r, f.__name__) == pytest.approx(f(lrs, losses, 100)[0])
    assert r.suggestions._fields == ('peak','valley','minimum','steep','slide')
    with pytest.raises(AttributeError): r.nonsense

def test_suggestions_by_other_functions():
    class Mine:
        def __call__(self, lrs, losses, n): return 1.,(1.,2.)
    learn = learner()
    funcs = partial(slide, lr_diff=5), partial(slide, lr_diff=9), lambda *args: (2.,(2.,2.)), Mine()
    r = find(learn, num_it=40, suggest_funcs=funcs)
    assert list(r.found) == ['slide','slide_2','<lambda>','Mine'] and r.suggestions[2:] == (2.,1.)
    with pytest.raises(ValueError, match='is no function'): find(learn, suggest_funcs='valley')

# bad input

@pytest.mark.parametrize('make,msg', [
    (lambda: learner(lambda: DataLoaders([], Loader().batches)), 'training loader has no batches'),
    (lambda: learner(opt_func=lambda p: OptimWrapper(p, partial(torch.optim.SGD, lr=1))), 'learning rate')])
def test_bad_learners(make, msg):
    learn = make()
    before = state(learn)
    with pytest.raises(ValueError, match=msg): find(learn)
    assert not diff(before, state(learn)) and learn.lr_find_result is None

def test_bad_groups_and_wd():
    learn = learner(splitter=lambda m: [params(m.body), params(m.head)])
    for kw,msg in [(dict(start_lr=[1e-4,1e-3], end_lr=[1.,1.]), 'keep their ratios'), (dict(start_lr=[0,0], linear=False), 'above 0'),
                   (dict(start_lr=[1e-4]*3), '2 parameter group')]:
        with pytest.raises(ValueError, match=msg): find(learn, **kw)
    assert find(learn, [0,0], 1., linear=True).df.lr[0] == 0
    learn = learner(opt_func=partial(OptimWrapper, opt=torch.optim.Rprop))
    with pytest.raises(ValueError, match='no weight decay'): find(learn, wd=0.1)

def test_a_batch_of_one_and_batchnorm():
    ds = [(torch.randn(4), torch.tensor(0)) for _ in range(9)]
    for bs,ok in (8,False),(1,False),(3,True),(9,True):
        dls = DataLoaders(DataLoader(ds, bs=bs), DataLoader(ds, bs=3), device='cpu')
        learn = Learner(dls, nn.Sequential(nn.Linear(4,3), nn.BatchNorm1d(3)), loss_func=F.cross_entropy, opt_func=sgd)
        before = [o.clone() for o in learn.model.state_dict().values()]
        if ok: assert len(find(learn).df) == 12
        else:
            with pytest.raises(ValueError, match=f'one item .*batch size {bs}, 9 items'): find(learn)
        assert all(torch.equal(a, b) for a,b in zip(before, learn.model.state_dict().values()))
    # images are another matter: BatchNorm has all pixels of one image to go by
    learn = learner(); learn.dls.train.bs = 1
    assert len(find(learn).df) == 12

def test_sweep_leaves_no_trace_and_keeps_what_it_has():
    learn = learner()
    train(learn)
    before = state(learn)
    s = learn.lr_find_sweep(wd=[1e-2,1e-4], mom=[0.8,0.95], bs=[16,32], num_it=12, show_plot=False)
    assert not diff(before, state(learn)) and len(s.runs) == 8
    table = s.table
    assert list(table.columns) == ['wd','mom','bs','peak','diverged_at','min_loss','lr_at_min','stopped'] and len(table) == 8
    assert len(s.plot()) == 2
    batches = []
    class StopIn2nd(Callback):
        def before_step(self):
            batches.append(1)
            if len(batches) == 20: raise KeyboardInterrupt
    learn.add_cb(StopIn2nd())
    with pytest.raises(KeyboardInterrupt): learn.lr_find_sweep(wd=[1e-2,1e-4], num_it=12)
    assert len(learn.lr_find_sweep_result.runs) == 1 and len(learn.lr_find_result.df) < 12

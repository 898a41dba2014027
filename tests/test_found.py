"What comes of a range test: curves without lag, several runs, BatchNorm's two faces, a peak; and rough use of it"
import os, pickle, pty, subprocess, sys
from contextlib import suppress
from copy import copy, deepcopy
import pytest
from fastai.text.all import *
from fastai_clrbeta.all import *
from conftest import root
from test_finder import Dropped, Loader, Shuffler, Stop, TorchDL, diff, fastai_loaders, find, learner, nan, state, torch_loaders, train

def result(*args, **kwargs):
    "Found by `fastai_clrbeta.results.lr_find_result`"
    from fastai_clrbeta.results import lr_find_result
    return lr_find_result(*args, **kwargs)

def rows(losses, lrs=None, name='train_loss'):
    lrs = np.geomspace(1e-5, 10, len(losses)) if lrs is None else lrs
    return pd.DataFrame({'lr':lrs, name:losses, f'{name}_smooth':losses})

def curve(n=100, turn=0.3, seed=0):
    "A training loss that falls, turns near `turn`, and explodes"
    lrs = np.geomspace(1e-5, 10, n)
    return 2.3 - 1.8/(1+(lrs/(turn/10))**-1.5) + (lrs/turn)**2*0.1 + np.random.default_rng(seed).normal(0, 0.05, n)

# several runs

@pytest.mark.parametrize('make', [fastai_loaders, torch_loaders, lambda: DataLoaders(TorchDL(torch_loaders().train.dataset, 32,
                                  sampler=Shuffler(256)), torch_loaders().valid)], ids=['fastai','torch','sampler'])
def test_several_runs(make):
    learn = learner(make)
    learn.model.drop.p = 0.  # the order of batches is all that differs
    train(learn)
    before = state(learn)
    one,several,again = find(learn),find(learn, n_runs=3),find(learn, n_runs=3)
    assert not diff(before, state(learn))
    assert several.df.run.tolist() == [1]*12+[2]*12+[3]*12 and 'run' not in one.df
    assert repr(several.runs[0][one.df.columns].to_dict()) == repr(one.df.to_dict())
    assert repr(several.df.to_dict()) == repr(again.df.to_dict())
    losses = [o.train_loss.tolist() for o in several.runs]
    assert len({o[0] for o in losses}) == 3  # other batches
    assert several.stopped == 'finished: 12 steps, in each of 3 runs'

def test_several_runs_have_other_random_numbers():
    "Where there is but one order of batches, dropout differs"
    learn = learner(lambda: DataLoaders(Loader().batches, Loader().batches))
    assert len({o.train_loss[0] for o in map(lambda o: o.reset_index(), find(learn, n_runs=3).runs)}) == 3

def test_suggestions_of_several_runs_are_medians():
    learn = learner()
    r = find(learn, 1e-4, 10, 60, n_runs=3, stop_div=True)
    single = [result([o], [''], (valley,minimum), 60) for o in r.runs]
    for k in 'valley','minimum':
        vals = [getattr(o, k) for o in single]
        assert getattr(r, k) == pytest.approx(sorted(vals)[1]) and r.spread[k] == pytest.approx((min(vals),max(vals)))
    r = result([rows(curve(turn=o)) for o in (0.1,1.)], ['finished: 100 steps']*2, (), 100)
    ends = [result([rows(curve(turn=o))], [''], (), 100).peak for o in (0.1,1.)]
    assert r.peak == pytest.approx(np.sqrt(ends[0]*ends[1])) and r.band == pytest.approx(tuple(ends))  # the median of two, in log10

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
    assert r.df.groupby('run').size().tolist() == [12,12,5] and 'run 3: interrupted after 5 steps: KeyboardInterrupt' in r.stopped
    r.plot(); repr(r)

def test_one_bar_over_all_runs(monkeypatch):
    from fastai_clrbeta import lr_find as finder
    seen = []
    class Bar:
        def __init__(self, gen, **kwargs): seen.append(len(gen))
        def update(self, n): seen.append(n)
        def on_iter_end(self): seen.append('end')
    monkeypatch.setattr(finder, 'progress_bar', Bar)
    find(learner(), n_runs=3)
    assert seen == [36, *range(37), 'end']
    seen.clear()
    learn = learner()
    with learn.no_mbar(): find(learn)
    assert not seen

def test_bad_number_of_runs():
    for n in 0,1.5,None,True:
        with pytest.raises(ValueError, match='n_runs'): find(learner(), n_runs=n)

# BatchNorm's two faces

class Norms(nn.Module):
    def __init__(self, norm): super().__init__(); self.c,self.norm,self.drop,self.head = nn.Conv2d(3,8,3,2,1),norm,nn.Dropout(0.5),nn.Linear(8*16,10)
    def forward(self, x): return self.head(self.drop(self.norm(self.c(x)).relu().flatten(1)))

class Flat(nn.Module):
    "A norm for `n` dimensions, in a network of images"
    def __init__(self, norm, n): super().__init__(); self.norm,self.n = norm,n
    def forward(self, x): return self.norm(x.flatten(2) if self.n==1 else x[:,:,None]).view_as(x)

class Own(nn.BatchNorm2d):
    "Somebody's own, which needs its running averages"
    def forward(self, x):
        dims,shape = (0,2,3),(1,-1,1,1)
        if self.training: self.running_mean.lerp_(x.detach().mean(dims), 0.1); self.running_var.lerp_(x.detach().var(dims), 0.1)
        m,v = (x.mean(dims),x.var(dims, unbiased=False)) if self.training else (self.running_mean,self.running_var)
        return (x-m.view(shape))/(v.view(shape)+1e-5).sqrt()

norms = dict(bn2d=lambda: nn.BatchNorm2d(8), fastai=lambda: BatchNorm(8), zero=lambda: BatchNorm(8, norm_type=NormType.BatchZero), own=lambda: Own(8),
    sync=lambda: OnCPU(8), bn1d=lambda: Flat(nn.BatchNorm1d(8), 1), bn3d=lambda: Flat(nn.BatchNorm3d(8), 3),
    inst=lambda: nn.InstanceNorm2d(8, track_running_stats=True), inst1d=lambda: Flat(nn.InstanceNorm1d(8, affine=True, track_running_stats=True), 1),
    lazy=lambda: nn.LazyBatchNorm2d())

models = []
class KeepModel(Callback):
    "Copies of the model after each step, with the averages that it has then"
    run_valid = False
    def after_step(self): models.append(deepcopy(self.model))

class OnCPU(nn.SyncBatchNorm):
    "Trains on a CPU, as torch's doesn't"
    def forward(self, x):
        if not self.training: return super().forward(x)
        assert torch.is_grad_enabled()  # while measuring, it would wait for other processes
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, True, 0.1)
OnCPU.__module__ = 'torch.nn'  # it's to be taken for torch's own

@pytest.mark.parametrize('make', norms.values(), ids=norms)
def test_both_faces(make):
    learn = learner(torch_loaders, cbs=KeepModel())
    learn.model = model = Norms(make())
    model(torch.randn(2,3,8,8))
    models.clear()
    before = [o.clone() for o in model.state_dict().values()]
    both,running,batch = [find(learn, 1e-3, 1, bn=o) for o in ('both','running','batch')]
    assert all(torch.equal(a, b) for a,b in zip(before, model.state_dict().values()))
    # by hand
    valid = itertools.cycle(list(learn.dls.valid))
    for i,m in enumerate(models[-12:]):
        x,y = next(valid)
        m.eval()
        with torch.no_grad(): want = F.cross_entropy(m(x), y)
        assert running.df.valid_loss[i] == pytest.approx(want.item(), rel=1e-5)
        for o in m.modules():
            if isinstance(o, nn.modules.batchnorm._NormBase): o.train()
        p = m(x)
        assert batch.df.valid_loss[i] == pytest.approx(F.cross_entropy(p, y).item(), rel=1e-4)
        assert batch.df.accuracy[i] == pytest.approx((p.argmax(1)==y).float().mean().item())
    assert not np.allclose(running.df.valid_loss, batch.df.valid_loss)
    # the same columns, with the same values, whatever else is measured
    assert list(batch.df.columns) == list(running.df.columns)
    for k in running.df: assert both.df[k].equals(running.df[k]), k
    for k in 'valid_loss','accuracy':
        for o in '','_smooth','_centred': assert both.df[f'{k}_batch{o}'].equals(batch.df[f'{k}{o}'])
    assert (both.bn, len(both.plot())) == ('both', 3)

def test_a_network_without_batchnorm_has_one_face():
    learn = learner()
    learn.model.body[1] = nn.GroupNorm(2,8)
    running,batch,both = [find(learn, bn=o).df for o in ('running','batch','both')]
    assert running.equals(batch)
    assert both.valid_loss.equals(both.valid_loss_batch) and both[running.columns].equals(running)

def test_frozen_batchnorm_keeps_its_averages():
    learn = learner(cbs=BnFreeze())
    learn.model.body[1].requires_grad_(False)
    both = find(learn, bn='both').df
    assert both.valid_loss.equals(both.valid_loss_batch)

def test_bad_bn():
    learn = learner()
    before = state(learn)
    for bn in 'eval',None,True,3:
        with pytest.raises(ValueError, match='bn='): find(learn, bn=bn)
    assert not diff(before, state(learn))

@pytest.mark.filterwarnings('ignore')
def test_scripted_batchnorm_is_refused():
    learn = learner()
    learn.model.body[1] = torch.jit.script(nn.BatchNorm2d(8))
    for bn in 'batch','both':
        with pytest.raises(ValueError, match="body.1 is scripted .* bn='running'"): find(learn, bn=bn)

def test_a_validation_batch_of_one_has_no_statistics():
    ds = [(torch.randn(4), torch.tensor(i%3)) for i in range(9)]
    dls = DataLoaders(DataLoader(ds, bs=3), DataLoader(ds, bs=4), device='cpu')
    learn = Learner(dls, nn.Sequential(nn.Linear(4,3), nn.BatchNorm1d(3)), loss_func=F.cross_entropy, opt_func=sgd, metrics=accuracy)
    with pytest.warns(UserWarning, match='a validation mini-batch of one item'): df = find(learn, bn='both').df
    gone = [i%3==2 for i in range(12)]
    assert df.valid_loss.notna().all()
    for k in 'valid_loss_batch','accuracy_batch','valid_loss_batch_smooth','valid_loss_batch_centred': assert df[k].isna().tolist() == gone

def test_each_face_costs_one_forward_pass():
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
    def one(bn):
        learn.dls.loaders[1] = [(torch.ones(32,3,8,8), torch.arange(32)%10)]
        return find(learn, bn=bn).df.iloc[0]
    both = one('both')
    assert both.valid_loss == one('running').valid_loss and both.valid_loss_batch == one('batch').valid_loss

# callbacks that act

def test_short_epochs():
    "`ShortEpochCallback` ends an epoch after a step, and validation after a mini-batch"
    a,b = learner(),learner(cbs=ShortEpochCallback(0.5))
    r = find(b)
    assert r.stopped == 'finished: 12 steps' and len(r.df) == 12 and r.df.valid_loss.notna().all()
    np.testing.assert_array_equal(r.df.lr, find(a).df.lr)
    used = []
    class Watch(Callback):
        def before_step(self): used.append(self.opt.hypers[-1]['lr'])
    b = learner(cbs=[ShortEpochCallback(0.5), Watch()])
    assert find(b).df.lr.tolist() == used  # no step that isn't in the table

@pytest.mark.parametrize('exc', [CancelBatchException, CancelValidException])
def test_a_validation_batch_that_is_left_out(exc):
    class Skip(Callback):
        def before_batch(self):
            if not self.training: raise exc()
    with pytest.warns(UserWarning, match='leaves out validation mini-batches'): r = find(learner(cbs=Skip()))
    assert len(r.df) == 12 and r.df.valid_loss.isna().all() and r.df.accuracy.isna().all()
    r.plot()

def test_the_learning_rate_that_was_used():
    class Half(Callback):
        order = 70
        def before_step(self):
            self.opt.set_hyper('lr', self.opt.hypers[-1]['lr']/2)
    for opt_func in sgd,Adam:
        with pytest.warns(UserWarning, match='a callback replaces the learning rates'): r = find(learner(cbs=Half(), opt_func=opt_func))
        np.testing.assert_allclose(r.df.lr, np.geomspace(1e-3, 1, 13)[:-1]/2)
    learn = learner(cbs=Half())
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='a callback replaces')
        learn.remove_cb(Half)
        find(learn)

def test_ratios_of_the_opt_func():
    seen = []
    class See(Callback):
        def before_step(self): seen.append([h['lr'] for h in self.opt.hypers])
    split = lambda m: [params(m.body), params(m.head)]
    learn = learner(splitter=split, opt_func=partial(Adam, lr=slice(1e-4,1e-2)), cbs=See())
    r = find(learn)
    np.testing.assert_allclose(seen, [[0.01*o, o] for o in r.df.lr])

# learners and data that need care

def test_lazy_modules_are_refused():
    learn = learner()
    learn.model = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
    for f in learn.lr_find_val, partial(learn.lr_find_sweep, wd=[0,1e-2]):
        with pytest.raises(ValueError, match='1.weight has no shape yet.*one_batch'): f(num_it=12, show_plot=False)
    learn.model(learn.dls.one_batch()[0].cpu())
    assert len(find(learn).df) == 12

@pytest.mark.parametrize('freeze,cbs,ok', [(True,BnFreeze,True), (True,None,False), (False,BnFreeze,False)])
def test_a_batch_of_one_and_frozen_batchnorm(freeze, cbs, ok):
    ds = [(torch.randn(4), torch.tensor(i%3)) for i in range(9)]
    dls = DataLoaders(DataLoader(ds, bs=1), DataLoader(ds, bs=3), device='cpu')
    learn = Learner(dls, nn.Sequential(nn.Linear(4,3), nn.BatchNorm1d(3)), loss_func=F.cross_entropy, opt_func=sgd, cbs=cbs)
    if freeze: learn.model[1].requires_grad_(False)
    before = [o.clone() for o in learn.model.state_dict().values()]
    if ok: assert len(find(learn).df) == 12
    else:
        with pytest.raises(ValueError, match='one item .*batch size 1, 9 items'): find(learn)
    assert all(torch.equal(a, b) for a,b in zip(before, learn.model.state_dict().values()))

@pytest.mark.parametrize('shift', [-3, -2.3, -1])
def test_negative_losses(shift):
    learn = learner(loss_func=lambda p,y: F.cross_entropy(p, y)+shift)
    r = find(learn, 1e-4, 1e-1, 30, stop_div=True)
    assert r.stopped == 'finished: 30 steps'
    r = find(learn, 1e-2, 1e4, 60, stop_div=True)
    assert 'diverged' in r.stopped and len(r.df) > 10
    # no worse than losses that are not shifted
    assert len(r.df) <= len(find(learner(), 1e-2, 1e4, 60, stop_div=True).df)+5

def test_a_sweep_interrupted_before_its_first_step():
    class AtOnce(Callback):
        def before_fit(self): raise CancelFitException
    for cb in AtOnce(),Stop('before_batch', CancelFitException, 1):
        learn = learner(cbs=cb)
        s = learn.lr_find_sweep(wd=[1e-2,1e-4], num_it=12, show_plot=False)
        assert len(s.table) == 2 and s.table.min_loss.isna().all() and len(s.df) == 0
        s.plot(); repr(s)
    learn = learner(cbs=Stop('before_batch', KeyboardInterrupt, 1))
    with pytest.raises(KeyboardInterrupt): learn.lr_find_sweep(wd=[1e-2,1e-4], num_it=12)
    assert learn.lr_find_sweep_result is None

@pytest.mark.parametrize('names', [['lr'], ['run'], ['train_loss'], ['valid_loss'], ['dice_smooth'], ['dice','dice_smooth'], ['dice_smooth','dice'],
                                   ['a','a','a_2'], ['a','a_batch'], ['a_batch'], ['a_centred','a']])
def test_metrics_of_any_name(names):
    mets = [AvgMetric(lambda p,y,i=i: tensor(float(i))) for i in range(len(names))]
    for m,name in zip(mets, names): m.func.__name__ = name
    learn = learner(metrics=mets)
    r = find(learn, n_runs=2, bn='both')
    assert r.df.columns.is_unique and r.df.lr.iloc[0] == 1e-3 and r.df.train_loss[0] > 1
    cols = [o for o in r.df if f'{o}_smooth' in r.df and not o.startswith(('train_loss','valid_loss')) or o in ('train_loss_2','valid_loss_2')]
    cols = [o for o in cols if not f'{o}'.endswith('_batch') or o.removesuffix('_batch') not in cols]
    assert [r.df[o].iloc[0] for o in cols] == list(range(len(names)))
    assert len(r.plot()) == 2+len(names)

def test_the_real_error_is_told(monkeypatch):
    from fastai_clrbeta import lr_find as finder
    def broken(*args, **kwargs): raise RuntimeError('while the result was made')
    monkeypatch.setattr(finder, 'lr_find_result', broken)
    learn = learner(cbs=Stop('before_step', KeyboardInterrupt))
    before = state(learn)
    with pytest.raises(KeyboardInterrupt): find(learn)
    assert not diff(before, state(learn))

# curves, peak, picture

def test_curves_without_lag():
    learn = learner()
    r = find(learn, 1e-4, 1e4, 100, bn='both')  # far into the explosion
    names = ['train_loss','valid_loss','accuracy','valid_loss_batch','accuracy_batch']
    assert list(r.df.columns[-5:]) == [f'{o}_centred' for o in names]
    from fastai_clrbeta.peak import centred
    for k in names: np.testing.assert_array_equal(r.df[f'{k}_centred'], centred(r.df[k], 100, 'loss' in k))
    low = r.df.train_loss_centred.idxmin()
    assert r.df.train_loss_centred[low] < 1.2*r.df.train_loss[max(0,low-3):low+4].max() and low < r.df.train_loss_smooth.idxmin()

@pytest.mark.parametrize('end', [[nan]*10, [math.inf]*10, list(np.geomspace(100, 1e12, 10)), [1e5,nan]*5])
def test_an_explosion_does_not_reach_back(end):
    from fastai_clrbeta.peak import centred
    calm = curve()[:80]
    got,want = centred([*calm,*end], 100),centred(calm, 100)
    np.testing.assert_allclose(got[:80], want, rtol=0.1)
    np.testing.assert_allclose(got[:75], want[:75], rtol=0.005)

def test_one_spike_is_no_turn():
    from fastai_clrbeta.peak import centred
    spiked = curve(); spiked[45] += 50
    np.testing.assert_allclose(centred(spiked), centred(curve()), atol=0.1)

@pytest.mark.parametrize('losses,msg', [(curve()[:60],'raise end_lr'), (np.full(100, 2.),'never falls'), (curve()[:8],'only 8 steps'),
    (2+np.random.default_rng(0).normal(0, 0.1, 100),'never falls'), ([nan]*100,'only 0 steps')])
def test_where_the_test_cannot_tell(losses, msg):
    r = result([rows(losses)], [''], (), len(losses))
    assert r.peak is None and msg in r.why and f'no peak: {r.why}' in repr(r)
    r.plot()

def test_peak():
    "Ten times the turn is ten times the peak; Adam's is lower; few steps and many agree"
    peaks = {t:result([rows(curve(turn=t))], [''], (), 100) for t in (0.03,0.3)}
    assert 5 < peaks[0.3].peak/peaks[0.03].peak < 20
    assert 'at its floor' in peaks[0.3].why and peaks[0.3].band[0] < peaks[0.3].band[1]
    assert result([rows(curve())], [''], (), 100, adaptive=True).peak < peaks[0.3].peak
    assert abs(np.log10(result([rows(curve(1000))], [''], (), 1000).peak/peaks[0.3].peak)) < 0.3

def test_adam_is_known(monkeypatch):
    from fastai_clrbeta.lr_find import _is_adaptive as adaptive
    from torch import optim
    p = [nn.Parameter(torch.zeros(1))]
    torchs = lambda *os: [partial(OptimWrapper, opt=o) for o in os]
    for f in SGD,partial(SGD, mom=0.9),sgd,Larc,*torchs(optim.SGD, optim.ASGD): assert not adaptive(f(p, lr=0.1)), f
    for f in Adam,RAdam,QHAdam,Lamb,RMSProp,ranger,*torchs(optim.AdamW, optim.RMSprop, optim.Adagrad): assert adaptive(f(p, lr=0.1)), f
    funcs = peak,valley
    for opt_func,want in (sgd,False),(Adam,True):
        seen = []
        def spy(tables, stops, funcs, num_it, adaptive, **kwargs):
            seen.append(adaptive)
            return result(tables, stops, funcs, num_it, adaptive, **kwargs)
        monkeypatch.setattr('fastai_clrbeta.lr_find.lr_find_result', spy)
        find(learner(opt_func=opt_func), suggest_funcs=funcs)
        assert seen == [want]

def test_peak_in_stock_lr_find(tmp_path):
    kw = dict(start_lr=1e-5, end_lr=10, num_it=100)
    a,b = learner(path=tmp_path),learner()
    set_seed(0); ours = b.lr_find_val(**kw, show_plot=False)
    set_seed(0); stock = a.lr_find(**kw, suggest_funcs=(peak,valley))
    assert stock._fields == ('peak','valley')
    assert ours.peak and abs(np.log10(stock.peak/ours.peak)) < 0.2
    a.lr_find(1e-7, 1e-6, 50, suggest_funcs=(peak,))  # no signal: drawn all the same
    plt.close('all')

def test_default_and_other_peaks():
    learn = learner()
    kw = dict(start_lr=1e-4, end_lr=10, num_it=100)
    a,b,c = find(learn, **kw),find(learn, **kw, suggest_funcs=None),find(learn, **kw, suggest_funcs=partial(peak, adaptive=True))
    assert next(iter(a.found)) == 'peak' and a.found['peak'] == a.peak == a.suggestions.peak and a.peak > 0
    assert (b.peak, b.found) == (a.peak, {}) and c.found == {'peak':c.peak} and c.peak < a.peak

def test_picture():
    learn = learner()
    r = find(learn, 1e-4, 1e3, 100)
    line = lambda **kw: r.plot(**kw)[1].get_lines()[0].get_ydata()
    cut = slice(10,95)
    for smooth,col in [('centred','_centred'), ('legacy','_smooth'), (True,'_smooth'), (False,''), (None,'')]:
        np.testing.assert_array_equal(line(smooth=smooth), r.df['valid_loss'+col][cut].dropna())
    np.testing.assert_array_equal(line(), r.df.valid_loss_centred[cut].dropna())
    for bad in 'yes',2,'':
        with pytest.raises(ValueError, match='smooth='): r.plot(smooth=bad)
    for ax,k in zip(r.plot(), ['train_loss','valid_loss','accuracy']):
        lo,hi = ax.get_ylim()
        raw = r.df[k][cut]
        told = ax.texts[0].get_text()
        assert told == ', '.join([f'↑ {(raw>hi).sum()} above']*bool((raw>hi).any()) + [f'↓ {(raw<lo).sum()} below']*bool((raw<lo).any())
                                 + [f'{raw.isna().sum()} not a number']*bool(raw.isna().any()))
        low = r.df[f'{k}_centred'][cut].min()
        assert lo < low < hi
        if k=='train_loss': assert hi < 10  # it explodes to more than that
    assert r.df.train_loss.max() > 10 and 'above' in r.plot()[0].texts[0].get_text()
    plt.close('all')

def test_suggestions_never_fail_and_are_fast():
    from fastai_clrbeta.results import suggest
    funcs = valley,minimum,steep,slide
    for n in range(0,40):
        for ys in [np.linspace(1,2,n), np.full(n,nan), np.r_[np.linspace(1,2,n//2), np.full(n-n//2,nan)], np.ones(n)]:
            res = suggest(funcs, np.logspace(-5,1,n), ys, n)
            assert all(isinstance(o, str) or math.isfinite(o) for o in res.values()) and len(res) == 4
            result([rows(ys)], [''], (peak,*funcs), n).plot(); plt.close('all')
    t = time.time()
    suggest(funcs, np.logspace(-5,1,5000), np.sin(np.linspace(0,9,5000))+np.random.rand(5000), 5000)
    assert time.time()-t < 5  # the requirement is one second on an idle machine

# results travel

def test_a_pickle_of_the_first_version():
    "Of the class at its old place, with a text or a tuple for each suggestion"
    df = rows(curve()).assign(valid_loss=1., valid_loss_smooth=1.)
    old = {'valley':(0.1,(0.1,2.)), 'slide':'it is nan'}
    class Old:
        def __reduce__(self): return object.__new__,(LRFind,),dict(df=df, stopped='finished: 100 steps', found=old, linear=False)
    txt = pickle.dumps(Old(), protocol=2)
    at = b'cfastai_clrbeta.results\nLRFind'
    assert at in txt
    r = pickle.loads(txt.replace(at, b'cfastai_clrbeta.lr_find\nLRFind'))
    assert type(r) is LRFind and r.valley == 0.1 and r.suggestions.slide is None and r.reasons == {'slide':'it is nan'}
    assert r.peak is None and 'no `peak`' in r.why
    assert len(r.plot()) == 2 and r.df.train_loss.equals(df.train_loss) and repr(r) and len(r.runs) == 1
    again = pickle.loads(pickle.dumps(r))
    assert repr(again) == repr(r)
    plt.close('all')

def test_results_are_copied():
    r = find(learner(), n_runs=2)
    for o in copy(r),deepcopy(r),pickle.loads(pickle.dumps(r)): assert repr(o) == repr(r) and type(o) is LRFind and o.df.equals(r.df)

# a bar is on

script = '''
from test_found import *
learn = learner()
r = learn.lr_find_val(1e-3, 1, 12, n_runs=2, show_plot=False)
learn.lr_find_sweep(wd=[0,1e-2], num_it=12, show_plot=False)
learn.add_cb(Stop('before_step', KeyboardInterrupt))
try: learn.lr_find_val(num_it=12)
except KeyboardInterrupt: print('DONE', len(r.df), len(learn.lr_find_result.df))
'''

@pytest.mark.parametrize('where', ['pipe','terminal'])
def test_with_a_progress_bar(where):
    cmd = [sys.executable, '-W', 'ignore', '-c', script]
    kw = dict(cwd=root/'tests', env={**os.environ, 'PYTHONPATH':str(root), 'TERM':'xterm'})
    if where=='pipe': out = subprocess.run(cmd, capture_output=True, text=True, check=True, **kw).stdout
    else:
        master,slave = pty.openpty()
        p = subprocess.Popen(cmd, stdout=slave, stderr=slave, **kw)
        os.close(slave)
        out = b''
        with suppress(OSError):
            while o := os.read(master, 4096): out += o
        assert p.wait() == 0, out.decode()
        out = out.decode()
        assert '[24/24' in out
    assert 'DONE 24 4' in out

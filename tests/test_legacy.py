"Lines of fastai 0.7 on today's Learner: the older triangle, `learn.sched`, the range test, and the patch"
import importlib, pickle
from functools import wraps
import pytest
from fastai.test_utils import synth_learner
from fastcore.test import test_close as close
from fastai_clrbeta.all import *
from helpers import CrashAt

@pytest.fixture(autouse=True)
def legacy():
    "The module, whose import patches `Learner`; the patch is taken back"
    from fastai_clrbeta import legacy
    legacy.repatch()
    yield legacy
    legacy.unpatch()

def toy(**kwargs):
    set_seed(0)
    learn = synth_learner(n_trn=20, **kwargs)
    learn.opt_func,learn.metrics = sgd,L(mae).map(mk_metric)
    return learn

def fit(learn, *args, **kwargs):
    with learn.no_bar(), learn.no_logging(): return learn.fit(*args, **kwargs)

def find(learn, *args, **kwargs):
    with learn.no_bar(): learn.lr_find2(*args, **kwargs)

@pytest.mark.parametrize('nb,div,cut_div', [(97,10,8), (8,4,8), (30,20,3.5), (7,2,1)])
def test_the_triangle_counts_as_in_2018(nb, div, cut_div, legacy):
    "Rate first, counter on, then momentum"
    cb,cut,count = legacy.CLR(div, cut_div, 0.95, 0.8),int(nb//cut_div),0
    for i in range(2*nb):
        up = count/cut if count <= cut else 1-(count-cut)/(nb-cut)
        close(cb.lr_at(i, nb), (1+up*(div-1))/div, 1e-12)
        count = (count+1)%nb
        back = 1-count/cut if count <= cut else (count-cut)/(nb-cut)
        close(cb.mom_at(i, nb), 0.8+back*(0.95-0.8), 1e-12)

def test_points_of_the_triangle(legacy):
    assert [legacy.CLR(4).lr_at(i, 80) for i in (0,10,45,80)] == [0.25,1,0.625,0.25]
    with pytest.raises(ValueError, match='at least 8 steps'): legacy.CLR(4, 8).lr_at(0, 7)
    cb = pickle.loads(pickle.dumps(legacy.CLR(4, 6, 0.9, 0.8)))
    assert (cb.div, cb.cut_div, cb.mom_max, cb.mom_min) == (4,6,0.9,0.8)

@pytest.mark.parametrize('kw', [
    dict(div=0), dict(cut_div=0.5), dict(cut_div='8'), dict(mom_max=0.9), dict(mom_max=0.8, mom_min=0.9)])
def test_a_bad_triangle_is_refused(kw, legacy):
    with pytest.raises(ValueError, match=first(kw)): legacy.CLR(**kw)

def test_the_record_of_a_fit():
    learn = toy()
    res = fit(learn, 0.01, 3, wds=1e-4, cycle_len=2, use_clr_beta=(10,13.68,0.95,0.8))
    s,values = learn.sched,learn.recorder.values
    close(s.lrs, [0.01*clr_beta_lr(i, 40, 10, 13.68) for i in range(120)], 1e-12)
    close(s.momentums, [clr_beta_mom(i, 40, 13.68, 0.95, 0.8) for i in range(120)], 1e-12)
    assert s.iterations == [*range(1,121)] and list(s.epochs) == [*range(20,121,20)] and len(s.losses) == 120
    assert res == list(values[-1])[1:]
    assert s.val_losses == [o[1] for o in values] and s.rec_metrics == [o[2] for o in values]
    assert len(s.plot_lr()) == 2 and s.plot_loss()
    assert {type(o) for k in ('lrs','losses','val_losses') for o in getattr(s, k)} == {float}
    pickle.loads(pickle.dumps(s))

def test_it_is_fit_clr_beta_with_a_new_optimiser_each_time():
    a,b = toy(),toy()
    for learn,f in (a,a.fit),(b,b.fit_clr_beta):
        set_seed(0)
        for _ in range(2):
            with learn.no_bar(), learn.no_logging():
                f(0.01, 1, cycle_len=1, wds=1e-3, use_clr_beta=(10,10,0.9,0.8), reset_opt=True)
    assert a.model.a.equal(b.model.a)
    opt = a.opt
    fit(a, 0.01, 1, wds=0.)
    assert a.opt is not opt

def test_use_clr_and_a_constant_rate(legacy):
    learn = toy()
    fit(learn, 0.01, 2, cycle_len=2, use_clr=(4,8))
    close(learn.sched.lrs, [0.01*legacy.CLR(4,8).lr_at(i, 40) for i in range(80)], 1e-12)
    assert len(learn.sched.plot_lr()) == 1
    fit(learn, 0.01, 2, cycle_len=2, use_clr=(4,8,0.95,0.85))
    moms = [legacy.CLR(4,8,0.95,0.85).mom_at(i, 40) for i in range(80)]
    close(learn.sched.momentums, moms, 1e-12)
    res = fit(learn, 0.01, 3, wds=1e-2, metrics=[mae,rmse])
    assert learn.sched.lrs == [0.01]*60 and learn.opt.hypers[-1]['wd'] == 1e-2 and len(res) == 3
    assert learn.metrics.attrgot('name') == ['mae']
    learn.metrics = []
    res = fit(learn, 0.01, 1, wds=None)
    assert (len(res), learn.sched.rec_metrics, learn.opt.hypers[-1]['wd']) == (1,[],0)

def test_callbacks_and_names_to_save_under(tmp_path):
    class Count(Callback):
        n = 0
        def after_step(self): self.n += 1
    learn,cb = toy(path=tmp_path),Count()
    names = dict(cycle_save_name='c', best_save_name='b')
    fit(learn, 0.01, 2, cycle_len=1, use_clr_beta=(10,10), callbacks=cb, **names)
    assert sorted(o.stem for o in tmp_path.glob('models/*')) == ['b','c_cyc_0','c_cyc_1'] and cb.n == 40

def test_an_optimiser_without_weight_decay_and_no_validation_set():
    learn = toy()
    learn.opt_func = partial(OptimWrapper, opt=torch.optim.Rprop)
    fit(learn, 0.01, 1, cycle_len=1, use_clr_beta=(10,10))
    learn = toy()
    learn.dls = DataLoaders(learn.dls.train)
    assert fit(learn, 0.01, 1, cycle_len=1, use_clr_beta=(10,10)) == [] and learn.sched.val_losses == []

def test_an_interrupt_keeps_the_record():
    learn = toy()
    with pytest.raises(KeyboardInterrupt):
        fit(learn, 0.01, 1, cycle_len=1, use_clr_beta=(10,10), cbs=CrashAt('after_batch', 7))
    assert (len(learn.sched.lrs), learn.sched.val_losses) == (7, [])

shape = 10,10
refused = [
    (dict(cycle_len=1), r'fit_sgdr\(2, 1, lr_max=0.1, cycle_mult=1\)'),
    (dict(cycle_mult=2), 'cycle_mult=2'),
    (dict(cycle_len=3, cycle_mult=2), r'fit_sgdr\(2, 3'),
    (dict(cycle_len=1, cycle_mult=2, use_clr_beta=shape), 'fit_sgdr'),
    (dict(use_clr_beta=shape), 'use_clr_beta needs a cycle_len'),
    (dict(use_clr=(4,8)), 'use_clr needs'),
    (dict(cycle_len=1, use_clr=(4,8), use_clr_beta=shape), 'only one of them'),
    (dict(cycle_len=0, use_clr_beta=shape), 'cycle_len=0'),
    (dict(cycle_len=1, use_clr=(4,8,0.9)), 'it must be'),
    (dict(cycle_len=1, use_clr=(4,30)), '30 steps'),
    (dict(cycle_len=1, use_clr_beta=(10,10,0.9)), 'it must be'),
    (dict(use_swa=True), 'use_swa of fastai 0.7 is not supported'),
    (dict(use_wd_sched=True), 'use_wd_sched'),
    (dict(wds=1e-4, callbacks=3), 'is not a Callback')]

def test_a_refused_call_changes_nothing():
    learn = toy()
    fit(learn, 0.01, 1, wds=0.)
    sched,weights = learn.sched,learn.model.a.item()
    for kw,msg in refused:
        with pytest.raises(ValueError, match=msg): fit(learn, 0.1, 2, **kw)
        assert learn.sched is sched and learn.model.a.item() == weights

def test_keywords_that_are_not_of_0_7():
    learn = toy()
    with pytest.raises(TypeError, match='weight decay is wds'): fit(learn, 0.1, 2, cycle_len=1, wd=0.1)
    with pytest.raises(TypeError, match=r'fit.0.1, 2.: without a keyword.*0.1 is not a number of epochs'):
        fit(learn, 0.1, 2)
    with pytest.raises(TypeError, match='nonsense'): fit(learn, 0.1, 2, wds=0.1, nonsense=1)

def test_the_record_of_a_range_test():
    learn = toy()
    learn.metrics = [mae,rmse]
    find(learn, 1e-4, 10, num_it=100, wds=1e-4)
    s = learn.sched
    n = len(s.lrs)
    assert len(s.losses) == s.iterations[-1] == len(s.val_losses) == len(s.rec_metrics) == n
    assert len(s.rec_metrics[0]) == 2 and s.val_losses == learn.lr_find_result.df.valid_loss.tolist()
    assert s.epochs == [*range(20, n+1, 20)] and s.momentums == []
    assert len(s.plot_lr()) == 1 and len(s.plot(smoothed=False)) == 4 and s.plot_loss()
    pickle.loads(pickle.dumps(s)).plot()
    with pytest.raises(ValueError, match='start_lr'): find(learn, 10, 1)
    assert learn.sched is s

def test_a_linear_search_starts_at_0():
    "By whatever ratios the groups have"
    learn = toy()
    find(learn, 0.1, 1., num_it=10, linear=True)
    close(learn.sched.lrs, [i/10 for i in range(10)])
    class Watch(Callback):
        seen = []
        def before_step(self): self.seen.append([h['lr'] for h in self.opt.hypers])
    learn.splitter = lambda m: [[m.a],[m.b]]
    learn.create_opt()
    with learn.added_cbs(Watch()): find(learn, [0.01,0.1], 1., num_it=10, linear=True)
    close(Watch.seen, [[i/100,i/10] for i in range(10)])

def test_a_loader_without_a_length():
    class NoLen:
        def __init__(self, dl): self.dl = dl
        def __iter__(self): return iter(self.dl)
    learn = toy()
    learn.dls.loaders[0] = NoLen(learn.dls.train)
    find(learn, num_it=10)
    assert (len(learn.sched.lrs), learn.sched.epochs) == (10, [])

def test_the_patch_comes_and_goes(legacy):
    legacy.unpatch()
    stock = Learner.fit
    assert not hasattr(Learner, 'lr_find2') and not hasattr(Learner, 'sched')
    legacy.unpatch()
    legacy.repatch()
    legacy.repatch()
    assert Learner.fit is not stock and inspect.signature(Learner.fit) == inspect.signature(stock)
    a,b = toy(),toy()
    set_seed(1)
    assert fit(a, 2, 0.01, 1e-3) is None and a.sched is None
    legacy.unpatch()
    assert Learner.fit is stock
    set_seed(1)
    fit(b, 2, 0.01, 1e-3)
    assert a.model.a.equal(b.model.a)

@pytest.fixture
def stock(legacy):
    legacy.unpatch()
    yield Learner.fit
    legacy.unpatch()

def test_the_patch_of_another_package_before_ours(legacy, stock, monkeypatch):
    calls,learn = [],toy()
    def other(self, *args, **kwargs):
        calls.append(kwargs)
        return stock(self, *args, **kwargs)
    monkeypatch.setattr(Learner, 'fit', other)
    legacy.repatch()
    fit(learn, 0.01, 1, wds=0.1)
    fit(learn, 1, lr=0.01)
    assert len(calls) == 2
    legacy.unpatch()
    assert Learner.fit is other

def test_the_patch_of_another_package_after_ours(legacy, stock, monkeypatch):
    learn = toy()
    monkeypatch.setattr(Learner, 'fit', stock)
    legacy.repatch()
    ours = Learner.fit
    @wraps(ours)
    def theirs(self, *args, **kwargs): return ours(self, *args, **kwargs)
    Learner.fit = theirs
    fit(learn, 0.01, 1, wds=0.1)
    legacy.unpatch()
    assert Learner.fit is theirs
    with pytest.raises(TypeError, match='wds'): fit(learn, 1, 0.01, wds=0.1)
    fit(learn, 1, 0.01)
    legacy.repatch()
    fit(learn, 0.01, 1, wds=0.1)
    legacy.unpatch()

def test_the_module_can_be_imported_again(legacy, stock):
    importlib.reload(importlib.reload(legacy))
    fit(toy(), 0.01, 1, wds=0.1)
    legacy.unpatch()
    assert Learner.fit is stock

"Short cycles that decide about the peak: what they train, that they leave no trace, and rough use of them"
import sys
import pytest
from fastai_clrbeta.all import *
from fastai_clrbeta.peak import Peak, candidates
from fastai_clrbeta.lr_search import Steps
from fastai_clrbeta.trials import cycle_of
from searches import *

# what a trial trains

seen = []  # not an attribute, which would be restored

class Watch(Callback):
    "Rates, momentum and loss of each training step"
    def after_batch(self):
        if not self.training: return
        hypers = self.opt.hypers
        seen.append((self.loss.item(), [h['lr'] for h in hypers], hypers[-1].get('mom')))

def forty_batches():
    dls = digits_dls(bs=8, size=8, seed=0)
    dls.train.n = 320
    return dls

fastai_sgd = partial(SGD, mom=0.9)
halves = dict(opt_func=fastai_sgd, lr=slice(0.05,0.1), splitter=lambda m: [params(m.body), params(m.head)])
setups = dict(
    sgd     = (dict(), 0.05, {}),
    adam    = (dict(opt_func=Adam), 0.05, {}),
    trained = (dict(opt_func=Adam), 0.05, {}),
    no_mom  = (dict(opt_func=SGD), 0.05, dict(use_clr_beta=(10,13.68))),
    slices  = (halves, [0.025,0.05], {}),
    decay   = (dict(wd=0.1), 0.05, dict(wd=0.3)),
    clipped = (dict(cbs=GradientClip(0.1)), 0.05, {}))

@pytest.mark.parametrize('setup', setups)
def test_a_trial_trains_as_a_cycle_of_as_many_steps_does(setup, monkeypatch):
    "Bit for bit: losses, rates and momentum, with dropout and BatchNorm"
    monkeypatch.setattr('fastai_clrbeta.lr_find.trial_steps', 40)
    of_learner,lrs,of_fit = setups[setup]
    steps = []
    for is_trial in True,False:
        learn = learner(forty_batches, **of_learner)
        if setup == 'trained': train(learn)
        learn.add_cb(Watch())
        seen.clear()
        wd = dict(wd=of_fit['wd']) if 'wd' in of_fit else {}
        if is_trial: found = find(learn, trials=[0.05], **wd)
        else:
            with learn.no_bar(), learn.no_logging(): learn.fit_clr_beta(lrs, **of_fit)
        steps.append(seen[-40:])
    assert steps[0] == steps[1] and len(steps[0]) == 40
    losses,rates,momenta = zip(*steps[0])
    trial = found.trials.iloc[0]
    assert trial.train_loss == pytest.approx(np.mean(losses[-4:])) and trial.lr == max(r[-1] for r in rates)
    assert (len(set(momenta)) == 1) == ('use_clr_beta' in of_fit)

def test_a_trial_validates_its_last_steps():
    calls = []
    learn = learner()
    learn.model.register_forward_hook(lambda m,*args: calls.append(m.training))
    found = find(learn, trials=[0.05])
    assert sum(calls) == 12+100 and len(calls)-sum(calls) == 2*12+10
    assert calls[-20:] == [True,False]*10
    alone = found.trials.iloc[0]
    assert list(found.trials.columns) == ['lr','train_loss','valid_loss','steps','stopped']
    assert (alone.lr, alone.steps, alone.stopped) == (0.05, 100, 'finished')
    assert math.isfinite(alone.valid_loss)

def test_a_cycle_keeps_the_settings_of_the_test():
    steps = Steps(lrs=[1.]*50, ratios=[0.1,1.], wd=[0.,0.1], n_batches=150)  # three batches a step
    cycle = cycle_of(steps, 0.2, 20, with_mom=True)
    assert (cycle.ratios, cycle.wd, cycle.n_batches, len(cycle.lrs)) == ([0.1,1.], [0.,0.1], 60, 20)
    assert cycle.lrs == [0.2*clr_beta_lr(i, 20) for i in range(20)] and max(cycle.lrs) == 0.2
    assert cycle.moms == [clr_beta_mom(i, 20) for i in range(20)]
    assert cycle_of(steps, 0.2, 20, with_mom=False).moms is None

# which trials there are

def test_trials_compare_the_peak_with_its_rival(short):
    learn = learner()
    kw = dict(start_lr=1e-5, end_lr=10, num_it=50)
    alone,default,thorough = (find(learn, **kw, trials=o) for o in (False,True,'thorough'))
    best = Peak(alone.peak, alone.why, alone.band, alone.rival)
    assert len(alone.trials) == 0 and alone.df.equals(default.df)
    assert default.trials.lr.tolist() == candidates(best)
    assert thorough.trials.lr.tolist() == candidates(best, thorough=True, usual=thorough.usual)
    assert len(thorough.trials) >= 3
    for r in default,thorough:
        if len(r.trials): assert r.peak == r.trials.lr[r.trials.valid_loss.idxmin()] == r.found['peak']

@pytest.mark.filterwarnings('ignore:there is no validation set')
def test_a_certain_peak_is_not_tried():
    dls = DataLoaders([(torch.ones(2,1), torch.ones(2,1))]*10)
    lrs = np.geomspace(1e-5, 10, 13)[:-1]
    falls_late = np.where(lrs < 0.05, 2., 1.)
    learn = Learner(dls, nn.Linear(1,1), loss_func=Scripted(falls_late), opt_func=sgd)
    r = find(learn, 1e-5, 10, trials=True)  # a trial would find no more losses in the script
    assert len(r.trials) == 0 and r.peak == 0.1 and 0.03 < r.rival <= 0.1

@pytest.mark.parametrize('rates', [np.array([0.01,0.1,0.1]), tensor([0.01,0.1]), (0.01,0.1), {0.01,0.1},
                                   (o for o in (0.01,0.1))], ids=lambda o: type(o).__name__)
def test_rates_of_ones_own(rates, short):
    r = find(learner(), trials=rates)
    assert r.trials.lr.tolist() == pytest.approx([0.1,0.01]) and r.peak in r.trials.lr.tolist()

def test_a_sweep_passes_trials_on(short):
    s = sweep(learner(), wd=[0,1e-2], trials=[0.05])
    assert [o.trials.lr.tolist() for o in s.runs.values()] == [[0.05],[0.05]]
    assert s.table.peak.tolist() == [0.05,0.05]

def test_several_runs_have_one_set_of_trials(short):
    r = find(learner(), n_runs=2, trials=[0.1,0.01])
    assert len(r.trials) == 2 and r.df.run.max() == 2 and r.peak in (0.1,0.01)

# no trace

def accumulating(): return learner(cbs=GradientAccumulation(64))
def frozen():
    learn = groups_learner()
    learn.freeze()
    return learn
def without_valid(): return learner(lambda: DataLoaders(fastai_loaders().train))
def of_torch(opt): return partial(OptimWrapper, opt=opt)

class Stream(torch.utils.data.IterableDataset):
    def __iter__(self): return itertools.cycle(zip(*torch_loaders().train.dataset.tensors))

def streaming(loader): return learner(lambda: DataLoaders(loader, Loader().batches))

learners = dict(
    untrained  = learner,
    sgd        = learner,
    fastai_sgd = partial(learner, opt_func=fastai_sgd),
    adam       = partial(learner, opt_func=Adam),
    torch_adam = partial(learner, opt_func=of_torch(torch.optim.AdamW)),
    loss       = lambda: learner(loss_func=CountingLoss()),
    torch_data = partial(learner, torch_loaders),
    frozen     = frozen,
    slices     = partial(groups_learner, lr=slice(1e-3,1e-1)),
    accumulate = accumulating,
    no_valid   = without_valid,
    stream     = partial(streaming, TorchDL(Stream(), 16)),
    unsized    = partial(streaming, Loader(3)),
    infinite   = partial(streaming, Loader()))

@pytest.mark.filterwarnings('ignore:there is no validation set')
@pytest.mark.parametrize('name', learners)
def test_trials_leave_no_trace(name, short, tmp_path):
    make = learners[name]
    learn = make()
    learn.path = tmp_path
    has_length = not isinstance(learn.dls.train, Loader) and not isinstance(learn.dls.train.dataset, Stream)
    if name != 'untrained' and has_length: train(learn)
    before = state(learn)
    r = find(learn, trials='thorough')
    assert not diff(before, state(learn)) and not list(tmp_path.iterdir())
    assert len(r.trials) >= 3 and set(r.trials.steps) == {12} and set(r.trials.stopped) == {'finished'}
    assert np.isfinite(r.trials.train_loss).all() and r.trials.train_loss.is_unique
    assert r.trials.valid_loss.isna().all() == (make is without_valid)

@pytest.mark.parametrize('setup', [dict(), dict(opt_func=Adam)], ids=['sgd','adam'])
def test_what_follows_is_the_same(setup, short):
    states = []
    for trials in None,[0.1]:
        learn = learner(**setup)
        for _ in range(2):
            if trials: find(learn, trials=trials)
            train(learn)
        states.append(state(learn))
    for k in 'weights buffers hidden calls loss opt hypers rng recorder smooth counters'.split():
        assert repr(states[0][k]) == repr(states[1][k]), k

# interrupted

def stops_at(n, exc):
    "A callback that raises `exc` in the `n`th step of all, whatever is restored in between"
    count = itertools.count(1)
    def before_step(self):
        if next(count) == n: raise exc('stop')
    return type('StopsAt', (Callback,), dict(before_step=before_step))()

@pytest.mark.parametrize('exc', [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize('n,is_trained', [(13,True), (18,False), (30,True)])
def test_an_interrupted_trial_leaves_the_range_test(n, is_trained, exc, short):
    "At the first step of a trial, in its middle, and in the second trial"
    learn = learner()
    if is_trained: train(learn)
    learn.add_cb(stops_at(n, exc))
    before = state(learn)
    with pytest.raises(exc): find(learn, trials=[0.3,0.2])
    assert not diff(before, state(learn))
    r = learn.lr_find_result
    assert r.stopped == 'finished: 12 steps' and r.peak == 0.1 and len(r.trials) == 0 and len(r.plot()) == 3

def test_a_callback_that_ends_each_long_fit(short):
    "Then no trial says anything, and the peak is that of the test"
    learn = learner(cbs=Stop('after_batch', CancelFitException, 13))
    r = find(learn, trials=[0.3,0.2])
    assert len(r.trials) == 2 and r.peak in (0.3,0.2)
    learn = learner(cbs=Stop('after_batch', CancelFitException, 6))
    before = state(learn)
    r = find(learn, trials=[0.3,0.2])
    assert not diff(before, state(learn))
    assert r.stopped == 'stopped by a callback after 5 steps' == r.trials.stopped[0]
    assert r.peak == 0.1 and r.why.endswith('A callback ended every trial.')
    assert r.trials.train_loss.isna().all()
    assert len(r.plot()) == 4 and repr(r)

def test_a_callback_that_ends_one_trial(short):
    r = find(learner(cbs=stops_at(18, CancelFitException)), trials=[0.3,0.2])
    assert r.trials.stopped.tolist() == ['stopped by a callback after 5 steps', 'finished'] and r.peak == 0.2
    assert len(r.plot()) == 4

@pytest.mark.parametrize('exc', [CancelBatchException, CancelTrainException, CancelEpochException])
def test_a_callback_that_skips_a_batch_or_an_epoch(exc, short):
    r = find(learner(cbs=stops_at(18, exc)), trials=[0.3,0.2])
    assert set(r.trials.stopped) == {'finished'} and set(r.trials.steps) == {12}

def test_a_trial_that_diverges_costs_little():
    summed = partial(F.cross_entropy, reduction='sum')
    for opt_func in sgd,Adam:
        learn = learner(loss_func=lambda pred, y: summed(pred, y)*1e3, opt_func=opt_func)
        before = state(learn)
        r = find(learn, 1e-6, 1e-3, trials=[1e4,1e-6])
        assert not diff(before, state(learn))
        worse,better = r.trials.itertuples()
        assert worse.stopped.startswith('diverged at step') and worse.steps < 50
        assert worse.train_loss == worse.valid_loss == math.inf and better.stopped == 'finished'
        assert r.peak == 1e-6 and '1e+04 diverged' in r.why

def test_where_all_trials_diverge():
    r = find(learner(loss_func=lambda pred, y: 1e6*F.cross_entropy(pred, y)), 1e-9, 1e-8, trials=[1e4,1e3])
    assert r.peak == pytest.approx(100) and 'all 2 trials diverged' in r.why

def test_a_loss_that_starts_at_0_is_not_lost(short):
    x = torch.linspace(0, 1, 40)[:,None]
    dls = DataLoaders(DataLoader(list(zip(x, 5*x)), bs=1), DataLoader(list(zip(x, 5*x)), bs=8))
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    r = find(Learner(dls, model, loss_func=MSELossFlat(), opt_func=sgd), trials=[0.01])
    assert r.df.train_loss[0] == 0 and r.trials.stopped[0] == 'finished'

# what they are for

def test_where_the_usual_rate_ruins_training():
    "A summed loss is 32 times as steep. A short fit at the peak learns; one at the usual rate does not."
    def make():
        set_seed(7)
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.ReLU(), nn.Linear(64, 10))
        summed = partial(F.cross_entropy, reduction='sum')
        dls = digits_dls(bs=32, size=8, seed=0)
        return Learner(dls, model, loss_func=summed, opt_func=sgd, metrics=accuracy)
    learn = make()
    with learn.no_bar(): found = learn.lr_find_val(show_plot=False)
    assert found.peak < 0.03 and 'explodes from' in found.why and found.band[1] < 0.1
    reached = []
    for lrs in found,found.usual:
        learn = make()
        train(learn, lrs=lrs, cycle_len=2)
        reached.append(learn.recorder.values[-1][-1])
    assert reached[0] > 0.8 and reached[1] < 0.3

# what is told

def told_by(learn, capsys, **kwargs):
    find(learn, **kwargs)
    return [o for o in capsys.readouterr().out.splitlines() if 'Trying' in o]

def test_the_cost_is_told_before_it_is_paid(capsys, short):
    line = 'Trying a cycle of 12 steps at each of 0.1, 0.02 (trials=False skips this)'
    assert told_by(learner(), capsys, trials=[0.02,0.1]) == [line]
    assert told_by(learner(), capsys) == []
    learn = learner()
    with learn.no_bar(): assert told_by(learn, capsys, trials=[0.02,0.1]) == []

def test_one_bar_over_tests_and_trials(monkeypatch, short):
    seen = []
    class Bar:
        def __init__(self, gen, **kwargs): self.total = len(gen)
        def update(self, n): seen.append((n, self.total))
        def on_iter_end(self): seen.append('end')
    monkeypatch.setattr('fastai_clrbeta.lr_find.progress_bar', Bar)
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: True)
    find(learner(), n_runs=2, trials=[0.1,0.01])
    assert seen == [*((i, 24) for i in range(25)), *((i, 48) for i in range(25, 49)), 'end']

"Range tests in everyday use: sorted data, stock numbers, bad batches, and what a notebook shows"
import pickle, random
import pytest
from hypothesis import given, settings, strategies as st
from fastai.tabular.all import *
from fastai.text.all import *
from fastai_clrbeta.all import *
from fastai_clrbeta.core import weight_decay_of
from fastai_clrbeta.divergence import LossLimit
from fastai_clrbeta.peak import centred
from fastai_clrbeta.results import combine_runs
from fastai_clrbeta.lr_search import shuffled
from searches import (
    TorchDL, Scripted, Stop, curve, diff, fastai_loaders, find, learner, nan, state, sweep, table)

rules = valley,minimum,steep,slide

# the order of validation

def sorted_items(n=40): return [(torch.full((3,8,8), float(i//10)), tensor(i//10)) for i in range(n)]

class Items(torch.utils.data.Dataset):
    "Ten items of each class, one class after the other"
    def __init__(self): self.items = sorted_items()
    def __len__(self): return len(self.items)
    def __getitem__(self, i): return self.items[i]

class Stream(torch.utils.data.IterableDataset):
    def __iter__(self): return iter(sorted_items())

class Evens(torch.utils.data.Sampler):
    def __len__(self): return 20
    def __iter__(self): return iter(range(0, 40, 2))

def classes(dl): return [y.tolist() for _,y in dl]

def texts():
    "A validation loader of texts of 1 to 40 words, sorted by length"
    items = [(TensorText(torch.ones(1+i)), tensor(i//10)) for i in range(40)]
    tfms = dict(sort_func=lambda o: len(o[0]), before_batch=Pad_Chunk(seq_len=8))
    return SortedDL(items, bs=8, num_workers=0, **tfms)

def stacked(items): return tuple(map(torch.stack, zip(*items)))

made_anew = dict(
    fastai  = lambda: DataLoader(sorted_items(), bs=8),
    tfmd    = lambda: TfmdDL(sorted_items(), bs=8, num_workers=0),
    texts   = texts,
    torch   = lambda: TorchDL(Items(), 8),
    drop    = lambda: TorchDL(Items(), 9, drop_last=True, collate_fn=stacked),
    workers = lambda: TorchDL(Items(), 8, num_workers=1),
    random  = lambda: TorchDL(Items(), 8, shuffle=True))

@pytest.mark.parametrize('make', made_anew.values(), ids=made_anew)
def test_a_sorted_loader_is_shuffled_and_not_touched(make):
    dl = make()
    set_seed(3)
    random_states,attributes = repr(get_random_states()),{k:id(v) for k,v in vars(dl).items()}
    first_new = shuffled(dl)
    assert first_new is not dl and type(first_new) is type(dl)
    assert repr(get_random_states()) == random_states  # `new` draws a seed
    assert {k:id(v) for k,v in vars(dl).items()} == attributes
    set_seed(0)
    one = classes(first_new)
    set_seed(0)  # as the test does before each pass, because fastai sorts texts with numpy's numbers
    again = classes(shuffled(dl))
    assert one == again and len({len(set(o)) for o in one} - {1}) > 0 and one != classes(dl)
    assert [len(o) for o in one] == [len(o) for o in classes(dl)]
    if make is not made_anew['drop']: assert sorted(sum(one, [])) == [i//10 for i in range(40)]
    if make is not texts: assert one != classes(first_new)  # the next pass

class NoNew(DataLoader):
    def new(self, *args, **kwargs): raise TypeError('not like this')

order_stays = dict(
    stream  = lambda: DataLoader(Stream(), bs=8),
    torchs  = lambda: TorchDL(Stream(), 8),
    sampler = lambda: TorchDL(Items(), 8, sampler=Evens()),
    batches = lambda: TorchDL(Items(), batch_sampler=torch.utils.data.BatchSampler(Evens(), 8, False)),
    again   = lambda: TorchDL(Items(), 8, sampler=torch.utils.data.RandomSampler(Items(), True, 100)),
    list    = lambda: list(TorchDL(Items(), 8)),
    lm      = lambda: LMDataLoader([(torch.arange(99),)], bs=2, seq_len=5),
    broken  = lambda: NoNew(sorted_items(), bs=8))

@pytest.mark.parametrize('make', order_stays.values(), ids=order_stays)
def test_an_order_that_means_something_stays(make):
    dl = make()
    assert shuffled(dl) is dl

def by_class():
    "Loaders whose validation set is sorted by class"
    dls = fastai_loaders()
    dls.loaders[1] = dls.valid.new(sorted(dls.valid.dataset, key=lambda o: int(o[1])))
    return dls

def test_validation_is_shuffled_by_default():
    learn = learner(by_class)
    before = state(learn)
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='.*one class')
        one = find(learn, num_it=30)
    random.seed(99), np.random.seed(99)
    with pytest.warns(UserWarning, match="one class.*use valid_order='shuffled'"):
        loader = find(learn, valid_order='loader')
    changed = diff(before, state(learn))
    assert changed in ([], ['rng'])
    assert one.df.train_loss[0] == loader.df.train_loss[0] and one.df.valid_loss[0] != loader.df.valid_loss[0]
    hits = lambda r: ((r.df.accuracy > 0) & (r.df.accuracy < 1)).mean()
    assert hits(one) > 0.8
    with pytest.raises(ValueError, match="valid_order='up'"): find(learn, valid_order='up')

def test_two_tests_see_the_same_mini_batches():
    seen = []
    class Watch(Callback):
        def after_pred(self):
            if not self.training: seen.append(self.yb[0].tolist())
    for dls in by_class, by_class_of_torch:
        seen.clear()
        learn = learner(dls, cbs=Watch())
        find(learn, bn='running')
        set_seed(55)
        learn.dls.train.rng.seed(3)
        find(learn, bn='running', n_runs=2)
        assert seen[:12] == seen[12:24] == seen[24:] and seen[0] != seen[1]

def by_class_of_torch(): return DataLoaders(fastai_loaders().train, TorchDL(Items(), 8))

@pytest.mark.parametrize('dls', [by_class, by_class_of_torch])
def test_training_does_not_see_the_order(dls):
    loader,mixed = (find(learner(dls), valid_order=o, num_it=30) for o in ('loader','shuffled'))
    assert loader.df.train_loss.equals(mixed.df.train_loss)

def test_one_class_is_still_told_where_the_order_stays():
    learn = learner(lambda: DataLoaders(fastai_loaders().train, list(TorchDL(Items(), 8))))
    with pytest.warns(UserWarning, match='one class.*shuffle the validation set'):
        find(learn)

def test_each_process_gets_its_share():
    distributed = pytest.importorskip('fastai.distributed')
    kept = distributed.DistributedDL._broadcast
    distributed.DistributedDL._broadcast = lambda self, t, rank: list(t)
    try:
        for make in made_anew['tfmd'],made_anew['torch']:
            dl = make()
            shares = [shuffled(distributed.DistributedDL(dl, rank, 2, 'cpu')) for rank in range(2)]
            orders = [o.get_idxs() for o in shares]
            assert [len(o) for o in orders] == [20,20] and sorted(orders[0]+orders[1]) == list(range(40))
            assert orders[0] != list(range(20)) and [o.rank for o in shares] == [0,1]
    finally: distributed.DistributedDL._broadcast = kept

def test_legacy_keeps_the_order():
    from fastai_clrbeta import legacy
    legacy.repatch()  # another test may have taken it back
    seen = []
    class Watch(Callback):
        def after_pred(self):
            if not self.training: seen.append(self.yb[0].tolist())
    learn = learner(by_class, cbs=Watch())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            learn.lr_find2(1e-3, 1, 12)
    finally: legacy.unpatch()
    in_order = [y.tolist() for _,y in itertools.islice(itertools.cycle(learn.dls.valid), 12)]
    assert seen[::2] == seen[1::2] == in_order  # each is measured with both kinds of BatchNorm statistics

def test_a_sweep_passes_the_order_on():
    learn = learner(by_class)
    with pytest.warns(UserWarning, match='one class'): sweep(learn, wds=[1e-2], valid_order='loader')
    assert sweep(learn, wds=[1e-2]).names == ['wd']

# fastai's rules

def vision():
    return learner()

def tabular():
    rng = np.random.default_rng(0)
    df = pd.DataFrame(rng.normal(size=(600,4)), columns=list('abcd')).astype('float32')
    df['y'] = (df.a+df.b*df.c).astype('float32')
    splits = RandomSplitter(seed=42)(df)
    set_seed(1)
    to = TabularPandas(df, [Normalize], cont_names=list('abcd'), y_names='y', splits=splits,
                       y_block=RegressionBlock())
    return tabular_learner(to.dataloaders(bs=32), layers=[16], metrics=rmse)

def plain():
    set_seed(2)
    x = torch.randn(256, 5)
    items = list(zip(x, x@torch.randn(5,3)))
    dls = DataLoaders(TorchDL(items, 16, shuffle=True), TorchDL(items, 64))
    model = nn.Sequential(nn.Linear(5,16), nn.ReLU(), nn.Linear(16,3))
    return Learner(dls, model, loss_func=MSELossFlat(), opt_func=Adam)

def both(make, tmp_path, stop_div=False, **kw):
    "Stock `lr_find` and ours, on two Learners alike"
    kw = dict(start_lr=1e-6, end_lr=10, num_it=50) | kw
    stock,ours = make(),make()
    stock.path = tmp_path
    set_seed(0)
    with stock.no_bar(): asked = stock.lr_find(**kw, stop_div=stop_div, show_plot=False, suggest_funcs=rules)
    set_seed(0)
    with ours.no_bar(): found = ours.lr_find_val(**kw, stop_div=stop_div, show_plot=False, trials=False)
    return stock,asked,found

@pytest.mark.parametrize('make', [vision, tabular, plain])
@pytest.mark.parametrize('stop_div', [False,True])
def test_rules_are_those_of_stock(make, stop_div, tmp_path):
    stock,asked,found = both(make, tmp_path, stop_div)
    losses = [o.item() for o in stock.recorder.losses]
    assert found.df.train_loss_smooth[:len(losses)].tolist() == losses
    for rule in rules:
        assert getattr(found, rule.__name__) == pytest.approx(getattr(asked, rule.__name__), rel=1e-6)
        assert f'{rule.__name__}: {getattr(found, rule.__name__):.3g}' in repr(found)

def test_rules_up_to_a_nan(tmp_path):
    class Poison(Callback):
        order = -20
        def after_pred(self):
            if self.training and self.train_iter == 30: self.learn.pred = self.pred*nan
    def poisoned():
        learn = vision()
        learn.add_cb(Poison())
        return learn
    _,asked,found = both(poisoned, tmp_path)
    assert len(found.df) == 31
    for name in [o.__name__ for o in rules]:
        assert getattr(found, name) == pytest.approx(getattr(asked, name), rel=1e-6)

def test_rules_are_drawn_on_request():
    r = combine_runs([table(curve())], ['finished: 100 steps'], (peak,*rules), 100)
    words = lambda **kwargs: {o.get_text() for o in r.plot(**kwargs)[0].get_legend().get_texts()}
    drawn = words(suggestions=True)-words()
    assert drawn == {f'{name} {lr:.2g}' for name,lr in r.found.items() if name != 'peak'}

def test_a_rule_that_finds_nothing_says_so_plainly():
    r = combine_runs([table(curve()[:22])], [''], (slide,), 22)
    assert r.slide is None and 'slide: no suggestion' in repr(r) and 'Error' not in repr(r)+r.reasons['slide']
    def mine(*args): raise KeyError('mine')
    assert 'KeyError' in combine_runs([table(curve())], [''], (mine,), 100).reasons['mine']

# figures

def test_a_figure_without_a_peak_says_why():
    r = combine_runs([table(np.full(100, 2.))], ['finished: 100 steps'], rules, 100)
    ax = r.plot()[0]
    title = ax.get_title()
    assert title.replace('\n', ' ') == f'no peak: {r.why}' == r.verdict
    ax.figure.canvas.draw()
    box = ax.title.get_window_extent()
    assert box.x1 <= ax.figure.bbox.x1 and box.y1 <= ax.figure.bbox.y1
    assert combine_runs([table(curve())], [''], (), 100).plot()[0].get_title() == ''

def test_a_script_prints_why_there_is_no_peak(capsys):
    learn = learner(loss_func=lambda pred, y: 0*pred.sum() + 2.)
    with learn.no_bar():
        learn.lr_find_val(num_it=12)
        assert capsys.readouterr().out.startswith('no peak: the training loss is 2 in every step')
        learn.lr_find_val(num_it=12, show_plot=False)
        assert capsys.readouterr().out == ''

def exploding(share, is_flat=False):
    "A loss that falls and explodes in the last `share` of the steps, and metrics of it"
    n = 100
    loss = np.linspace(2.3, 2.3 if is_flat else 0.3, n)
    k = int(n*(1-share))
    loss[k:] = np.geomspace(2, 1e4, n-k)
    loss += np.random.default_rng(0).normal(0, 0.02, n)
    columns = dict(train_loss=loss, valid_loss=loss, mse=loss**2, accuracy=np.clip(1-loss/3, 0.1, 1))
    df = pd.DataFrame({'lr':np.geomspace(1e-5, 10, n)})
    for name,values in columns.items(): df[name] = df[f'{name}_smooth'] = values
    return df

@pytest.mark.parametrize('share', [0.1, 0.3, 0.6])
def test_a_metric_that_explodes_leaves_room_for_the_rest(share):
    df = exploding(share)
    r = combine_runs([df], ['finished: 100 steps'], (), 100)
    *_,mse,accuracy = r.plot()
    calm = df.mse[10:int(100*(1-share))]
    low,high = mse.get_ylim()
    assert low <= calm.min()+0.05 and high >= calm.max()-0.05 and (high-low) < 4*(calm.max()-calm.min())
    assert 'above' in mse.texts[0].get_text()
    low,high = accuracy.get_ylim()
    assert high > df.accuracy[10:].max()
    if share < 0.5: assert low < 0.1 and accuracy.texts[0].get_text() == ''

def test_a_metric_of_a_loss_that_never_falls():
    r = combine_runs([exploding(0.2, is_flat=True)], [''], (), 100)
    low,high = r.plot()[2].get_ylim()
    assert high < 100

values = st.lists(st.one_of(st.floats(-10, 10), st.floats(0, 1e6)), min_size=2, max_size=120)

@settings(deadline=None, max_examples=100)
@given(values, st.booleans(), st.booleans())
def test_a_line_changes_no_more_than_its_values(losses, is_loss, cumulates):
    if cumulates: losses = np.cumsum(losses)
    line = centred(losses, is_loss=is_loss)
    largest = np.abs(np.diff(losses)).max()
    assert np.abs(np.diff(line)).max() <= largest*(1+1e-9) + 1e-9*np.abs(losses).max()

def test_a_slow_explosion_makes_no_jump():
    losses = np.r_[np.linspace(2.3, 0.8, 60), np.linspace(0.8, 30, 40)]
    line = centred(losses)
    assert np.abs(np.diff(line)).max() <= np.abs(np.diff(losses)).max() + 1e-9
    # what comes later changes nothing
    np.testing.assert_allclose(line[:50], centred(losses[:60], 100)[:50], atol=1e-9)

def test_an_explosion_pulls_no_earlier_step():
    calm = np.linspace(2.3, 0.8, 60)
    steep = [*calm, 12, 22, 32, 42, 52]
    np.testing.assert_allclose(centred(steep, 100)[:59], centred(calm, 100)[:59], atol=0.02)
    r2 = -np.array([*calm, 120, 220, 320, 420, 520])  # a metric that explodes downwards
    np.testing.assert_allclose(centred(r2, 100, False)[:59], centred(-calm, 100, False)[:59], atol=0.02)
    runs = [table(np.r_[calm, 10.**np.arange(k)]) for k in (6,9,12)]
    line = combine_runs(runs, ['']*3, (), 100).plot(skip_start=0, skip_end=0)[0].get_lines()[0].get_ydata()
    np.testing.assert_allclose(line[:55], centred(calm, 100)[:55], atol=0.02)

def test_lines_of_several_runs_make_no_jump():
    "Where a run ends, the median of the others may lie elsewhere"
    runs = [table(curve()), table(curve()+0.5), table((curve()+1)[:60])]
    r = combine_runs(runs, ['']*3, (), 100)
    line = r.plot()[0].get_lines()[0].get_ydata()  # it is cut where it would leave the panel
    assert np.nanmax(np.abs(np.diff(line))) <= max(o.train_loss.diff().abs().max() for o in r.runs)+1e-9

def test_axes_are_an_array_that_prints_nothing():
    r = combine_runs([table(curve(), 'train_loss')], [''], (), 100)
    for axs in r.plot(), plot_clr_beta(0.1, cycle_len=2), r.plot(axs=plt.subplots(2)[1]):
        assert isinstance(axs, np.ndarray) and isinstance(axs[0], plt.Axes) and len(list(axs)) == len(axs)
        assert axs.ravel()[-1] is axs[-1] and 'Axes:' not in repr(axs) and len(repr(axs)) < 12
    a,b = plt.subplots(2)[1]
    assert [*plot_clr_beta(0.1, cycle_len=2, axs=[a,b])] == [a,b]

@pytest.fixture(scope='module')
def shell():
    "A real shell of IPython"
    from IPython.core.interactiveshell import InteractiveShell
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()

def test_a_cell_shows_each_figure_once(shell):
    r = combine_runs([table(curve())], ['finished: 100 steps'], rules, 100)
    formatted = lambda o: shell.display_formatter.format(o)[0]
    def images(): return formatted(r).get('text/html', '').count('<img')
    shell.display_formatter.active_types = ['text/plain','text/html','image/png']
    assert formatted(r.plot()) == {}           # the last line of a cell: no text, no second figure
    assert images() == 0                       # the cell that drew it shows it already
    plt.close('all')                           # as Jupyter does when the cell ends
    n_before = len(plt.get_fignums())
    assert images() == 1 and images() == 1 and len(plt.get_fignums()) == n_before
    html = formatted(r)['text/html']
    assert f'peak {r.peak:.2g}' in html and f'{r.band[0]:.2g} to {r.band[1]:.2g}' in html and 'usual' in html
    panels_of_others = plt.subplots()[1]
    assert images() == 1 and panels_of_others
    assert type(pickle.loads(pickle.dumps(r))) is LRFind

# callbacks that act for the time of a fit

class Noise(Callback):
    "A hook for the time of a fit"
    def before_fit(self): self.hook = self.model.head.register_forward_hook(lambda m,i,o: o*0.1)
    def after_fit(self): self.hook.remove()

class Frozen(Callback):
    def before_fit(self): self.model.body[0].requires_grad_(False)
    def after_fit(self): self.model.body[0].requires_grad_(True)

class OtherLoss(Callback):
    def before_fit(self):
        self.old = self.learn.loss_func
        self.learn.loss_func = LabelSmoothingCrossEntropyFlat()
    def after_fit(self): self.learn.loss_func = self.old

momentum = partial(ParamScheduler, {'mom':SchedCos(0.5, 0.95)})
two_parts = combine_scheds([0.3,0.7], [SchedLin(0.9,0.1), SchedNo(0.1,0.1)])
momentum_and_rate = partial(ParamScheduler, {'mom':two_parts, 'lr':SchedNo(1,1)})
acting = dict(hook=Noise, frozen=Frozen, loss=OtherLoss, mom=momentum, both=momentum_and_rate,
              wd=partial(ParamScheduler, {'wd':SchedLin(0, 10)}))

@pytest.mark.parametrize('cb', acting.values(), ids=acting)
def test_what_acts_takes_part(cb, tmp_path):
    losses = {}
    for kind in 'stock','ours','without':
        learn = learner(path=tmp_path, cbs=[] if kind == 'without' else cb())
        before = state(learn)
        set_seed(0)
        kw = dict(start_lr=1e-3, end_lr=3, num_it=30, stop_div=False, show_plot=False)
        with learn.no_bar():
            if kind == 'stock': learn.lr_find(**kw, suggest_funcs=None)
            else: found = learn.lr_find_val(**kw, trials=False)
        if kind == 'stock': losses[kind] = [o.item() for o in learn.recorder.losses]
        else:
            losses[kind] = found.df.train_loss_smooth.tolist()
            # `no_bar` makes another progress bar, and the seed was set after `before`
            assert set(diff(before, state(learn))) <= {'rng','cbs'} and not learn.model.head._forward_hooks
    assert losses['ours'] == losses['stock'] != losses['without']

def test_an_interrupted_test_lets_callbacks_clean_up():
    learn = learner(cbs=[Noise(), Stop('before_step', KeyboardInterrupt)])
    with pytest.raises(KeyboardInterrupt): find(learn)
    assert not learn.model.head._forward_hooks

# bad mini-batches

class Spike(Callback):
    "A loss that is `times` as high in some training steps"
    order = -11
    def __init__(self, steps, times=10): self.steps,self.times = steps,times
    def after_loss(self):
        if self.training and self.train_iter in self.steps:
            self.learn.loss = self.learn.loss*self.times
            self.learn.loss_grad = self.loss_grad*self.times

@pytest.mark.parametrize('steps,times', [
    ([1],10), ([2],10), ([2],1000), ([1,2,3],30), ([0],0.001), ([4,5,6,7],100)])
def test_bad_batches_do_not_end_it(steps, times):
    r = find(learner(cbs=Spike(steps, times)), 1e-5, 1e-2, 40, stop_div=True)
    assert len(r.df) == 40 and 'finished' in r.stopped

def test_small_batches_of_a_good_network_do_not_end_it():
    "Most losses are tiny, some are not"
    rng = np.random.default_rng(0)
    for _ in range(20):
        limit = LossLimit(4)
        smooth = AvgSmoothLoss()
        for loss in np.where(rng.random(100) < 0.1, rng.uniform(0.5, 3, 100), 0.01):
            smooth.accumulate(SimpleNamespace(loss=tensor(loss)))
            assert limit(smooth.value.item(), loss) < 5

def test_the_guard_has_the_same_rule():
    for steps,is_ended in ([0],False), ([3],False), ([10],False), (range(20,99),True):
        guard = DivergenceGuard()
        learn = learner(cbs=[Spike(steps, 1000)])
        with learn.no_bar(), learn.no_logging(): learn.fit(5, 1e-6, cbs=guard)
        assert (guard.report is not None) == is_ended, guard.report

def twice(losses): return np.repeat(losses, 2)  # for training and for validation

def test_an_early_end_says_where_and_has_a_peak():
    learn = learner(loss_func=Scripted(twice([2.]*20+[50.]*99)))
    r = find(learn, 1e-5, 1, 60, stop_div=True, bn='running')
    assert f'diverged at step {len(r.df)} of 60' in r.stopped and 'stop_div=False' in r.stopped
    assert r.peak == pytest.approx(r.df.lr[20]/4) and f'explodes from {r.df.lr[20]:.3g} on' in r.why
    assert 21 < len(r.df) < 30

@pytest.mark.parametrize('bad', [nan, math.inf])
def test_nan_and_inf_end_it_at_once(bad):
    learn = learner(loss_func=Scripted(twice([2.]*20+[bad]*99)))
    r = find(learn, 1e-5, 1, 60, stop_div=True, bn='running')
    assert len(r.df) == 21 and 'at step 21 of 60' in r.stopped
    assert r.peak == pytest.approx(r.df.lr[20]/4)

# arguments and data

def test_both_names_of_weight_decay():
    learn = learner()
    one,two = find(learn, wd=0.1),find(learn, wds=0.1)
    assert one.df.equals(two.df) and not one.df.equals(find(learn).df)
    with pytest.raises(ValueError, match='wd=0.1, wds=0.2.*one of them'): find(learn, wd=0.1, wds=0.2)
    with pytest.raises(ValueError, match='one of them'): sweep(learn, wd=[0], wds=[0])
    assert (weight_decay_of(0, None), weight_decay_of(None, 0), weight_decay_of(None, None)) == (0, 0, None)

def test_learning_rates_may_be_tensors():
    learn = learner()
    assert find(learn, tensor(1e-3), np.float32(1)).df.lr[0] == pytest.approx(1e-3)
    assert find(learn, torch.tensor([1e-3]), tensor(1.)).df.lr[0] == pytest.approx(1e-3)

def test_a_loaded_learner_has_no_data(tmp_path):
    learn = learner(path=tmp_path)
    learn.export('x.pkl')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        loaded = load_learner(tmp_path/'x.pkl')
    with pytest.raises(ValueError, match='no training data.*load_learner') as e: find(loaded)
    assert 'batch size' not in str(e.value)
    loaded.dls = fastai_loaders()
    assert len(find(loaded).df) == 12

def test_a_batch_size_above_the_training_set():
    dls = DataLoaders(DataLoader(sorted_items(), bs=64, drop_last=True), DataLoader(sorted_items(), bs=8))
    with pytest.raises(ValueError, match='batch size, 64, is larger than the training set of 40 items'):
        find(learner(lambda: dls))

def test_validation_without_labels():
    learn = learner()
    learn.dls.loaders[1] = DataLoader([(o,) for o,_ in sorted_items()], bs=8)
    before = state(learn)
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        with pytest.raises(ValueError, match='without labels'): find(learn)
    assert not diff(before, state(learn))

class CopiesInputs(Callback):
    "Train to reproduce the inputs"
    def before_batch(self): self.learn.yb = self.xb

def test_training_without_labels():
    learn = learner()
    learn.dls.loaders[0] = DataLoader([(o,) for o,_ in sorted_items()], bs=8)
    before = state(learn)
    with pytest.raises(ValueError, match='training batches have no labels'): find(learn)
    assert not diff(before, state(learn)) and learn.lr_find_result.df.empty
    learn.loss_func = lambda pred,y: ((pred.mean()-y.mean())**2).mean()
    learn.dls.loaders[1] = learn.dls.train
    learn.add_cb(CopiesInputs())
    learn.metrics = []
    assert len(find(learn).df) == 12

def test_an_empty_result_is_drawn_as_such():
    axs = LRFind().plot()
    assert axs[0].get_title() == 'no peak: nothing was measured' and '<pre' in LRFind()._repr_html_()
    with pytest.raises(ValueError, match='no range tests'): LRSweep().plot()

def test_a_result_that_is_taken_for_a_number_names_its_peak():
    found = LRFind(peak=0.1)
    for f in (lambda: found/100), (lambda: 2*found), (lambda: found*2), (lambda: -found):
        with pytest.raises(TypeError, match='found.peak'): f()

"What comes of a range test: data frames, figures, copies"
import pickle
from copy import copy, deepcopy
import pytest
from fastai.vision.all import *
from fastai_clrbeta.all import *
from fastai_clrbeta.core import look, panels
from fastai_clrbeta.results import combine_runs
from searches import Stop, curve, find, learner, nan, table

rules = valley,minimum,steep,slide

# one run

@pytest.mark.parametrize('losses,msg', [(np.ones(100),'in every step'), ([],'no step'),
                                        ([nan]*100,'very first')])
def test_a_test_without_a_peak(losses, msg):
    r = combine_runs([table(losses)], [''], (peak,), len(losses))
    assert r.peak is None and msg in r.why and f'no peak: {r.why}' in repr(r)
    assert r.found == {'peak':None} and r.reasons == {'peak':r.why}
    assert len(r.plot()) == 1

def test_a_test_with_a_peak():
    r = combine_runs([table(curve())], ['finished: 100 steps'], (peak,*rules), 100)
    assert r.band[0] < r.peak < r.band[1] and r.rival < r.peak == r.usual and 'usual 0.1' in r.why
    assert r.found['peak'] == r.peak and r.suggestions._fields == ('peak','valley','minimum','steep','slide')
    assert r.valley == r.suggestions.valley == r.found['valley']
    assert f'peak {r.peak:.2g}' in repr(r) and 'finished: 100 steps' in repr(r)
    assert combine_runs([table(curve())], [''], (), 100, usual=0.03).peak == 0.03
    own = combine_runs([table(curve())], [''], (partial(peak, usual=0.02),), 100)
    assert own.peak == own.usual == own.found['peak'] == 0.02
    with pytest.raises(AttributeError): r.nonsense

def test_suggestions_are_fastais():
    r = combine_runs([table(curve())], [''], rules, 100)
    lrs,losses = (torch.tensor(r.df[k].tolist())[10:-5] for k in ('lr','train_loss_smooth'))
    for f in rules: assert getattr(r, f.__name__) == pytest.approx(f(lrs, losses, 100)[0])

def test_any_curve_can_be_drawn():
    for n in range(0, 40, 3):
        for losses in np.linspace(1, 2, n), np.full(n, nan), np.ones(n):
            r = combine_runs([table(losses)], [''], (peak,*rules), n)
            assert len(r.plot()) == 1 and repr(r)
            plt.close('all')

def test_an_empty_result():
    r = LRFind()
    assert len(r.df) == 0 and r.peak is None and r.suggestions == () and repr(r)
    assert len(LRSweep().table) == 0

# several runs

def test_several_runs_have_medians():
    runs = [table(curve(turn=o)) for o in (0.1,1.)]
    r = combine_runs(runs, ['finished: 100 steps']*2, rules, 100, usual=None)
    one,two = (combine_runs([o], [''], rules, 100, usual=None) for o in runs)
    def middle(a, b): return pytest.approx(math.sqrt(a*b))
    assert r.peak == middle(one.peak, two.peak) and r.rival == middle(one.rival, two.rival)
    assert r.band == (middle(one.band[0], two.band[0]), middle(one.band[1], two.band[1]))
    assert f'2 runs say {one.peak:.2g} to {two.peak:.2g}; in one, this loss explodes' in r.why
    for f in rules:
        lrs = getattr(one, f.__name__),getattr(two, f.__name__)
        assert getattr(r, f.__name__) == pytest.approx(math.sqrt(lrs[0]*lrs[1]))
        assert r.spread[f.__name__] == pytest.approx((min(lrs),max(lrs)))
    assert r.df.run.tolist() == [1]*100+[2]*100 and r.stopped == 'finished: 100 steps, in each of 2 runs'
    assert '2 runs, 200 steps' in repr(r) and len(r.plot()) == 1

def test_a_median_is_within_its_spread():
    "Whatever is rounded"
    for lr in np.random.default_rng(0).uniform(0.01, 1, 100):
        funcs = [lambda lrs, losses, num_it: (losses[0]*lr,None)]
        r = combine_runs([table(np.full(20, o)) for o in (1.,1.,2.)], ['']*3, funcs, 20)
        lowest,highest = r.spread['<lambda>']
        assert lowest <= r.found['<lambda>'] <= highest

def test_some_runs_without_a_peak():
    with_peak,without = table(curve()),table(np.ones(100))
    cases = [([with_peak,without], 0.1, 'usual 0.1'),
             ([with_peak,without,with_peak], 0.1, 'usual 0.1'),
             ([with_peak,without,without], None, 'in every step'),
             ([with_peak,with_peak,table([])], 0.1, 'usual 0.1')]  # interrupted before its first step
    for tables,found,words in cases:
        r = combine_runs(tables, [f'stop {i}' for i in range(len(tables))], (peak,), 100)
        assert r.peak == r.found['peak'] == found and words in r.why
        assert ('peak' in r.reasons) == (found is None) and 'run 2: stop 1' in r.stopped
        repr(r)

# figures

def test_lines_and_points():
    r = find(learner(), 1e-4, 1e3, 100)
    cut = slice(10,95)
    def is_drawn(ax, i, column):
        "A line ends at its first point above the panel: it reaches the edge, and does not come back."
        y,want = ax.get_lines()[i].get_ydata(),r.df[column][cut].dropna()
        n = np.count_nonzero(~np.isnan(y))
        np.testing.assert_array_equal(y[:n], want[:n])
        if n < len(y): assert y[n-1] > ax.get_ylim()[1] > y[n-2]
    for smooth,ending in ('centred','_centred'), ('legacy','_smooth'), (None,''):
        ax = r.plot(smooth=smooth)[1]
        is_drawn(ax, 0, 'valid_loss'+ending)        # thin, behind the other
        is_drawn(ax, 1, 'valid_loss_batch'+ending)  # the main line
        assert ax.get_lines()[0].get_linewidth() < ax.get_lines()[1].get_linewidth()
    is_drawn(r.plot()[1], 1, 'valid_loss_batch_centred')
    for bad in 'yes',2,'',True,False:
        with pytest.raises(ValueError, match='smooth='): r.plot(smooth=bad)
    assert type(r.plot()) is type(r.plot(axs=plt.subplots(3)[1]))

def test_the_axis_shows_the_turn_and_counts_what_it_hides():
    r = find(learner(), 1e-4, 1e3, 100)
    cut = slice(10,95)
    for ax,name in zip(r.plot(), ['train_loss','valid_loss_batch','accuracy_batch']):
        low,high = ax.get_ylim()
        points = r.df[name][cut]
        counts = {'{} above':(points>high).sum(), '{} below':(points<low).sum(),
                  '{} not a number':points.isna().sum()}
        text = ', '.join(text.format(n) for text,n in counts.items() if n)
        assert ax.texts[0].get_text() == (f'dots outside: {text}' if text else '')
        assert ax.texts[0].get_size() >= 10
        assert low < r.df[f'{name}_centred'][cut].min() < high
    train = r.plot()[0]
    assert r.df.train_loss.max() > 10 and 'above' in train.texts[0].get_text()
    for ax,name in zip(r.plot(), ['train_loss','valid_loss_batch']):
        start,lowest = r.df[name][:10].median(),r.df[f'{name}_centred'][cut].min()
        assert start < ax.get_ylim()[1] < start + 0.5*(start-lowest)

def test_a_line_and_its_band_do_not_come_back():
    losses = np.concatenate([np.linspace(2.3,0.3,60), np.geomspace(0.4,1e3,25), np.geomspace(1e3,1,15)])
    for n in 1,2:
        ax = combine_runs([table(losses)]*n, ['']*n, (), 100).plot(skip_end=0)[0]
        y,top = ax.get_lines()[0].get_ydata(),ax.get_ylim()[1]
        end = np.flatnonzero(y > top)
        assert len(end) == 1 and np.isnan(y[end[0]+1:]).all() and losses[-1] < top
        for band in ax.collections:
            rate = ax.get_lines()[0].get_xdata()[end[0]]
            assert band.get_paths()[0].vertices[:,0].max() == pytest.approx(rate)

def test_legends_of_panels_have_their_look():
    for ax,size in (panels()[0],look['font.size']),(plt.subplots()[1],plt.rcParams['font.size']):
        ax.plot([1], label='line')
        assert ax.legend().get_texts()[0].get_size() == ax.text(0, 0, 'text').get_size() == size
    assert plt.rcParams['font.size'] != look['font.size']

def test_the_gap_is_drawn():
    losses = pd.DataFrame(dict(train_loss=[1.,2.], valid_loss=[1.,2.]))
    def sizes(ax): return {o.get_size() for o in ax.get_yticklabels()}
    axs = plot_overfit(losses, [0.1,0.2])
    axs[0].figure.canvas.draw()
    assert [o.get_xlabel() for o in axs] == ['','epoch'] and axs[1].get_legend() is None
    left,_,right,_ = axs[0].figure.axes
    assert sizes(left) == sizes(right) and not any(o.spines['top'].get_visible() for o in (left,right))
    own = plt.subplots(1, 2)[1]
    assert [o.get_xlabel() for o in plot_overfit(losses, axs=own)] == ['epoch','epoch']

def with_trials(train=(0.9,0.4), valid=(1.,0.5)):
    "A result whose trials decided for the lower of two rates"
    r = combine_runs([table(curve())], ['finished: 100 steps'], (peak,*rules), 100)
    values = dict(lr=[0.1,0.02], train_loss=train, valid_loss=valid, steps=[100,100], stopped='finished')
    r.trials = pd.DataFrame(values)
    return r

def test_trials_have_a_panel_and_a_line_of_text():
    r = with_trials()
    train,panel = r.plot()
    assert 'valid loss\nafter a short cycle' == panel.get_ylabel()
    points = panel.get_lines()[0]
    assert [*points.get_xdata()] == [0.1,0.02] and [*points.get_ydata()] == [1.,0.5]
    assert panel.get_xlabel() == 'learning rate' and train.get_xlabel() == ''
    assert 'trials: 2, 200 steps' in repr(r)
    with_points = with_trials(valid=[nan,nan]).plot()[1].get_lines()[0]
    assert [*with_points.get_ydata()] == [0.9,0.4]

@pytest.mark.parametrize('bad', [math.inf, nan])
def test_a_trial_that_was_not_finished_is_a_cross(bad):
    panel = with_trials([bad,0.4], [bad,0.5]).plot()[1]
    points,cross = panel.get_lines()[:2]
    assert [*points.get_xdata()] == [0.02] and points.get_marker() == 'o'
    assert [*cross.get_xdata()] == [0.1] and cross.get_marker() == 'x'
    axs = with_trials([bad,bad], [bad,bad]).plot()
    axs[0].figure.canvas.draw()
    assert sum(o.get_marker() == 'x' for o in axs[1].get_lines()) == 2

def test_own_axes_need_no_panel_for_trials():
    r = with_trials()
    own = plt.subplots(1)[1]
    own.plot([0.1], [1], label='')
    assert [*r.plot(axs=own)] == [own] and 'loss' in own.get_ylabel() and 'cycle' not in own.get_ylabel()
    assert 'short cycle' in r.plot(axs=plt.subplots(2)[1])[1].get_ylabel()
    assert len(r.plot(axs=plt.subplots(3)[1])) == 3

bad_axes = 'axes', 3, [None, None], {}, [[1], [2, 3]]

@pytest.mark.parametrize('bad', [*bad_axes, 'one'])
def test_wrong_axes_are_one_error(bad):
    if bad == 'one': bad = plt.subplots()[1]
    r = find(learner(), num_it=20)
    plots = {3: r.plot, 2: LRSweep({(0.,):r}, ['wd']).plot}
    losses = pd.DataFrame(dict(train_loss=[1.,2.], valid_loss=[1.,2.]))
    for n,plot in [*plots.items(), (2, partial(plot_clr_beta, 0.1)), (2, partial(plot_overfit, losses))]:
        with pytest.raises(ValueError, match=f'axs: this figure needs {n} matplotlib axes'): plot(axs=bad)
    if isinstance(bad, plt.Axes): assert not bad.lines

@pytest.mark.parametrize('steps,msg', [
    (dict(skip_start=-1), 'skip_start=-1: skip_start must be'), (dict(skip_end=-3), 'skip_end=-3'),
    (dict(skip_start=2.5), 'skip_start=2.5'), (dict(skip_end='x'), "skip_end='x'"),
    (dict(skip_start=99), 'skip_start=99: 104 steps would be left out, and the test has only 100'),
    (dict(skip_start=50, skip_end=50), 'skip_start=50, skip_end=50: 100 steps')])
def test_steps_that_cannot_be_left_out(steps, msg):
    r = combine_runs([table(curve())], [''], (), 100)
    for o in r,LRSweep({(0.,):r}, ['wd']):
        with pytest.raises(ValueError, match=msg): o.plot(**steps)

def test_steps_are_left_out():
    n_drawn = lambda n,**steps: len(
        combine_runs([table(curve(n))], [''], (), n).plot(**steps)[0].get_lines()[0].get_xdata())
    assert n_drawn(100) == 85 and n_drawn(100, skip_start=80) == 15 and n_drawn(100, skip_end=0) == 90
    assert n_drawn(20) == n_drawn(20, skip_start=0, skip_end=0) == 20 and n_drawn(20, skip_start=10) == 5

def test_attributes_of_a_result():
    r = combine_runs([table(curve())], [''], rules, 100)
    with pytest.raises(AttributeError, match="'LRFind' object has no attribute.*'nosuch'"): r.nosuch
    assert {'df','peak','why','plot','valley','slide'} <= {*dir(r)} and 'valley' not in dir(LRFind())

@pytest.mark.parametrize('df,missing', [
    (None, 'lr, train_loss'), (pd.DataFrame(), 'lr, train_loss'),
    (pd.DataFrame(dict(lr=[0.1])), 'train_loss'),
    (pd.DataFrame(dict(lr=[0.1], train_loss=[1.])), 'train_loss_smooth'),
    (table(curve()), 'train_loss_centred')])
def test_a_result_without_data_says_what_is_missing(df, missing):
    with pytest.raises(ValueError, match=f"LRFind can't be drawn: its df has no {missing}"):
        LRFind(df=df).plot()
    assert len(LRFind().plot()) == 1  # it says that nothing was measured

def test_one_legend_outside_of_the_curves():
    for r in find(learner(), 1e-4, 1e3, 60, trials=[0.1]),find(learner(), num_it=60, n_runs=2),with_trials():
        first,*rest = r.plot(suggestions=True)
        assert not any(ax.get_legend() for ax in rest)
        first.figure.canvas.draw()
        box,figure = first.get_legend().get_window_extent(),first.figure.bbox
        assert box.y0 >= first.get_window_extent().y1
        assert 0 <= box.x0 and box.x1 <= figure.x1 and box.y1 <= figure.y1
        texts = first.get_legend().get_texts()
        assert all(o.get_size() == 11 for o in texts)
        words = {o.get_text() for o in texts}
        assert words >= {'smoothed','one step','start','worth trying','usual 0.1',f'peak {r.peak:.2g}'}
        assert ('lowest to highest run' in words) == (len(r.runs) > 1)

def test_a_sweep_is_drawn():
    tests = {}
    for wd,turn in (0.1,0.3), (0.,1.):
        tests[(wd,)] = combine_runs([table(curve(turn=turn))], ['finished: 100 steps'], (), 100)
    sweep = LRSweep(tests, ['wd'])
    assert sweep.df.columns[0] == 'wd' and len(sweep.df) == 200 and sweep.df.wd.unique().tolist() == [0.1,0.]
    row = sweep.table.iloc[1]
    assert row.peak == tests[(0.,)].peak and row.stopped == 'finished: 100 steps'
    assert math.isnan(row.diverged_at)
    assert row.min_train_loss == tests[(0.,)].df.train_loss_centred.min()
    ax, = sweep.plot()
    assert [o.get_text() for o in ax.get_legend().get_texts()] == ['wd 0.1','wd 0']
    assert repr(sweep) and '<table' in sweep._repr_html_()

@pytest.mark.parametrize('first_stop,counts', [
    ('diverged at step 50 of 100: …', True), ('the training loss was nan at step 50 of 100', True),
    ('finished: 50 steps', False), ('stopped by a callback after 50 steps', False),
    ('interrupted after 50 steps: KeyboardInterrupt', False)])
def test_a_sweep_counts_only_divergence(first_stop, counts):
    first_run,other_run = table(curve())[:50],table(curve())
    test = combine_runs([first_run,other_run], [first_stop,'finished: 100 steps'], (), 100)
    row = LRSweep({(0.,):test}, ['wd']).table.iloc[0]
    expected = first_run.lr.iloc[-1] if counts else nan
    assert row.diverged_at == pytest.approx(expected, nan_ok=True)

# results travel

def test_results_are_copied():
    r = find(learner(), n_runs=2, trials=[0.1,0.01])
    for o in copy(r),deepcopy(r),pickle.loads(pickle.dumps(r)):
        assert type(o) is LRFind and o.df.equals(r.df) and o.trials.equals(r.trials)
        assert (repr(o), o.suggestions) == (repr(r), r.suggestions)

def test_a_result_is_written(tmp_path):
    r = combine_runs([table(curve())], [''], (), 100)
    r.to_csv(tmp_path/'test.csv')
    sweep = LRSweep({(0.,):r}, ['wd'])
    sweep.to_csv(tmp_path/'sweep.csv')
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path/'sweep.csv'), sweep.df)
    LRSweep().to_csv(tmp_path/'empty.csv')
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path/'test.csv'), r.df)

def test_a_result_without_steps():
    learn = learner(cbs=Stop('before_batch', KeyboardInterrupt, 1))
    with pytest.raises(KeyboardInterrupt): find(learn)
    r = learn.lr_find_result
    assert len(r.df) == 0 and set(r.suggestions) == {None} and len(r.reasons) == 5
    assert len(r.plot()) == 1 and '0 steps' in repr(r)

"What comes of a range test: data frames, figures, copies"
import pickle
from copy import copy, deepcopy
import pytest
from fastai.vision.all import *
from fastai_clrbeta.all import *
from fastai_clrbeta.results import combine_runs
from searches import Stop, curve, find, learner, nan, table

rules = valley,minimum,steep,slide

# one run

@pytest.mark.parametrize('losses,msg', [(curve()[:60],'raise end_lr'), (curve()[:8],'only 8 steps'),
                                        ([nan]*100,'very first')])
def test_a_test_without_a_peak(losses, msg):
    r = combine_runs([table(losses)], [''], (), len(losses))
    assert r.peak is None and msg in r.why and f'no peak: {r.why}' in repr(r)
    assert len(r.plot()) == 1

def test_a_test_with_a_peak():
    r = combine_runs([table(curve())], ['finished: 100 steps'], (peak,*rules), 100)
    assert r.band[0] < r.band[1] and 'at its floor' in r.why
    assert r.found['peak'] == r.peak and r.suggestions._fields == ('peak','valley','minimum','steep','slide')
    assert r.valley == r.suggestions.valley == r.found['valley']
    assert f'peak {r.peak:.2g}' in repr(r) and 'finished: 100 steps' in repr(r)
    assert combine_runs([table(curve())], [''], (), 100, adaptive=True).peak < r.peak
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
    r = combine_runs(runs, ['finished: 100 steps']*2, rules, 100)
    one,two = (combine_runs([o], [''], rules, 100) for o in runs)
    assert r.peak == pytest.approx(math.sqrt(one.peak*two.peak))
    assert r.band == pytest.approx((one.peak,two.peak))
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
    cases = [([with_peak,without], True, '1 of 2 runs'),
             ([with_peak,without,with_peak], True, '2 of 3 runs'),
             ([with_peak,without,without], False, 'never falls')]
    for tables,found,words in cases:
        r = combine_runs(tables, [f'stop {i}' for i in range(len(tables))], (peak,), 100)
        assert (r.peak is not None) == found and words in r.why
        assert ('peak' in r.reasons) != found and 'run 2: stop 1' in r.stopped
        repr(r)

# figures

def test_lines_and_points():
    r = find(learner(), 1e-4, 1e3, 100)
    cut = slice(10,95)
    for smooth,ending in ('centred','_centred'), ('legacy','_smooth'), (None,''):
        line = r.plot(smooth=smooth)[1].get_lines()[0].get_ydata()
        np.testing.assert_array_equal(line, r.df['valid_loss'+ending][cut].dropna())
    default = r.plot()[1].get_lines()[0].get_ydata()
    np.testing.assert_array_equal(default, r.df.valid_loss_centred[cut].dropna())
    for bad in 'yes',2,'',True,False:
        with pytest.raises(ValueError, match='smooth='): r.plot(smooth=bad)
    assert type(r.plot()) is type(r.plot(axs=plt.subplots(3)[1]))

def test_the_axis_shows_the_turn_and_counts_what_it_hides():
    r = find(learner(), 1e-4, 1e3, 100)
    cut = slice(10,95)
    for ax,name in zip(r.plot(), ['train_loss','valid_loss','accuracy']):
        low,high = ax.get_ylim()
        points = r.df[name][cut]
        counts = {'↑ {} above':(points>high).sum(), '↓ {} below':(points<low).sum(),
                  '{} not a number':points.isna().sum()}
        assert ax.texts[0].get_text() == ', '.join(text.format(n) for text,n in counts.items() if n)
        assert low < r.df[f'{name}_centred'][cut].min() < high
    train = r.plot()[0]
    assert r.df.train_loss.max() > 10 > train.get_ylim()[1] and 'above' in train.texts[0].get_text()

def test_a_sweep_is_drawn():
    tests = {}
    for wd,turn in (0.1,0.3), (0.,1.):
        tests[(wd,)] = combine_runs([table(curve(turn=turn))], ['finished: 100 steps'], (), 100)
    sweep = LRSweep(tests, ['wd'])
    assert sweep.df.columns[0] == 'wd' and len(sweep.df) == 200 and sweep.df.wd.unique().tolist() == [0.1,0.]
    row = sweep.table.iloc[1]
    assert row.peak == tests[(0.,)].peak and row.stopped == 'finished: 100 steps'
    assert math.isnan(row.diverged_at)
    assert row.min_loss == tests[(0.,)].df.train_loss_centred.min()
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
    r = find(learner(), n_runs=2)
    for o in copy(r),deepcopy(r),pickle.loads(pickle.dumps(r)):
        assert type(o) is LRFind and o.df.equals(r.df)
        assert (repr(o), o.suggestions) == (repr(r), r.suggestions)

def test_a_result_is_written(tmp_path):
    r = combine_runs([table(curve())], [''], (), 100)
    r.to_csv(tmp_path/'test.csv')
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path/'test.csv'), r.df)

def test_a_result_without_steps():
    learn = learner(cbs=Stop('before_batch', KeyboardInterrupt, 1))
    with pytest.raises(KeyboardInterrupt): find(learn)
    r = learn.lr_find_result
    assert len(r.df) == 0 and set(r.suggestions) == {None} and len(r.reasons) == 5
    assert len(r.plot()) == 1 and '0 steps' in repr(r)

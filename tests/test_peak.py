"From a curve to a learning rate, without a Learner"
import pytest
from fastai.basics import *
from fastai.callback.schedule import *
from fastai_clrbeta.peak import centred, find_peak, peak
from fastai_clrbeta.results import suggest
from searches import curve, nan

lrs = np.geomspace(1e-4, 10, 100)
clean = 2.3 - 1.5/(1+(lrs/0.03)**-2) + (lrs/0.6)**2
noisy = clean + np.random.default_rng(0).normal(0, 0.1, 100)

# curves without lag

def test_no_lag():
    "What is read backwards is smoothed to the same line"
    bowl = np.abs(np.linspace(-1, 1, 100)) + np.random.default_rng(0).normal(0, 0.02, 100)
    np.testing.assert_allclose(centred(bowl)[::-1], centred(bowl[::-1]), atol=1e-9)

@pytest.mark.parametrize('end', [[nan]*20, [math.inf]*20, [*np.geomspace(50, 1e9, 20)], [1e4,nan]*10,
                                 [*np.geomspace(100, 1e12, 20)], [1e5,nan]*10])
def test_an_explosion_does_not_reach_back(end):
    for losses in noisy,curve():
        calm = losses[:80]
        line,want = centred([*calm,*end]),centred(calm, 100)
        np.testing.assert_allclose(line[:75], want[:75], atol=0.05)
        assert line[80:][~np.isfinite(end)].isna().all()

def test_one_spike_is_no_turn():
    for losses,spike in (curve(), 50), (noisy[:80], 1e6):
        spiked = losses.copy()
        spiked[40] += spike
        np.testing.assert_allclose(centred(spiked), centred(losses), atol=0.15)

def test_curves_of_few_steps():
    assert len(centred([])) == 0
    assert centred([1.]).tolist() == [1.]
    assert centred([nan]*5).isna().all()

# the peak

@pytest.mark.parametrize('losses,msg', [
    (noisy[:9], 'only 9 steps'),
    ([nan]*100, 'the very first training loss is nan'),
    (np.full(100, 2.), 'never falls'),
    (np.linspace(2, 9, 100), 'never falls'),
    (2+np.random.default_rng(0).normal(0, 0.1, 100), 'never falls'),
    (noisy[:50], 'raise end_lr'),
    (2-np.arange(100)/100, 'raise end_lr'),
    (2.3-0.02*np.linspace(0, 1, 100)**2+np.random.default_rng(14).normal(0, 0.01, 100), 'raise end_lr')])
def test_where_the_curve_does_not_tell(losses, msg):
    got = find_peak(lrs[:len(losses)], losses, 100)
    assert got.lr is None and got.band is None and msg in got.why

def test_peak_and_floor():
    best = find_peak(lrs, noisy, 100)
    assert best.band[0] < lrs[clean.argmin()] < best.band[1]
    assert best.lr == pytest.approx(0.35*math.sqrt(best.band[0]*best.band[1]))
    assert f'{best.band[0]:.2g} to {best.band[1]:.2g}' in best.why and '0.35' in best.why
    adaptive = find_peak(lrs, noisy, 100, adaptive=True)
    assert adaptive.band == best.band and adaptive.lr < best.lr

def test_peaks_follow_the_turn():
    "Ten times the turn is ten times the peak; few steps and many agree"
    axis = lambda n: np.geomspace(1e-5, 10, n)
    low,high = (find_peak(axis(100), curve(turn=turn), 100).lr for turn in (0.03, 0.3))
    assert 5 < high/low < 20
    many = find_peak(axis(1000), curve(1000), 1000).lr
    assert abs(math.log10(many/high)) < 0.3

def test_a_high_first_loss_changes_nothing():
    high = noisy + 8*0.5**np.arange(100)
    assert find_peak(lrs, high, 100).lr == pytest.approx(find_peak(lrs, noisy, 100).lr, rel=1e-6)

def test_one_odd_batch_at_the_end_is_no_rise():
    falling = noisy[:clean.argmin()]
    odd = [*falling, 1e3]
    for losses in falling,odd: assert 'raise end_lr' in find_peak(lrs[:len(losses)], losses, 100).why
    diverged = find_peak(lrs[:len(odd)], odd, 100, diverged=True)
    assert diverged.band[1] == lrs[len(falling)]

def test_noise_has_no_peak():
    noise = [np.random.default_rng(i).normal(2.3, 0.1, 100) for i in range(200)]
    assert sum(find_peak(lrs, losses, 100).lr is not None for losses in noise) <= 10

def test_more_steps_detect_a_smaller_fall():
    x = np.linspace(0, 1, 400)
    falls = -0.15*np.clip(3*x-1, 0, 1)  # by little more than the noise
    rises = falls + 0.5*np.clip(5*x-4, 0, 1)
    noise = np.random.default_rng(0).normal(2.3, 0.1, (100,400))
    axis = np.geomspace(lrs[0], lrs[-1], 400)
    n_found = lambda shape: sum(find_peak(axis, o+shape, 400).lr is not None for o in noise)
    assert n_found(0) <= 3 and n_found(rises) >= 95 and n_found(falls) <= 3

def test_as_stock_lr_find_calls_it():
    "`peak` undoes fastai's smoothing"
    smooth = AvgSmoothLoss()
    lagging = []
    for loss in noisy:
        smooth.accumulate(SimpleNamespace(loss=tensor(loss)))
        lagging.append(smooth.value.item())
    lr,point = peak(lrs[10:-5], np.array(lagging)[10:-5], 100)
    assert abs(math.log10(lr/find_peak(lrs, noisy, 100).lr)) < 0.15
    assert point[0] == lr and min(lagging) <= point[1] <= max(lagging)
    assert peak(lrs, np.ones(100), 100)[0] is None

# fastai's suggestions

def test_suggestions_never_fail():
    funcs = valley,minimum,steep,slide
    for n in range(40):
        half = np.linspace(1, 2, n//2)
        for losses in np.linspace(1, 2, n), np.full(n, nan), np.r_[half, np.full(n-n//2, nan)], np.ones(n):
            suggested = suggest(funcs, np.logspace(-5, 1, n), losses, n)
            assert list(suggested) == ['valley','minimum','steep','slide']
            assert all(o.lr is None and o.reason or math.isfinite(o.lr) for o in suggested.values())

def test_suggestions_for_many_steps_are_fast():
    losses = np.sin(np.linspace(0, 9, 5000)) + np.random.default_rng(0).random(5000)
    start = time.time()
    suggest((valley,minimum,steep,slide), np.logspace(-5, 1, 5000), losses, 5000)
    assert time.time()-start < 5  # the requirement is one second on an idle machine

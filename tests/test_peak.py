"From a curve to a learning rate, without a Learner"
import pytest
from hypothesis import given, settings, strategies as st
from fastai.basics import *
from fastai.callback.schedule import *
from fastai_clrbeta.learner import kind_of_optimiser
from fastai_clrbeta.peak import Peak, candidates, centred, decide, find_peak, peak, read_curve, usual_rates
from fastai_clrbeta.results import suggest
from fastai_clrbeta.schedule import sgd
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

# what a curve shows

axis = np.geomspace(1e-5, 10, 100)

def loss_at(lrs, explodes, fall=1.5, noise=0.02, seed=0):
    "A training loss that has fallen by half at a 30th of the rate `explodes`, where it is back at its start"
    clean = 2.3 - fall/(1 + (30*lrs/explodes)**-2) + 1.5*(lrs/explodes)**4
    return clean + np.random.default_rng(seed).normal(0, noise, len(lrs))

def noise_alone(seed, n=100): return np.random.default_rng(seed).normal(2.3, 0.1, n)

@pytest.mark.parametrize('n', [50, 100, 1000])
@pytest.mark.parametrize('explodes', [0.01, 0.3, 5.])
def test_a_curve_is_read_where_it_falls_and_explodes(explodes, n):
    lrs = np.geomspace(1e-5, 10, n)
    curve = read_curve(lrs, loss_at(lrs, explodes), n)
    assert curve.half == pytest.approx(explodes/30, rel=0.4)
    assert curve.explodes == pytest.approx(explodes, rel=0.4)

def test_a_curve_may_neither_fall_nor_explode():
    assert read_curve(axis, loss_at(axis, 1e3, fall=0), 100) == (None, None)
    assert read_curve(axis, loss_at(axis, 0.3, fall=0), 100).half is None
    assert read_curve(axis, loss_at(axis, 1e3), 100).explodes is None
    noisy = [read_curve(axis, noise_alone(i), 100) for i in range(200)]
    for values in zip(*noisy): assert sum(o is not None for o in values) <= 10

def test_high_first_losses_change_little():
    losses = loss_at(axis, 0.3)
    high,want = (read_curve(axis, o, 100) for o in (losses+8*0.3**np.arange(100), losses))
    assert high == pytest.approx(want, rel=0.2)

def test_a_test_that_goes_on_has_the_peak_of_one_that_ends():
    "However many steps have exploded, they tell nothing about noise"
    for explodes in 1e-3,0.01,0.3:
        losses = loss_at(axis, explodes)
        n = int((losses < 30).argmin()) + 5
        assert read_curve(axis, losses, 100) == read_curve(axis[:n], losses[:n], 100, diverged=True)

def test_one_odd_batch_at_the_end_explodes_only_if_the_test_ended_there():
    lrs,losses = axis[:60],[*loss_at(axis, 10)[:59], 1e3]
    assert read_curve(lrs, losses, 100).explodes is None
    assert read_curve(lrs, losses, 100, diverged=True).explodes == lrs[-1]

def test_a_loss_that_is_nan_has_exploded():
    for k in range(1, 100):
        losses = loss_at(axis, 1e3, noise=0)
        losses[k:] = nan
        assert read_curve(axis, losses, 100).explodes == axis[k]
        best = find_peak(axis[:k+1], losses[:k+1], 100, usual=0.1)
        assert best.lr == pytest.approx(min(0.1, axis[k]/4))

# the peak

@pytest.mark.parametrize('usual', [0.1, 0.03])
def test_the_usual_rate_is_kept_unless_the_loss_explodes(usual):
    def peak_at(explodes): return find_peak(axis, loss_at(axis, explodes), 100, usual)
    never,late,early = map(peak_at, (1e3, 3, 0.03))
    assert never.lr == late.lr == usual
    assert f'usual {usual:g}' in never.why and 'does not explode' in never.why
    limit = read_curve(axis, loss_at(axis, 3), 100).explodes/4
    assert f'allows up to {limit:.2g}.' in late.why
    explodes = read_curve(axis, loss_at(axis, 0.03), 100).explodes
    assert early.lr == explodes/4
    assert f'explodes from {explodes:.3g} on' in early.why and f'below the usual {usual:g}' in early.why
    for best in never,late,early: assert best.band == pytest.approx((best.lr/10**0.5, best.lr*10**0.5))

def test_without_a_usual_rate_the_test_decides_alone():
    best = find_peak(axis, loss_at(axis, 0.3), 100, usual=None)
    assert best.lr == read_curve(axis, loss_at(axis, 0.3), 100).explodes/4
    assert 'explodes' in best.why and 'usual' not in best.why
    never = find_peak(axis, loss_at(axis, 1e3), 100, usual=None)
    assert never.lr == axis[-1]/4 and 'does not explode' in never.why

def test_the_rival_is_where_half_of_the_fall_is_done():
    best = find_peak(axis, loss_at(axis, 0.3), 100)
    assert best.rival == read_curve(axis, loss_at(axis, 0.3), 100).half and not best.is_certain
    assert find_peak(axis, loss_at(axis, 1e3), 100).rival == 0.1  # the loss falls only above that
    assert find_peak(axis, loss_at(axis, 2.), 100).is_certain

def test_a_loss_that_hardly_falls_has_a_peak_in_a_wide_band():
    for explodes,lr in (1e3, 0.1), (0.03, None):
        losses = loss_at(axis, explodes, fall=0)
        best = find_peak(axis, losses, 100)
        assert best.lr == (lr or read_curve(axis, losses, 100).explodes/4)
        assert best.band == pytest.approx((best.lr/10, best.lr*10)) and best.rival == best.lr/10

@pytest.mark.parametrize('losses,words', [
    ([], 'no step was measured'),
    ([nan], 'the very first training loss is nan'),
    ([math.inf,2.,2.], 'the very first training loss is inf'),
    ([2.]*100, 'the training loss is 2 in every step')])
def test_where_no_curve_helps(losses, words):
    best = find_peak(axis[:len(losses)], losses, 100)
    assert best.lr is best.band is best.rival is None and words in best.why

def test_a_loss_that_explodes_at_once_has_a_peak_below_the_test():
    for n in 2,6,30:
        losses = 2.*10**np.arange(n)
        best = find_peak(axis[70:70+n], losses, 100, diverged=True)
        assert best.lr <= axis[70+n-1]/4
        assert n == 2 or best.lr < axis[70]

def test_a_peak_outside_of_the_test_says_how_to_see_more():
    lrs = np.geomspace(1e-5, 1e-2, 100)
    best = find_peak(lrs, loss_at(lrs, 1e3), 100)
    assert best.why.endswith('It is above all rates that were tried: pass end_lr=1 to see more.')
    interrupted = find_peak(lrs[:30], loss_at(lrs[:30], 1e3), 100)
    assert interrupted.why.endswith('It is above all rates that were tried.')
    lrs = np.geomspace(0.01, 10, 100)
    best = find_peak(lrs, loss_at(lrs, 0.012), 100)
    assert best.lr < 0.01 and 'It is below all rates that were tried: pass start_lr=' in best.why
    assert 'were tried:' not in find_peak(axis, loss_at(axis, 0.3), 100).why

def test_two_steps_are_enough_for_an_answer():
    for losses in ([2.3,2.2], [2.2,2.3], [2.3,nan]):
        best = find_peak(axis[:2], losses, 100)
        assert best.lr == (axis[1]/4 if math.isnan(losses[1]) else 0.1)

@pytest.mark.parametrize('usual', [0.1, None])
def test_a_linear_test_may_start_at_0(usual):
    lrs = np.linspace(0, 3, 100, endpoint=False)
    for losses in loss_at(lrs+1e-9, 1.), 2+lrs, np.r_[3, 50, np.ones(98)], np.r_[2, [nan]*99]:
        best = find_peak(lrs, losses, 100, usual)
        assert best.lr > 0 and best.rival > 0 and best.band[0] > 0
    assert find_peak([0.], [2.], 100, usual).why == 'no step was measured.'

def test_one_step_with_a_rate_is_enough():
    assert find_peak([0.2], [2.], 100).lr == 0.1
    assert find_peak([0.2], [2.], 100, diverged=True).lr == 0.05

def test_peaks_follow_the_explosion():
    "Ten times the rate is ten times the peak; few steps and many agree"
    def peak_of(explodes, n=100):
        lrs = np.geomspace(1e-5, 10, n)
        return find_peak(lrs, loss_at(lrs, explodes), n, usual=None).lr
    assert 8 < peak_of(0.3)/peak_of(0.03) < 12
    assert 0.7 < peak_of(0.3, 1000)/peak_of(0.3) < 1.4

finite = st.floats(-1e6, 1e6)

@settings(deadline=None, max_examples=300)
@given(st.lists(finite | st.sampled_from([nan, math.inf, 1e30]), max_size=120), st.booleans(), st.booleans(),
       st.sampled_from([0.1, 0.03, None]))
def test_any_curve_has_an_answer(losses, is_linear, diverged, usual):
    n = len(losses)
    lrs = np.linspace(0, 1, 121)[:n] if is_linear else np.geomspace(1e-5, 10, 121)[:n]
    best = find_peak(lrs, losses, 120, usual, diverged)
    assert best.why.endswith('.')
    has_rate,is_finite,is_constant = any(lrs > 0),math.isfinite([*losses,0][0]),n > 1 and len({*losses}) == 1
    assert (best.lr is None) == (not has_rate or not is_finite or is_constant)
    if best.lr is None: return
    assert 0 < best.band[0] < best.lr < best.band[1] < math.inf and best.rival > 0
    assert best.lr <= (usual or lrs[-1]/4) and (usual is None or best.rival <= usual)
    lrs = candidates(best)
    assert lrs == [] if best.is_certain else lrs == sorted([best.lr,best.rival], reverse=True)

# the trials decide

sure = Peak(0.1, 'the usual 0.1.', (0.03,0.3), rival=0.05)
unsure = sure._replace(rival=0.01)

def test_a_certain_peak_needs_no_trial():
    assert candidates(sure) == [] and candidates(unsure) == [0.1, 0.01]
    assert candidates(unsure._replace(rival=0.5)) == [0.5, 0.1]

rates = st.floats(1e-6, 10)

@settings(deadline=None, max_examples=200)
@given(rates, rates)
def test_a_thorough_search_tries_at_most_five_different_rates(lr, rival):
    lrs = candidates(Peak(lr, '', (lr/3,lr*3), rival), thorough=True)
    assert 3 <= len(lrs) <= 5 and lrs == sorted(lrs, reverse=True)
    assert all(low < 0.8*high for high,low in zip(lrs, lrs[1:]))
    for wanted in lr,rival,lr/10,lr/10**0.5,rival/10**0.5:
        assert any(0.79 < wanted/o < 1.01 for o in lrs)  # at most 20% below one that is tried

def test_a_thorough_search_with_sgd_also_tries_half_a_decade_above_the_usual_rate():
    lrs = candidates(unsure, thorough=True, usual=0.1)
    assert lrs == pytest.approx([0.1*10**0.5, 0.1, 0.1/10**0.5, 0.01])
    assert max(candidates(unsure, thorough=True, usual=0.03)) == max(candidates(unsure, thorough=True)) == 0.1

def test_a_thorough_search_without_a_second_opinion():
    assert candidates(unsure, thorough=True) == pytest.approx([0.1, 0.1/10**0.5, 0.01, 0.01/10**0.5])
    assert candidates(unsure._replace(rival=0.1), thorough=True) == pytest.approx([0.1, 0.1/10**0.5, 0.01])

def trials(lrs, train, valid=None):
    return pd.DataFrame(dict(lr=lrs, train_loss=train, valid_loss=[nan]*len(lrs) if valid is None else valid))

inf = math.inf

def test_the_lowest_validation_loss_decides():
    best = decide(unsure, trials([0.1,0.01], [0.1,0.2], [0.5,0.4]))
    assert best.lr == 0.01 and best.band == pytest.approx((0.003,0.03))
    assert best.why == 'a short cycle there ends with a validation loss of 0.4, the lowest of 2 (0.5 at 0.1).'
    best = decide(unsure, trials([0.1,0.01], [0.2,0.1], [0.4,0.5]))
    assert best[:3] == (0.1, best.why, unsure.band) and best.why.endswith('(0.5 at 0.01). The usual 0.1.')

def test_of_equal_trials_the_higher_rate_wins():
    assert decide(unsure, trials([0.1,0.01], [0.2,0.2], [0.4,0.4])).lr == 0.1

@pytest.mark.parametrize('valid', [None, [0.3,nan]])
def test_without_validation_the_training_loss_decides(valid):
    best = decide(unsure, trials([0.1,0.01], [0.2,0.1], valid))
    assert best.lr == 0.01 and 'training loss of 0.1' in best.why

def test_trials_that_diverge():
    best = decide(unsure, trials([0.1,0.01], [inf,0.2], [inf,0.4]))
    assert best.lr == 0.01 and 'the lowest of 2 (0.1 diverged)' in best.why
    assert decide(unsure, trials([0.1,0.01], [inf,0.2])).lr == 0.01
    for valid in [inf,inf],None:
        best = decide(unsure, trials([0.1,0.01], [inf,inf], valid))
        assert best.lr == pytest.approx(0.001) and best.band == pytest.approx((0.0003,0.003))
        assert best.why == 'all 2 trials diverged, so the peak is a tenth of the lowest, 0.01.'

def test_a_trial_that_a_callback_ends_says_nothing():
    assert decide(unsure, trials([0.1,0.01], [nan,0.2], [nan,0.4])).lr == 0.01
    assert decide(unsure, trials([0.1,0.01], [nan,inf], [nan,inf])).lr == pytest.approx(0.001)
    best = decide(unsure, trials([0.1,0.01], [nan,nan]))
    assert best.lr == 0.1 and best.why == 'the usual 0.1. A callback ended every trial.'

def test_one_trial_has_nothing_to_be_compared_with():
    best = decide(unsure, trials([0.03], [0.2], [0.4]))
    assert best.lr == 0.03 and best.why == 'a short cycle there ends with a validation loss of 0.4.'

# the kind of the optimiser

class SGDW(torch.optim.SGD):
    "Decoupled weight decay, as timm's"
    def __init__(self, params, lr=0.1, weight_decay=0.1): super().__init__(params, lr, 0.9, 0, weight_decay)
    def step(self, closure=None):
        group, = self.param_groups
        wd = group['weight_decay']
        with torch.no_grad():
            for p in group['params']: p.mul_(1-wd*group['lr'])
        group['weight_decay'] = 0
        super().step()
        group['weight_decay'] = wd

class Lion(torch.optim.Optimizer):
    "Steps of equal length, by the sign of a mean of gradients"
    def __init__(self, params, lr=1e-3, weight_decay=0.): super().__init__(params, dict(lr=lr))
    @torch.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]['params']:
            mean = self.state[p].setdefault('exp_avg', torch.zeros_like(p))
            p.sub_((0.9*mean + 0.1*p.grad).sign()*self.param_groups[0]['lr'])
            mean.lerp_(p.grad, 0.01)

def schedule_free(base):
    "An optimiser like `base` that wants to be told whether it trains"
    class ScheduleFree(base):
        trains = False
        def train(self): self.trains = True
        def step(self, closure=None):
            if not self.trains: raise RuntimeError('call train() first')
            return super().step(closure)
    return ScheduleFree

def of_torch(opt, **kwargs): return partial(OptimWrapper, opt=opt, **kwargs)
def broken(params, lr): raise KeyError('broken')

t = torch.optim
adafactor = getattr(t, 'Adafactor', t.Adam)  # since torch 2.5
optimisers = dict(
    sgd = [SGD, partial(SGD, mom=0.9, wd=0.1), sgd, of_torch(t.SGD), of_torch(SGDW), of_torch(t.ASGD),
           of_torch(t.SGD, momentum=0.9, nesterov=True), of_torch(schedule_free(t.SGD)),
           OptimWrapper([nn.Parameter(torch.ones(1))], t.SGD, lr=0.1)],
    adaptive = [Adam, partial(Adam, wd=0.1), RAdam, QHAdam, Lamb, RMSProp, ranger, of_torch(t.AdamW),
                of_torch(t.Adam, amsgrad=True), of_torch(t.NAdam), of_torch(t.RMSprop), of_torch(t.Adagrad),
                of_torch(adafactor), of_torch(schedule_free(t.AdamW)),
                OptimWrapper([nn.Parameter(torch.ones(1))], t.AdamW, lr=0.1)],
    other = [Larc, of_torch(Lion), of_torch(t.Rprop), of_torch(t.LBFGS), broken, None])

@pytest.mark.parametrize('kind', optimisers)
def test_the_kind_of_an_optimiser(kind):
    before = repr(get_random_states())
    found = [kind_of_optimiser(o) for o in optimisers[kind]]
    assert found == [None if kind == 'other' else kind]*len(found)
    assert repr(get_random_states()) == before
    assert usual_rates.get(found[0]) == dict(sgd=0.1, adaptive=0.03).get(kind)

# in stock `lr_find`

def test_as_stock_lr_find_calls_it():
    "`peak` undoes fastai's smoothing"
    smooth = AvgSmoothLoss()
    lagging = []
    losses = loss_at(axis, 0.3)
    for loss in losses:
        smooth.accumulate(SimpleNamespace(loss=tensor(loss)))
        lagging.append(smooth.value.item())
    shown = slice(10,-5)
    lr,point = peak(axis[shown], np.array(lagging)[shown], 100, usual=None)
    assert abs(math.log10(lr/find_peak(axis, losses, 100, usual=None).lr)) < 0.15
    assert point[0] == lr and min(lagging) <= point[1] <= max(lagging)
    assert peak(axis[shown], np.array(lagging)[shown], 100)[0] == lr  # below 0.1
    assert peak(axis[shown], np.array(lagging)[shown], 100, usual=0.03)[0] == 0.03
    assert peak(axis, [nan]*100, 100)[0] is None

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

@pytest.mark.parametrize('other,peak', [(0.49, 0.1), (0.477, 0.1), (0.47, 0.01), (0.1, 0.01)])
def test_a_rival_that_is_hardly_better_does_not_move_the_peak(other, peak):
    trials = pd.DataFrame(dict(lr=[0.1,0.01], train_loss=[1.,1.], valid_loss=[0.5,other]))
    best = decide(Peak(0.1, 'the usual 0.1.', (0.03,0.3), 0.01), trials, margin=0.05)
    assert best.lr == peak and best.band == pytest.approx((0.3*peak, 3*peak))
    assert ('at most 5% above the lowest (' in best.why) == (peak == 0.1)
    assert decide(Peak(0.1, 'the usual 0.1.', (0.03,0.3), 0.01), trials).lr == 0.01

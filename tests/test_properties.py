"""What must hold of the schedule for any legal arguments, of any fit and of any resumed one.

In a cycle of `nb` steps with c = int(nb*(1-pct/100)/2), the corners of the curve, 0, c and 2c, are steps.
So two neighbouring steps lie on one leg, and their difference is exactly that leg's slope: (1-1/div)/c up
to c, the negative of it up to 2c, and then, for what the factor 0.99 leaves, -0.99/(div*(nb-2c)). From
cycle to cycle the curve jumps.

`div` below 1 is legal: the cycle starts above its `lr`, at lr/div, and at c is in a valley. The last leg,
on its way to a hundredth of the start, may go below this valley or not (div<0.01). So `lr` is the peak only
from div=1 on; at c the factor is 1 in any case.
"""
import contextlib, io, os, tempfile
import pytest
from hypothesis import Phase, assume, example, given, settings, strategies as st
from fastai_clrbeta.all import *
from fastai_clrbeta import values
import helpers, test_parity as parity
from test_parity import reference

# In CI always the same examples, so that a failure is the fault of the change at hand and can be repeated.
# Elsewhere new ones, to find more.
quick = settings(deadline=None, max_examples=60, derandomize='CI' in os.environ, database=None)
runs  = settings(quick, max_examples=8)

class Case(namedtuple('Case', 'nb div pct mom_max mom_min')):
    "The arguments of one cycle"
    @property
    def c(self): return int(self.nb*(1-self.pct/100)/2)
    def lr (self, i): return clr_beta_lr (i, self.nb, self.div, self.pct)
    def mom(self, i): return clr_beta_mom(i, self.nb, self.pct, self.mom_max, self.mom_min)
    def lrs (self): return [self.lr (i) for i in range(self.nb)]
    def moms(self): return [self.mom(i) for i in range(self.nb)]
    def leg(self, up, flat):
        "A value for each step after i = 0,1,…"
        return [up]*self.c + [-up]*self.c + [flat]*(self.nb-2*self.c)
    @property
    def args(self): return (self.div, self.pct, self.mom_max, self.mom_min)

def fractions(hi, **kwargs):
    "Also those that people write"
    return st.floats(0, hi, **kwargs) | st.integers(0, int(hi*100)-1).map(lambda o: o/100)

@st.composite
def cycles(draw, nb=st.integers(2, 500), div=st.floats(1e-3, 1e4) | st.integers(1, 50)):
    nb = draw(nb)
    pct = draw(fractions(100*(1-2/nb))) if nb > 2 else 0
    mom_max = draw(fractions(1, exclude_max=True))
    mom_min = draw(fractions(mom_max)) if mom_max >= 0.01 else mom_max
    res = Case(nb, draw(div), pct, mom_max, mom_min)
    assume(res.c)  # `pct` may have been rounded over the edge
    return res

def near(a, b, div=1.): np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-14*max(1, 1/div))

# Each of these takes any `Case`

def neighbours_differ_by_the_slope_of_their_leg(o):
    near(np.diff(o.lrs()), o.leg((1-1/o.div)/o.c, -0.99/(o.div*max(1, o.nb-2*o.c)))[:-1], o.div)

def continuous(o):
    "No step is steeper than the steepest leg"
    steepest = max(abs(1-1/o.div)/o.c, 0.99/(o.div*(o.nb-2*o.c)) if o.nb > 2*o.c else 0)
    assert np.abs(np.diff(o.lrs())).max() <= steepest*(1+1e-9) + 1e-14*max(1, 1/o.div)

def bounds(o):
    lrs = np.array(o.lrs())
    assert min(1, 0.01/o.div) <= lrs.min()*(1+1e-13*max(1, 1/o.div))
    assert lrs.max() <= max(1, 1/o.div)*(1+1e-15)
    if o.div >= 0.01: assert 0.01/o.div < lrs.min()
    if o.div >= 1: assert lrs[:2*o.c+1].min() >= 1/o.div*(1-1e-15)  # only the last leg goes below the start

def start_and_peak(o):
    near(o.lr(0), 1/o.div)
    if o.div >= 0.5: assert o.lr(o.c) == 1  # exactly: below that, 1+(div-1) loses digits
    near(o.lr(o.c), 1, o.div)
    if o.div >= 1: assert o.lr(o.c) == max(o.lrs())
    else:          assert o.lr(o.c) == min(o.lrs()[:2*o.c+1])

def last_step(o):
    rest = o.nb-2*o.c
    near(o.lr(o.nb-1), (1 - 0.99*(rest-1)/rest)/o.div if rest else (1 + (o.div-1)/o.c)/o.div, o.div)

def cycles_are_equal(o):
    for k in (1,2,7):
        for i in {0, o.c, 2*o.c, o.nb-1}:
            assert o.lr(i) == o.lr(i+k*o.nb)
            assert o.mom(i) == o.mom(i+k*o.nb)

def momentum_in_its_bounds(o):
    moms = np.array(o.moms())
    assert o.mom_min-1e-15 <= moms.min() and moms.max() <= o.mom_max
    near(moms[o.c-1], o.mom_min)  # c is the step after
    assert o.mom(2*o.c-1) == o.mom_max  # step 2c, or 0 of the next cycle
    assert o.mom(o.nb-1) == o.mom_max   # step 0

def momentum_is_one_step_ahead(o):
    "The momentum is as far on its way as the learning rate of the next step, in the other direction"
    for i,mom in enumerate(o.moms()):
        j = (i+1) % o.nb
        way = 2*clr_beta_lr(j, o.nb, 2, o.pct) - 1 if j <= 2*o.c else 0
        near(mom, o.mom_max - way*(o.mom_max-o.mom_min))

def equal_to_the_reference(o):
    lrs,moms = reference(o.nb, o.div, o.pct, (o.mom_max,o.mom_min), [1.,0.3], 2)
    near([[f, 0.3*f] for f in o.lrs()*2], lrs, o.div)
    near([[m,m] for m in o.moms()*2], moms)
    cb = CLRBeta(*o.args)
    assert [cb.lr_at(i, o.nb) for i in range(o.nb)] == o.lrs()
    assert [cb.mom_at(i, o.nb) for i in range(o.nb)] == o.moms()

always = [neighbours_differ_by_the_slope_of_their_leg, continuous, bounds, start_and_peak, last_step,
          cycles_are_equal, momentum_in_its_bounds, momentum_is_one_step_ahead, equal_to_the_reference]

@pytest.mark.parametrize('prop', always, ids=lambda o: o.__name__)
@quick
@given(o=cycles())
@example(o=Case(2, 10, 0, 0.95, 0.85)).via('no step after the peak')
@example(o=Case(100, 10, 0, 0.95, 0.85)).via('no last leg')
@example(o=Case(101, 0.5, 0, 0.95, 0.95)).via('a last leg of one step, a peak below the start')
@example(o=Case(49*98, 10, 13.68, 0.95, 0.8)).via('49 epochs of CIFAR-10')
def test_always(prop, o): prop(o)

def too_short_is_an_error(nb, pct):
    "Only a cycle without room for a peak is an error; it says what was given and how many steps are needed"
    for f in (clr_beta_lr, clr_beta_mom):
        if int(nb*(1-pct/100)/2): assert math.isfinite(f(0, nb, pct=pct)); continue
        msg = fr'a cycle of {nb} steps .*pct={re.escape(str(pct))}: .*at least (\d+) steps.* longer cycle_len'
        with pytest.raises(ValueError, match=msg) as e: f(0, nb, pct=pct)
        need = int(re.search(msg, str(e.value))[1])
        assert need > nb and math.isfinite(f(0, need, pct=pct))
        with pytest.raises(ValueError): f(0, need-1, pct=pct)

@quick
@given(nb=st.integers(1, 60), pct=st.floats(0, 99.9) | st.integers(0, 99))
def test_too_short(nb, pct): too_short_is_an_error(nb, pct)

@st.composite
def fits(draw, n_iter):
    "Arguments of `fit_clr_beta` for an epoch of `n_iter` steps"
    cycle_len = draw(st.integers(1, 2))
    o = draw(cycles(st.just(n_iter*cycle_len), st.floats(0.5, 50)))
    lrs,n_cycle = draw(st.floats(1e-4, 0.1)),draw(st.integers(1, 2))
    use_clr_beta = o.args[:draw(st.sampled_from([2,4]))]
    return dict(lrs=lrs, n_cycle=n_cycle, cycle_len=cycle_len, use_clr_beta=use_clr_beta)

def fit_trains_by_the_reference(kw, n_groups, tail):
    "Of every step and parameter group; and from `start_epoch` on, the rest of the same curve"
    over_groups = dict(lrs=slice(kw['lrs']/9, kw['lrs']))
    fit = lambda **kwargs: parity.fit(parity.learner(4, n_groups), **kw | over_groups | kwargs)
    peaks = [kw['lrs']] if n_groups==1 else np.geomspace(kw['lrs']/9, kw['lrs'], n_groups)
    div,pct,*moms = kw['use_clr_beta']
    lrs,moms = reference(4*kw['cycle_len'], div, pct, moms or (0.9,0.9), peaks, kw['n_cycle'])
    whole = fit()
    near(whole.lrs, lrs); near(whole.moms, moms)
    start = tail % (kw['cycle_len']*kw['n_cycle'])
    rest = fit(start_epoch=start)
    assert rest.lrs == whole.lrs[4*start:] and rest.moms == whole.moms[4*start:]

@runs
@given(kw=fits(4), n_groups=st.integers(1, 3), tail=st.integers(0, 3))
def test_fit(kw, n_groups, tail): fit_trains_by_the_reference(kw, n_groups, tail)

def model():
    "With dropout and BatchNorm; the loader of `helpers.learner` shuffles"
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))

def train(path, cbs=(), **kwargs):
    learn = helpers.learner(path, cbs, model=model)
    with learn.no_bar(), learn.no_logging(), contextlib.redirect_stdout(io.StringIO()):
        learn.fit_clr_beta(**kwargs)
    return helpers.outcome(learn)

def resumed_is_uninterrupted(kw, every_iter, at, event):
    "Kill a run in a step and resume it in a new Learner: weights, bit for bit, and history are the same"
    with tempfile.TemporaryDirectory() as d:
        whole = train(Path(d), **kw)
        at = 1 + at % (6*kw['cycle_len']*kw['n_cycle']-1)
        kw = dict(kw, checkpoint='run', every_iter=every_iter)
        with pytest.raises(KeyboardInterrupt): train(Path(d), helpers.CrashAt(event, at), **kw)
        assert train(Path(d), resume=True, **kw) == whole

@runs
@given(kw=fits(6), every_iter=st.none() | st.integers(2, 8), at=st.integers(0, 23),
       event=st.sampled_from('before_batch after_pred after_step after_batch'.split()))
@pytest.mark.filterwarnings('ignore:The checkpoint was made with CrashAt')
def test_resume(kw, every_iter, at, event): resumed_is_uninterrupted(kw, every_iter, at, event)

# Can these tests fail? In place of the functions they get others, with one thing changed.

right_lr,right_mom = clr_beta_lr,clr_beta_mom

def another_lr(peak=int, end=0.99):
    "The curve with another way to round the step of its peak, or another end"
    def lr(i, nb, div=10, pct=10):
        c,i = peak(nb*(1-pct/100)/2), i%nb
        if i <= 2*c: return (1 + max(0., 1-abs(i-c)/c)*(div-1))/div
        return (1 - end*(i-2*c)/(nb-2*c))/div
    return lr

wrong_lrs = {
    'ends at 0':            another_lr(end=1.),
    'ends too high':        another_lr(end=0.98),
    'rounds up':            another_lr(peak=math.ceil),
    'rounds':               another_lr(peak=round),
    'peaks a step late':    another_lr(peak=lambda c: int(c)+1),
    'a step late':          lambda i, nb, div=10, pct=10: right_lr(i-1, nb, div, pct),
    'a step early':         lambda i, nb, div=10, pct=10: right_lr(i+1, nb, div, pct),
    'only one cycle':       lambda i, nb, div=10, pct=10: right_lr(min(i, nb-1), nb, div, pct),
    'another pct':          lambda i, nb, div=10, pct=10: right_lr(i, nb, div, pct*100/101),
    'another div':          lambda i, nb, div=10, pct=10: right_lr(i, nb, div*1.001, pct),
    'never below a floor':  lambda i, nb, div=10, pct=10: max(right_lr(i, nb, div, pct), 0.02/div)}

wrong_moms = {
    'not ahead':            lambda i, nb, pct, hi, lo: right_mom(i-1, nb, pct, hi, lo),
    'only one cycle':       lambda i, nb, pct, hi, lo: right_mom(i, nb, pct, hi, lo) if i < nb else hi,
    'the other way':        lambda i, nb, pct, hi, lo: 2*hi - right_mom(i, nb, pct, hi, lo),
    'begins low':           lambda i, nb, pct, hi, lo: right_mom(i, nb, pct, hi, lo) - hi + lo}

def finds_a_case(prop, cases):
    "Return True if a search, always the same one, finds a case for which `prop` does not hold"
    @settings(quick, max_examples=80, derandomize=True, phases=[Phase.generate], report_multiple_bugs=False)
    @given(cases)
    def run(args): prop(*args)
    try: run()
    except (AssertionError, ZeroDivisionError): return True

def is_found(): return any(finds_a_case(lambda *o: prop(Case(*o)), cycles())
                           for prop in always if prop is not equal_to_the_reference)

@pytest.mark.parametrize('wrong', wrong_lrs.values(), ids=wrong_lrs)
def test_a_wrong_learning_rate_is_found_without_the_reference(wrong, monkeypatch):
    monkeypatch.setitem(globals(), 'clr_beta_lr', wrong)
    assert is_found()

@pytest.mark.parametrize('wrong', wrong_moms.values(), ids=wrong_moms)
def test_a_wrong_momentum_is_found_without_the_reference(wrong, monkeypatch):
    monkeypatch.setitem(globals(), 'clr_beta_mom', wrong)
    assert is_found()

@pytest.mark.parametrize('factor,least', [(1,1), (3,1), (2,2)])
def test_a_wrong_error_is_found(factor, least, monkeypatch):
    def lr(i, nb, div=10, pct=10):
        if int(nb*(1-pct/100)/2) >= least: return right_lr(i, nb, div, pct)
        raise ValueError(f"a cycle of {nb} steps has no room for a peak with pct={pct}: it needs at least "
                         f"{math.ceil(factor/(1-pct/100))} steps. Use a longer cycle_len")
    monkeypatch.setitem(globals(), 'clr_beta_lr', lr)
    def prop(nb, pct):
        try: too_short_is_an_error(nb, pct)
        except (ValueError, pytest.fail.Exception) as e: raise AssertionError from e
    assert finds_a_case(prop, st.tuples(st.integers(1, 60), st.integers(0, 99)))

@pytest.mark.parametrize('step', [
    lambda cb, i: i-1,                                          # a step late
    lambda cb, i: i if cb.learn is None else cb.learn.train_iter]) # counts from 0, whatever `start_epoch` is
def test_a_wrong_step_of_a_fit_is_found(step, monkeypatch):
    fixed = dict(lrs=0.05, n_cycle=2, cycle_len=2, use_clr_beta=(10,13.68,0.95,0.8))
    fit_trains_by_the_reference(fixed, 2, 3)
    monkeypatch.setattr(CLRBeta, 'lr_at', lambda self, i, nb: right_lr(step(self, i), nb, self.div, self.pct))
    with pytest.raises(AssertionError): fit_trains_by_the_reference(fixed, 2, 3)

@pytest.mark.parametrize('kind', [values.Generators, values.Tensors, values.Objects])
@pytest.mark.filterwarnings('ignore:The checkpoint was made with CrashAt')
def test_a_part_that_is_not_restored_is_found(kind, monkeypatch):
    schedule = dict(lrs=0.05, n_cycle=1, cycle_len=2, use_clr_beta=(10,13.68,0.95,0.8))
    fixed = dict(kw=schedule, every_iter=4, at=5, event='after_step')
    resumed_is_uninterrupted(**fixed)
    monkeypatch.setattr(kind, 'fill', lambda *args, **kwargs: None)
    with pytest.raises(AssertionError): resumed_is_uninterrupted(**fixed)

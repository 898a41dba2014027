"""What must hold of the schedule for any legal arguments, of any fit and of any resumed one.

In a cycle of `nb` steps with c = int(nb*(1-pct/100)/2), the corners of the curve, 0, c and 2c, are steps, so two neighbouring steps lie
on one leg and their difference is that leg's slope, exactly: (1-1/div)/c up to c, the negative of it up to 2c, and from there on,
for what the factor 0.99 leaves, -0.99/(div*(nb-2c)). From cycle to cycle the curve jumps.

`div` below 1 is legal: the cycle starts above its `lr`, at lr/div, and at c is in a valley, which the last leg, on its way to a hundredth
of the start, may go below or not (div<0.01). So `lr` is the peak only from div=1 on; at c the factor is 1 in any case.
"""
import inspect, os, tempfile
import pytest
from hypothesis import Phase, assume, example, given, settings, strategies as st
from fastai_clrbeta.all import *
from fastai_clrbeta import schedule, values
import test_parity as parity, test_resume as resuming
from test_parity import reference

# In CI always the same examples: what fails there is the fault of the change at hand, and can be seen again. Elsewhere new ones, to find more
quick = settings(deadline=None, max_examples=200, derandomize='CI' in os.environ, database=None)
runs  = settings(quick, max_examples=25)

@pytest.fixture(autouse=True, scope='module')
def one_thread():
    "For these tiny models more threads only wait for each other"
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)

class Case(namedtuple('Case', 'nb div pct mom_max mom_min')):
    "The arguments of one cycle"
    @property
    def c(self): return int(self.nb*(1-self.pct/100)/2)
    def lr (self, i): return clr_beta_lr (i, self.nb, self.div, self.pct)
    def mom(self, i): return clr_beta_mom(i, self.nb, self.pct, self.mom_max, self.mom_min)
    def lrs (self): return [self.lr (i) for i in range(self.nb)]
    def moms(self): return [self.mom(i) for i in range(self.nb)]
    def leg(self, up, flat): return [up]*self.c + [-up]*self.c + [flat]*(self.nb-2*self.c)  # of the steps after i = 0,1,…
    @property
    def args(self): return (self.div, self.pct, self.mom_max, self.mom_min)

def fractions(hi, **kwargs): return st.floats(0, hi, **kwargs) | st.integers(0, int(hi*100)-1).map(lambda o: o/100)  # also those that people write

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
    assert min(1, 0.01/o.div) <= lrs.min()*(1+1e-13*max(1, 1/o.div)) and lrs.max() <= max(1, 1/o.div)*(1+1e-15)
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
        for i in {0, o.c, 2*o.c, o.nb-1}: assert o.lr(i) == o.lr(i+k*o.nb) and o.mom(i) == o.mom(i+k*o.nb)

def momentum_in_its_bounds(o):
    moms = np.array(o.moms())
    assert o.mom_min-1e-15 <= moms.min() and moms.max() <= o.mom_max
    near(moms[o.c-1], o.mom_min)  # c is the step after
    assert o.mom(2*o.c-1) == o.mom_max and o.mom(o.nb-1) == o.mom_max  # step 2c, or 0 of the next cycle; step 0

def momentum_is_one_step_ahead(o):
    "Where the next step's learning rate is on its way up or down, its momentum is as far on its own, the other way"
    for i,mom in enumerate(o.moms()):
        j = (i+1) % o.nb
        way = 2*clr_beta_lr(j, o.nb, 2, o.pct) - 1 if j <= 2*o.c else 0
        near(mom, o.mom_max - way*(o.mom_max-o.mom_min))

def equal_to_the_reference(o):
    lrs,moms = reference(o.nb, o.div, o.pct, (o.mom_max,o.mom_min), [1.,0.3], 2)
    near([[f, 0.3*f] for f in o.lrs()*2], lrs, o.div)
    near([[m,m] for m in o.moms()*2], moms)
    cb = CLRBeta(*o.args)
    assert [cb.lr_at(i, o.nb) for i in range(o.nb)] == o.lrs() and [cb.mom_at(i, o.nb) for i in range(o.nb)] == o.moms()

always = [neighbours_differ_by_the_slope_of_their_leg, continuous, bounds, start_and_peak, last_step, cycles_are_equal, momentum_in_its_bounds,
          momentum_is_one_step_ahead, equal_to_the_reference]

@pytest.mark.parametrize('prop', always, ids=lambda o: o.__name__)
@quick
@given(o=cycles())
@example(o=Case(2, 10, 0, 0.95, 0.85)).via('no step after the peak')
@example(o=Case(100, 10, 0, 0.95, 0.85)).via('no last leg')
@example(o=Case(101, 0.5, 0, 0.95, 0.95)).via('a last leg of one step, a peak below the start')
@example(o=Case(49*98, 10, 13.68, 0.95, 0.8)).via('49 epochs of CIFAR-10')
def test_always(prop, o): prop(o)

def too_short_is_an_error(nb, pct):
    "A cycle without room for a peak is an error that names what was given and how many steps would do; no other is"
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
    return dict(lrs=lrs, n_cycle=n_cycle, cycle_len=cycle_len, use_clr_beta=o.args[:draw(st.sampled_from([2,4]))])

def fit_trains_by_the_reference(kw, n_groups, tail):
    "Of every step and parameter group; and from `start_epoch` on, the rest of the same curve"
    fit = lambda **k: parity.fit(parity.learner(4, n_groups), **{**kw, 'lrs':slice(kw['lrs']/9, kw['lrs'])}, **k)
    peaks = [kw['lrs']] if n_groups==1 else np.geomspace(kw['lrs']/9, kw['lrs'], n_groups)
    lrs,moms = reference(4*kw['cycle_len'], *kw['use_clr_beta'][:2], kw['use_clr_beta'][2:] or (0.9,0.9), peaks, kw['n_cycle'])
    whole = fit()
    near(whole.lrs, lrs); near(whole.moms, moms)
    start = tail % (kw['cycle_len']*kw['n_cycle'])
    rest = fit(start_epoch=start)
    assert rest.lrs == whole.lrs[4*start:] and rest.moms == whole.moms[4*start:]

@runs
@given(kw=fits(4), n_groups=st.integers(1, 3), tail=st.integers(0, 3))
def test_fit(kw, n_groups, tail): fit_trains_by_the_reference(kw, n_groups, tail)

class Cut(Callback):
    "Ctrl-C in `event` of the step `at`, counted over the whole run"
    order = 2000
    def __init__(self, event, at): self.at = at; setattr(self, event, self._cut)
    def _cut(self):
        if self.training and self.epoch*self.n_iter + self.iter == self.at: raise KeyboardInterrupt

def resumed_is_uninterrupted(kw, every_iter, cut, event):
    "Cut at a step, gone on in a new Learner: the same weights, bit for bit, and one history. With dropout, BatchNorm and a shuffled loader"
    with tempfile.TemporaryDirectory() as d:
        train = lambda cbs=None,**k: resuming.train(resuming.learner(Path(d), cbs), **{**kw, 'every_iter':every_iter, **k})
        whole = train(checkpoint=None, every_iter=None)
        with pytest.raises(KeyboardInterrupt): train(Cut(event, cut % len(whole.recorder.lrs)))
        resuming.same(train(resume=True), whole)

@runs
@given(kw=fits(6), every_iter=st.none() | st.integers(2, 8), cut=st.integers(0, 23),
       event=st.sampled_from('before_batch after_pred after_step after_batch'.split()))
def test_resume(kw, every_iter, cut, event): resumed_is_uninterrupted(kw, every_iter, cut, event)

# Can these tests fail? The code with one thing changed, in memory

def mutant(old, new, *objs):
    "The functions `objs` of the module `schedule`, with `new` for `old` in their text"
    text = '\n'.join(inspect.getsource(o) for o in objs)
    assert old in text
    ns = dict(vars(schedule))
    exec(text.replace(old, new), ns)
    return ns

def found(prop, cases):
    "Does a search find a case for which `prop` is not so? Always the same search, without looking for the simplest case"
    @settings(quick, max_examples=80, derandomize=True, phases=[Phase.generate], report_multiple_bugs=False)
    @given(cases)
    def run(args): prop(*args)
    try: run(); return False
    except (AssertionError, ZeroDivisionError): return True

@pytest.mark.parametrize('old,new', [
    ('0.99', '1.0'), ('0.99', '0.98'), ('pct/100', 'pct/101'), ('int(nb', 'round(nb'), ('    i = i % nb\n', ''), ('i <= 2*c', 'i <= 2*c+1'),
    ('(nb-2*c)', '(nb-2*c+1)'), ('(i-2*c)', '(i-2*c+1)'), ('abs(i-c)/c', 'abs(i-c)/(c+1)'), ('max(0., ', 'max(0.01, '), ('(div-1)', '(div-1.01)'),
    ('(i+1)%nb', 'i%nb'), ('(i+1)%nb', '(i+1)'), ('(mom_min-mom_max)', '(mom_max-mom_min)'), ('    return mom_max + ', '    return mom_min + ')])
def test_mutants_of_the_schedule_are_found(old, new, monkeypatch):
    "And not only by the comparison with the reference"
    ns = mutant(old, new, schedule._peak_step, schedule._triangle, clr_beta_lr, clr_beta_mom)
    for k in ('clr_beta_lr','clr_beta_mom'):
        for where in (globals(), vars(schedule)): monkeypatch.setitem(where, k, ns[k])
    assert any(found(lambda *o: prop(Case(*o)), cycles()) for prop in always if prop is not equal_to_the_reference)

@pytest.mark.parametrize('old,new', [('math.ceil(2/', 'math.ceil(1/'), ('math.ceil(2/', 'math.ceil(3/'), ('if c: return', 'if c>1: return')])
def test_mutants_of_the_error_are_found(old, new, monkeypatch):
    monkeypatch.setitem(globals(), 'clr_beta_lr', mutant(old, new, schedule._peak_step, clr_beta_lr)['clr_beta_lr'])
    def prop(nb, pct):
        try: too_short_is_an_error(nb, pct)
        except (ValueError, pytest.fail.Exception) as e: raise AssertionError from e
    assert found(prop, st.tuples(st.integers(1, 60), st.integers(0, 99)))

def test_mutants_of_the_fit_are_found(monkeypatch):
    fixed = dict(lrs=0.05, n_cycle=2, cycle_len=2, use_clr_beta=(10,13.68,0.95,0.8))
    fit_trains_by_the_reference(fixed, 2, 3)
    monkeypatch.setattr(CLRBeta, 'lr_at', lambda self,i,nb: clr_beta_lr(i-1, nb, self.div, self.pct))
    with pytest.raises(AssertionError): fit_trains_by_the_reference(fixed, 2, 3)
    monkeypatch.undo()
    ns = mutant('self.first_step+self.iter', 'self.train_iter', CLRBeta)  # fastai's counter, which starts at 0 whatever `start_epoch` is
    monkeypatch.setitem(vars(schedule), 'CLRBeta', ns['CLRBeta'])
    with pytest.raises(AssertionError): fit_trains_by_the_reference(fixed, 2, 3)

@pytest.mark.parametrize('kind', [values.Generators, values.Tensors, values.Objects])
def test_mutants_of_resuming_are_found(kind, monkeypatch):
    fixed = dict(kw=dict(lrs=0.05, n_cycle=1, cycle_len=2, use_clr_beta=(10,13.68,0.95,0.8)), every_iter=4, cut=5, event='after_step')
    resumed_is_uninterrupted(**fixed)
    monkeypatch.setattr(kind, 'fill', lambda *args, **kwargs: None)
    with pytest.raises(AssertionError): resumed_is_uninterrupted(**fixed)

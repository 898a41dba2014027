"Equal to fastai 0.7, step by step"
import json
import pytest
from fastai_clrbeta.all import *
from helpers import digits

class Watch(Callback):
    "What every parameter group really had in each step, and the loss of each"
    order = 99
    def before_fit(self): self.lrs,self.moms,self.raw = [],[],[]
    def before_step(self):
        groups = self.opt.hypers
        self.lrs.append([h['lr'] for h in groups])
        self.moms.append([h['mom'] for h in groups])
    def after_batch(self):
        if self.training: self.raw.append(self.loss.item())

def learner(n_batches, n_groups=1, opt_func=sgd):
    "A `Learner` of `n_groups` layers, each a parameter group, and `n_batches` batches an epoch"
    torch.manual_seed(0)
    x,y = torch.randn(4*n_batches, 5),torch.randn(4*n_batches, 5)
    ds = list(zip(x, y))
    dls = DataLoaders(DataLoader(ds, bs=4), DataLoader(ds[:8], bs=4), device='cpu')
    model = nn.Sequential(*[nn.Linear(5,5) for _ in range(n_groups)])
    layers = lambda m: [list(o.parameters()) for o in m]
    return Learner(dls, model, loss_func=MSELossFlat(), opt_func=opt_func, splitter=layers)

def fit(learn, *args, **kwargs):
    watch = Watch()
    with learn.no_bar(), learn.no_logging(): learn.fit_clr_beta(*args, cbs=watch, **kwargs)
    return watch

torch_adam = partial(OptimWrapper, opt=torch.optim.Adam)

def test_golden_schedules():
    "Two schedules as fastai 0.7 produced them: learning rate and momentum of every step and parameter group"
    cases = json.loads((Path(__file__).parent/'golden/schedules.json').read_text(encoding='utf-8'))
    assert len(cases) == 2
    for c in cases:
        lrs = c['lrs']
        for opt_func in [Adam, torch_adam] if c['adam'] else [sgd, partial(SGD, mom=0.9)]:
            learn = learner(c['nb'], len(c['lr'][0]), opt_func)
            watch = fit(learn, lrs, c['cycles'], use_clr_beta=(c['div'], c['pct'], *(c['moms'] or [])))
            np.testing.assert_allclose(watch.lrs,  c['lr'],  rtol=1e-6)
            np.testing.assert_allclose(watch.moms, c['mom'], rtol=1e-6)
            np.testing.assert_allclose(learn.recorder.hps['lr'],  np.array(c['lr']) [:,-1], rtol=1e-6)
            np.testing.assert_allclose(learn.recorder.hps['mom'], np.array(c['mom'])[:,-1], rtol=1e-6)

def reference(nb, div, pct, moms, peaks, cycles):
    "The three rows of the table, written out one step after the other with counters as in 2018"
    c,lrs,ms = int(nb*(1-pct/100)/2),[],[]
    for _ in range(cycles):
        for i in range(nb):
            if   i > 2*c: f = (1 + (i-2*c)/(nb-2*c)*(1-100)/100)/div
            elif i > c:   f = (1 + (1-(i-c)/c)*(div-1))/div
            else:         f = (1 + i/c*(div-1))/div
            lrs.append([f*p for p in peaks])
            j = i+1 if i+1 < nb else 0
            if   j > 2*c: m = moms[0]
            elif j > c:   m = moms[0] + (1-(j-c)/c)*(moms[1]-moms[0])
            else:         m = moms[0] + j/c*(moms[1]-moms[0])
            ms.append([m]*len(peaks))
    return lrs,ms

@pytest.mark.parametrize('nb,div,pct,moms,lrs,peaks,cycles,cycle_len', [
    (98, 10, 13.68, (0.95,0.8),  0.8,              [0.8],             1, 3),
    (7,  20, 10,    (0.95,0.85), slice(0.01,1.),   [0.01,0.1,1.],     3, 1),
    (8,  1,  0,     (0.9,0.9),   slice(1.),        [0.1,0.1,1.],      2, 2),
    (5,  25, 50,    (0.99,0.0),  [0.3,0.2,0.1],    [0.3,0.2,0.1],     2, 3),
    (3,  0.5, 33,   (0.95,0.85), np.array([1.,2.]),[1.,2.],           1, 1)])
@pytest.mark.parametrize('opt_func', [sgd, partial(SGD, mom=0.9), Adam, torch_adam, ranger])
def test_every_step(nb, div, pct, moms, lrs, peaks, cycles, cycle_len, opt_func):
    learn = learner(nb, len(peaks), opt_func)
    watch = fit(learn, lrs, cycles, cycle_len=cycle_len, use_clr_beta=(div, pct, *moms))
    lr,mom = reference(nb*cycle_len, div, pct, moms, peaks, cycles)
    np.testing.assert_allclose(watch.lrs,  lr,  rtol=1e-9)
    np.testing.assert_allclose(watch.moms, mom, rtol=1e-9, atol=1e-12)

@pytest.mark.parametrize('start', range(1,6))
def test_resumed_fit_is_the_tail(start):
    whole = fit(learner(6), 0.1, 2, cycle_len=3)
    tail  = fit(learner(6), 0.1, 2, cycle_len=3, start_epoch=start)
    assert tail.lrs == whole.lrs[6*start:] and tail.moms == whole.moms[6*start:]

def test_sgd_is_torchs_with_momentum_and_l2():
    "On each parameter, also on a bias"
    p = nn.Parameter(tensor([1.]))
    opt,want,v = sgd([p], lr=0.1, weight_decay=0.5),1.,0.
    for i in range(3):
        p.grad = tensor([float(i)])
        opt.step()
        v = 0.9*v + i + 0.5*want
        want -= 0.1*v
        assert p.item() == pytest.approx(want, rel=1e-6)
    h, = partial(sgd, momentum=0.8, weight_decay=1e-4)([p], lr=0.1).hypers
    assert (h['mom'], h['wd']) == (0.8, 1e-4)

def test_training_run():
    """Losses, batch by batch, beside a bare training loop with the optimiser and schedule of 2018: BatchNorm,
    dropout, L2 on all parameters"""
    dls = digits()
    batches = [(x.as_subclass(Tensor), y.as_subclass(Tensor)) for x,y in dls.train][:32]
    def model():
        torch.manual_seed(1)
        return nn.Sequential(nn.Conv2d(3,8,3,padding=1), nn.BatchNorm2d(8), nn.ReLU(),
                             nn.Flatten(), nn.Dropout(0.1), nn.Linear(8*64,10))
    dls = DataLoaders(batches, batches[:1])
    learn = Learner(dls, model(), loss_func=F.cross_entropy, opt_func=sgd, metrics=accuracy)
    torch.manual_seed(2)
    got = fit(learn, 0.8, 1, wds=1e-2, use_clr_beta=(10, 13.68, 0.95, 0.8)).raw

    m,want = model().train(),[]
    opt = torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    torch.manual_seed(2)
    for (x,y),(lr,),(mom,) in zip(batches, *reference(32, 10, 13.68, (0.95,0.8), [0.8], 1)):
        opt.param_groups[0].update(lr=lr, momentum=mom)
        opt.zero_grad()
        loss = F.cross_entropy(m(x), y)
        loss.backward(); opt.step()
        want.append(loss.item())
    assert len(got) == 32 and max(got) > 2*got[-1]
    np.testing.assert_allclose(got, want, rtol=1e-4)

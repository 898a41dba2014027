"What fastai's own methods do after a fit and after a range test: the same as on a stock Learner"
import contextlib, io
import pytest
from fastai.vision.all import *
from fastai_clrbeta.all import *
from helpers import digits

def learner(path, cbs=None):
    set_seed(0, reproducible=True)
    dls = digits(bs=64)
    dls.train.n = 256
    convolution = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    model = nn.Sequential(*convolution, nn.Flatten(), nn.Dropout(0.1), nn.Linear(144, 10))
    loss_func = CrossEntropyLossFlat()
    learn = Learner(dls, model, loss_func=loss_func, opt_func=sgd, metrics=accuracy, path=path, cbs=cbs)
    learn.remove_cb(learn.progress)
    learn.logger = noop
    return learn

def fitted(learn):
    learn.fit_clr_beta(0.1, cycle_len=2, checkpoint='run', best_save_name='best', on_diverge='raise')
def stock(learn): learn.fit(2, 0.05)
def searched(learn):
    stock(learn)
    learn.lr_find_val(num_it=12, show_plot=False, trials=False)

def image(learn): return PILImage.create(np.zeros((8,8,3), dtype=np.uint8))
calls = dict(
    get_preds = lambda learn: learn.get_preds(),
    tta       = lambda learn: learn.tta(n=1),
    predict   = lambda learn: learn.predict(image(learn)),
    validate  = lambda learn: learn.validate(),
    summary   = lambda learn: learn.summary(),
    save      = lambda learn: learn.save('saved'),
    load      = lambda learn: learn.load('before'),
    export    = lambda learn: learn.export('exported.pkl'))

def files(path): return {str(o.relative_to(path)) for o in path.rglob('*') if o.is_file()}

def seen(learn, path):
    "What a user can see of a Learner"
    rec = learn.recorder
    return dict(
        weights={k:v.clone() for k,v in learn.model.state_dict().items()},
        modes=[m.training for m in learn.model.modules()],
        hypers=[dict(o) for o in learn.opt.hypers], files=files(path), attributes=set(vars(learn)),
        history=[list(map(float, rec.lrs)), list(map(float, rec.losses)), [list(o) for o in rec.values]],
        cbs=[type(o) for o in learn.cbs])

def changes(before, after):
    "The parts that a call has changed, with what they are now"
    changed = [k for k in before if not same(before[k], after[k])]
    return {k:after[k] if k in ('files','attributes','cbs','history') else 'changed' for k in changed}

def same(a, b): return all(torch.equal(a[k], b[k]) for k in a) if isinstance(a, dict) else a == b

def changed_by(call, path, prepare, cbs=None):
    learn = learner(path, cbs)
    prepare(learn)
    learn.save('before')
    before = seen(learn, path)
    with contextlib.redirect_stdout(io.StringIO()): call(learn)
    res = changes(before, seen(learn, path))
    if 'files' in res: res['files'] = res['files'] - before['files']
    if 'history' in res: res['history'] = [len(o) for o in res['history']]
    res.pop('cbs', None)
    return res

@pytest.mark.parametrize('call', calls.values(), ids=calls)
def test_calls_change_what_they_change_on_a_stock_learner(call, tmp_path):
    expected = changed_by(call, tmp_path/'stock', stock)
    assert changed_by(call, tmp_path/'fitted', fitted) == expected
    assert changed_by(call, tmp_path/'searched', searched) == expected
    assert changed_by(call, tmp_path/'schedule', stock, CLRBeta(10, 10, 0.95, 0.85)) == expected

def test_rates_stay_as_the_fit_left_them(tmp_path):
    "Also if the schedule is one of the Learner's own callbacks"
    learn = learner(tmp_path, CLRBeta(10, 10, 0.95, 0.85))
    learn.fit(1, 0.1)
    hypers = [dict(o) for o in learn.opt.hypers]
    for name,call in calls.items():
        if name in ('load', 'export'): continue  # they replace the optimiser
        with contextlib.redirect_stdout(io.StringIO()): call(learn)
        assert [dict(o) for o in learn.opt.hypers] == hypers, name

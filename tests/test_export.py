"""A Learner whose model, data and loss come from elsewhere exports without anything of this package. One that
holds this package's networks, loaders or callbacks needs the package"""
import cloudpickle, json, pickle, pickletools, subprocess, sys, zipfile
from copy import copy, deepcopy
import pytest
from fastai_clrbeta.all import *
from fastai_clrbeta.cli import EpochCSV
from fastai.tabular.all import CategoryBlock, Normalize, TabularDataLoaders, tabular_learner
from helpers import CrashAt

def learner(path, classes=False, **kwargs):
    "A network of fastai's for numbers or, with `classes`, for classes"
    set_seed(0)
    x = np.random.randn(64)
    df = pd.DataFrame(dict(a=x, y=np.where(x > 0, 'up', 'down') if classes else 2*x))
    df[['a']].to_csv(path/'rows.csv')
    kind = dict(y_block=CategoryBlock()) if classes else {}
    dls = TabularDataLoaders.from_df(df, cont_names=['a'], procs=[Normalize], y_names='y', bs=16, **kind)
    kwargs = dict(opt_func=sgd, metrics=accuracy if classes else rmse) | kwargs
    return tabular_learner(dls, layers=[4], path=path, **kwargs)

def interrupted(f, *args, **kwargs):
    with pytest.raises(KeyboardInterrupt): f(*args, **kwargs)

def searched(path):
    learn = learner(path, opt_func=partial(sgd, momentum=0.8))
    learn.lr_find_val(num_it=12, n_runs=2, trials=[0.01])
    learn.lr_find_sweep(wd=[0,1e-2], num_it=12, trials=False)
    learn.plot_clr_beta(0.01)
    learn.fit_clr_beta(0.01)
    learn.plot_overfit()
    plt.close('all')
    return learn

def searched_only(path):
    learn = learner(path)
    learn.lr_find_val(num_it=12, show_plot=False, trials=False)
    return learn

def with_everything(path):
    "A range test, and a run that saves what it can, is killed, and resumed"
    learn = learner(path, classes=True)
    learn.lr_find_val(num_it=12, show_plot=False, trials=False)
    run = partial(learn.fit_clr_beta, 0.01, 2, checkpoint='run', every_iter=1, best_save_name='best',
                  cycle_save_name='c', on_diverge='lengthen')
    def cbs(): return [DivergenceGuard(5), EpochCSV(path/'epochs.csv')]
    interrupted(run, cbs=[*cbs(), CrashAt('after_batch', 5)])
    run(cbs=cbs(), resume=True)
    return learn

def smoothed_labels(path):
    "A loss of fastai's that holds a module with settings"
    learn = learner(path, classes=True, loss_func=LabelSmoothingCrossEntropyFlat(eps=0.2))
    learn.lr_find_val(num_it=12, show_plot=False, trials=False)
    run = partial(learn.fit_clr_beta, 0.01, 2, checkpoint='smoothed', every_iter=1, on_diverge='raise')
    interrupted(run, cbs=CrashAt('after_batch', 5))
    run(resume=True)
    return learn

def interrupted_fit(path):
    learn = learner(path)
    interrupted(learn.fit_clr_beta, 0.01, checkpoint='cut', best_save_name='best', on_diverge='stop',
                cbs=[DivergenceGuard(5), CrashAt('after_batch', 3)])
    return learn

def interrupted_search(path):
    learn = learner(path)
    with learn.added_cbs(CrashAt('after_batch', 3)):
        interrupted(learn.lr_find_val, num_it=12)
        interrupted(learn.lr_find_sweep, wd=[0,1e-2], num_it=12)
    return learn

def diverged(path):
    learn = learner(path)
    with pytest.raises(FitDiverged):
        learn.fit_clr_beta(1e6, cycle_len=2, on_diverge='lengthen', lengthen=(2,1))
    learn.fit_clr_beta(1e-3)
    return learn

def in_bf16(path):
    learn = learner(path).to_precision('bf16')
    learn.fit_clr_beta(0.01)
    return learn.to_precision('fp32')

def with_schedule(path):
    "The callback, given to a fit of fastai's"
    learn = learner(path, opt_func=Adam)
    learn.fit(1, cbs=CLRBeta(5, 20, 0.9, 0.8))
    return learn

def legacy(path):
    from fastai_clrbeta import legacy
    legacy.repatch()
    try:
        learn = learner(path)
        learn.fit(0.01, 1, wds=1e-4, cycle_len=1, use_clr_beta=(10,10,0.95,0.85), best_save_name='best')
        learn.lr_find2(num_it=12)
        assert type(learn.sched).__name__ == "FindSched"
    finally: legacy.unpatch()
    return learn

cases = [searched, searched_only, with_everything, smoothed_labels, interrupted_fit, interrupted_search,
         diverged, in_bf16, with_schedule, legacy]

without = '''
import json, sys
class No:
    def find_spec(self, n, *a):
        if n.startswith('fastai_clrbeta'): raise ModuleNotFoundError(n)
sys.meta_path.insert(0, No())
from fastai.tabular.all import *
'''

def predictions(learn):
    rows = pd.read_csv(learn.path/'rows.csv')
    with learn.no_bar(), learn.no_logging(): return learn.get_preds(dl=learn.dls.test_dl(rows))[0].tolist()

def elsewhere(folder):
    "What each exported Learner predicts, or None if it can't be loaded"
    res = {}
    for f in sorted(folder.glob('*.pkl')):
        try: res[f.stem] = predictions(load_learner(f))
        except UnboundLocalError: res[f.stem] = None  # what fastai makes of a module that it can't import
    return res

def run_elsewhere(folder):
    code = without + inspect.getsource(predictions) + inspect.getsource(elsewhere)
    code += "print(json.dumps(elsewhere(Path(sys.argv[1]))))"
    p = subprocess.run([sys.executable, '-W', 'ignore', '-c', code, folder], capture_output=True, text=True)
    assert p.returncode == 0, p.stderr
    return json.loads(p.stdout.splitlines()[-1])

def modules(f):
    "The modules of all that an exported Learner refers to by name"
    with zipfile.ZipFile(f) as z: data = z.read(first(o for o in z.namelist() if o.endswith('data.pkl')))
    ops = [(op.name, arg) for op,arg,_ in pickletools.genops(data)]
    assert 'STACK_GLOBAL' not in {k for k,_ in ops}  # such names are of a later protocol
    return {arg.split()[0] for k,arg in ops if k == 'GLOBAL'}

def network(path):
    "Our network on our data, with callbacks that stay"
    cbs = [DivergenceGuard(5), EpochCSV(path/'epochs.csv'), CLRBeta(5, 20)]
    dls = digits_dls(bs=256, size=8, seed=0)
    learn = Learner(dls, cifar_resnet(8), opt_func=sgd, path=path, metrics=accuracy, cbs=cbs)
    learn.to_precision('bf16')
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 0.01)
    return learn

@pytest.mark.slow
def test_exports_need_no_package(tmp_path):
    want = {}
    for make in cases:
        learn = make(tmp_path)
        want[make.__name__] = predictions(learn)
        learn.export(f'{make.__name__}.pkl')
    network(tmp_path).export('network.pkl')
    found = run_elsewhere(tmp_path)
    assert found.pop('network') is None
    assert found == want
    for k in want:
        names = modules(tmp_path/f'{k}.pkl')
        assert 'fastai.learner' in names and not any('fastai_clrbeta' in o for o in names), k
    assert 'fastai_clrbeta.resnet' in modules(tmp_path/'network.pkl')

def test_what_is_ours_loads_with_the_package(tmp_path):
    learn = network(tmp_path)
    img = learn.dls.valid_ds.items[0][0]
    learn.export('network.pkl')
    loaded = load_learner(tmp_path/'network.pkl')
    assert [type(o) for o in loaded.model.modules()] == [type(o) for o in learn.model.modules()]
    assert {'divergence_guard','epoch_csv','clr_beta'} <= {o.name for o in loaded.cbs}
    learn.to_fp32()  # as `load_learner` does
    with learn.no_bar(), loaded.no_bar(): assert torch.equal(learn.predict(img)[2], loaded.predict(img)[2])

def test_what_is_ours_pickles():
    class Local(CLRBeta): pass
    report = Divergence(1, 2, 0.1, None, 3., 1.)
    ours = [CLRBeta(5, 20, 0.9, 0.8, 2), DivergenceGuard(3), EpochCSV("f.csv"), HalfPrecision("bf16"),
            FlipCrop(2), CifarBlock(16, 32), LRFind(), LRSweep(), report, FitDiverged('it did', report), sgd,
            partial(sgd, momentum=0.8)]
    by_name = lambda o: pickle.loads(pickle.dumps(o))
    by_value = lambda o: cloudpickle.loads(cloudpickle.dumps(o, 2))
    for o in ours:
        for f in copy,deepcopy,by_name,by_value:
            assert type(f(o)) is type(o)
    assert by_name(report) == report
    assert by_name(FitDiverged('it did', report)).report == report
    assert by_name(CLRBeta(5, 20)).lr_at(3, 40) == CLRBeta(5, 20).lr_at(3, 40)
    assert by_name(DivergenceGuard(3)).factor == 3 and by_name(FlipCrop(2)).pad == 2
    assert by_value(Local(7)).div == 7
    keywords = dict(opt=torch.optim.SGD, momentum=0.9, foreach=True, fused=False)
    for o in sgd,by_name(sgd),deepcopy(sgd): assert o.func is OptimWrapper and o.keywords == keywords

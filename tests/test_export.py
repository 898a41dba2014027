"An exported Learner loads where this package is not, and comes back as it was where it is"
import json, pickle, subprocess, sys
from copy import copy, deepcopy
from fastai_clrbeta.all import *
from fastai_clrbeta.cli import EpochCSV
from fastai.tabular.all import tabular_learner, TabularDataLoaders, Normalize

without = '''import sys, json
class No:
    def find_spec(self, n, *a):
        if n.startswith('fastai_clrbeta'): raise ModuleNotFoundError(n)
sys.meta_path.insert(0, No())
from fastai.tabular.all import *
from fastai.vision.core import PILImage
'''

def about(f):
    "Predictions of an exported Learner, and what is not fastai's in it"
    learn,own = load_learner(f),{o.__name__ for o in defaults.callbacks}
    with learn.no_bar(), learn.no_logging():
        preds = learn.get_preds(dl=learn.dls.test_dl(pd.read_csv(f.parent/'rows.csv')))[0]
    found = [type(v).__name__ for k,v in vars(learn).items() if k in ('lr_find_result','lr_find_sweep_result','sched')]
    learn.create_opt()
    opt = type(learn.opt).__name__,learn.opt.hypers[-1]['mom']
    return preds.tolist(),[o for o in map(lambda o: type(o).__name__, learn.cbs) if o not in own],found,opt

def learner(path, **kwargs):
    set_seed(0)
    df = pd.DataFrame(dict(a=np.random.randn(64), y=np.random.randn(64)))
    df.to_csv(path/'rows.csv')
    dls = TabularDataLoaders.from_df(df, cont_names=['a'], procs=[Normalize], y_names='y', bs=16)
    return tabular_learner(dls, layers=[4], path=path, metrics=rmse, **{'opt_func':sgd, **kwargs})

def searched(path):
    class Mine(CLRBeta): pass
    learn = learner(path, opt_func=partial(sgd, mom=0.8), cbs=Mine(5))
    learn.lr_find_val(num_it=12, show_plot=False, n_runs=2)
    learn.lr_find_sweep(wd=[0,1e-2], num_it=12, show_plot=False)
    return learn

def fitted(path):
    learn = learner(path, cbs=[DivergenceGuard(1.01, n_steps=1), EpochCSV(path/'epochs.csv'), CLRBeta(5, 20)])
    learn.fit(2, 1e3)
    assert learn.divergence_guard.report is not None
    return learn

def in_bf16(path):
    learn = learner(path).to_precision('bf16')
    learn.fit(1)
    return learn

def legacy_fit(path):
    from fastai_clrbeta import legacy
    legacy.repatch()
    learn = learner(path)
    try: learn.fit(0.01, 1, wds=1e-4, cycle_len=1, use_clr_beta=(10,10,0.95,0.85), best_save_name='best')
    finally: legacy.unpatch()
    return learn

def legacy_find(path):
    from fastai_clrbeta import legacy
    legacy.repatch()
    learn = learner(path)
    try: learn.lr_find2(num_it=12)
    finally: legacy.unpatch()
    return learn

def within_a_fit(path):
    class Exports(Callback):
        order = 2000
        def after_train(self):
            opt = self.opt
            self.learn.export('within_a_fit.pkl')
            self.learn.opt = opt
    learn = learner(path)
    learn.fit_clr_beta(0.01, checkpoint='run', every_iter=1, best_save_name='best', cycle_save_name='c', on_diverge='raise',
                       cbs=Exports())

def network(path):
    "Ours, on our data"
    return Learner(digits_dls(bs=16, size=8, seed=0), cifar_resnet(8), opt_func=sgd, path=path, cbs=ChannelsLast())

def sees(f):
    "What an exported network says to a picture"
    learn = load_learner(f)
    with learn.no_bar(): return learn.predict(PILImage.create(f.with_name('x.png')))[2].tolist()

cases = dict(
    searched     = (searched,     ['Mine'], ['LRFind','LRSweep'], 0.8),
    fitted       = (fitted,       ['DivergenceGuard','EpochCSV','CLRBeta'], [], 0.9),
    in_bf16      = (in_bf16,      [], [], 0.9),  # `load_learner` takes half precision out for the CPU, fastai's and ours
    legacy_fit   = (legacy_fit,   [], ['Sched'], 0.9),
    legacy_find  = (legacy_find,  [], ['LRFind','FindSched'], 0.9),
    within_a_fit = (within_a_fit, ['CLRBeta','Exports','_SaveCycles','_SaveBest','DivergenceGuard','Checkpoint'], [], 0.9))

def test_exported_learners_need_no_package(tmp_path):
    for name,(make,*_) in cases.items():
        learn = make(tmp_path)
        if learn: learn.export(f'{name}.pkl')
    Image.new('RGB', (8,8)).save(tmp_path/'x.png')
    network(tmp_path).export('network.pkl')
    code = without + inspect.getsource(about) + inspect.getsource(sees)
    code += "print(json.dumps([*(about(Path(o)) for o in sys.argv[1:]), sees(Path('network.pkl'))]))"
    files = [tmp_path/f'{o}.pkl' for o in cases]
    p = subprocess.run([sys.executable, '-W', 'ignore', '-c', code, *files], capture_output=True, text=True, cwd=tmp_path)
    assert p.returncode == 0, p.stderr
    *told,seen = json.loads(p.stdout.splitlines()[-1])
    assert seen == sees(tmp_path/'network.pkl')
    own = dict(vars(CifarBlock))
    again = load_learner(tmp_path/'network.pkl').model
    assert vars(CifarBlock) == own  # the class's code came along for those who lack it, and was left alone
    assert [type(o) for o in again.modules()] == [type(o) for o in deepcopy(again).modules()] == [type(o) for o in cifar_resnet(8).modules()]
    for f,(_,cbs,found,mom),there in zip(files, cases.values(), told):
        here = about(f)
        assert here[1:] == (cbs, found, ('OptimWrapper',mom))
        own = [o if o == 'Exports' else 'Callback' for o in cbs]
        assert there == [here[0], own, ['SimpleNamespace']*len(found), ['Optimizer',mom]]
    again = load_learner(files[0])
    assert repr(again.lr_find_sweep_result.table) == repr(load_learner(files[0]).lr_find_sweep_result.table)

def test_what_is_ours_comes_back_as_it_was():
    class Local(CLRBeta): pass  # of no module: goes by value
    for o in CLRBeta(5, 20, 0.9, 0.8, 2), DivergenceGuard(3), Local(7):
        for o2 in copy(o), deepcopy(o), pickle.loads(pickle.dumps(o)):
            assert type(o2) is type(o)
            for k,v in vars(o).items(): assert vars(o2)[k] == v if k != 'limit' else vars(vars(o2)[k]) == vars(v)
    for o in sgd, Divergence(1, 2, 0.1, None, 3., 1.):
        for o2 in copy(o), deepcopy(o), pickle.loads(pickle.dumps(o)): assert o2 == o and type(o2) is type(o)

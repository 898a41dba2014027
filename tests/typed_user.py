"""What a user may write, for a type checker: never run. `# error: RULE` marks what it must report; all else
must pass. See test_types.py"""
from pathlib import Path
from fastai_clrbeta.all import *

dls = cifar10_dls(bs=512, augment=True)
cifar10_dls(Path('data'), 128, 0.1, device='cpu', seed=None, n_train=10_000)
cifar10_dls('data', valid='valid', device=torch.device('cpu'))
digits_dls(64, size=16, seed=42)
reveal_type(dls)                                   # DataLoaders

reveal_type(cifar_resnet(56))                      # Sequential
cifar_resnet(20, 100, c_in=1, shortcut='pad', preact=True)
leslie_resnet56(n_out=100)

learn = Learner(dls, cifar_resnet(56), opt_func=sgd, metrics=accuracy)
Learner(dls, leslie_resnet56(), CrossEntropyLossFlat(), opt_func=partial(SGD, mom=0.9),
        metrics=[accuracy, error_rate], cbs=CLRBeta(10,10))

Learner(dls, leslie_resnet56(), opt_func=partial(sgd, momentum=0.8))

learn.fit_clr_beta(0.8, 1, cycle_len=95, wds=1e-4, use_clr_beta=(10,13.68,0.95,0.8))
learn.fit_clr_beta(1, use_clr_beta=(10,10))
learn.fit_clr_beta(slice(1e-3,1e-1), wds=[1e-4,1e-3])
learn.fit_clr_beta(slice(1e-1), wds=None, cbs=None, use_clr_beta=CLRBeta(10,10))
learn.fit_clr_beta([0.1,0.2], 2, cbs=GradientClip(), start_epoch=1)
learn.fit_clr_beta((0.1,0.2), cbs=[GradientClip(), DivergenceGuard(factor=None)], cycle_save_name='net',
                   best_save_name=Path('best'))
learn.fit_clr_beta(np.array([0.1,0.2]), checkpoint='run', every_iter=100, resume=True)
learn.fit_clr_beta(learn.lr_find_val(), cycle_len=5, wd=1e-4)
learn.plot_clr_beta(learn.lr_find_val(), wd=[1e-4])
learn.fit_clr_beta(0.8, on_diverge='lengthen', lengthen=(2,1))
# fastai's own patches stay as they are: unknown, so allowed
learn.fit_one_cycle(1, 0.1, cbs=CLRBeta(10,13.68,0.95,0.8))
reveal_type(learn.fit_clr_beta(0.8))               # None

learn.fit_clr_beta('high')                         # error: reportArgumentType
learn.fit_clr_beta()                               # error: reportCallIssue
learn.fit_clr_beta(0.8, cycle_length=95)           # error: reportCallIssue
learn.fit_clr_beta(0.8, cycle_len='95')            # error: reportArgumentType
learn.fit_clr_beta(0.8, use_clr_beta=10)           # error: reportArgumentType

found = learn.lr_find_val()
reveal_type(found)                                 # LRFind
reveal_type(found.df)                              # DataFrame
reveal_type(found.plot())                          # AxesArray
found.suggestions.valley, found.suggestions[0], found.valley, found.reasons
found.to_csv('found.csv')
learn.lr_find_val(1e-4, slice(1e-2,10), num_it=200, linear=True, wd=None, stop_div=False, metrics=accuracy,
                  suggest_funcs=None)
learn.lr_find_val(metrics=[accuracy], wd=[1e-4,1e-3], suggest_funcs=(valley, slide), trials=False)
learn.lr_find_val(trials='thorough', bn='running')
learn.lr_find_val(trials=[0.1,0.03], n_runs=3)
reveal_type(found.trials)                          # DataFrame
reveal_type(found.rival)                           # float | None
learn.lr_find_val(trials=0.1)                      # error: reportArgumentType
learn.lr_find_val(num_it='200')                    # error: reportArgumentType
learn.lr_find_val(stop_dv=False)                   # error: reportCallIssue

reveal_type(learn.lr_find_result)                  # LRFind | None
reveal_type(learn.lr_find_sweep_result)            # LRSweep | None
learn.lr_find_result = found                       # error: reportAttributeAccessIssue

sweep = learn.lr_find_sweep(wd=[1e-2,1e-3], mom=None, bs=[64,128], num_it=50)
reveal_type(sweep.df)                              # DataFrame
reveal_type(sweep.table)                           # DataFrame
learn.lr_find_sweep(wd=1e-3)                       # error: reportArgumentType

with learn.no_trace() as same: reveal_type(same)   # Learner
with learn.no_trace(seed=1): pass                  # error: reportCallIssue

axs = learn.plot_clr_beta(0.8, 1, wds=1e-4, cycle_len=95, use_clr_beta=(10,13.68,0.95,0.8))
axs[0].figure.savefig('schedule.png')
learn.plot_overfit(axs=None)
plot_clr_beta(slice(1e-3,1), cycle_len=3, n_iter=98)
plot_overfit(pd.read_csv('history.csv'), learn.recorder.lrs)
learn.plot_clr_beta('high')                        # error: reportArgumentType
learn.plot_clr_beta(0.8, n_iter=98)                # error: reportCallIssue
learn.plot_overfit(ax=None)                        # error: reportCallIssue
plot_clr_beta(0.8, n_iters=98)                     # error: reportCallIssue

CLRBeta(10,13.68,0.95,0.8)
CLRBeta(cycle_len=None, lrs=slice(1e-3,1), mom_max=None)
CLRBeta('10')                                      # error: reportArgumentType
CLRBeta(mom=0.9)                                   # error: reportCallIssue

reveal_type(clr_beta_lr(3, 100))                   # float
reveal_type(clr_beta_mom(3, 100, mom_max=0.9))     # float
clr_beta_lr(3, '100')                              # error: reportArgumentType
clr_beta_lr(3, nb_steps=100)                       # error: reportCallIssue

guard = DivergenceGuard(4, n_steps=5)
if guard.report: reveal_type(guard.report)         # Divergence

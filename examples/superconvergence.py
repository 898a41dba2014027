"""The claims of super-convergence, rebuilt with fastai_clrbeta at a scale that two cores can run.

    python examples/superconvergence.py          # runs what `results/` does not hold yet, then prints the tables
    python examples/superconvergence.py --full   # ResNet-56 for 95 epochs, the five configurations of 2018: bring a GPU

Every run is one CSV, a row an epoch, with its configuration and versions in the JSON beside it. A run that is
complete is not repeated, one that was cut off starts over."""
from fastai_clrbeta.all import *
from fastai_clrbeta.cli import EpochCSV, plain_rows, versions
from fastcore.script import call_parse
import json

def learner(depth=20, shortcut='pool', seed=0, n_train=None, bs=128, data=None, augment=False):
    "The same seed gives every schedule the same images, the same weights and the same order of batches"
    set_seed(seed, reproducible=True)
    dls = cifar10_dls(data, bs=bs, seed=seed, n_train=n_train, augment=augment)
    return Learner(dls, cifar_resnet(depth, len(dls.vocab), shortcut=shortcut), opt_func=sgd, metrics=accuracy, cbs=ChannelsLast())

def one_cycle(learn, epochs, lr, wd=1e-4, clr_beta=(10,13.68,0.95,0.8), **kwargs):
    learn.fit_clr_beta(lr, cycle_len=epochs, wds=wd, use_clr_beta=clr_beta, **kwargs)

def constant(learn, epochs, lr, wd=1e-4, **kwargs): learn.fit(epochs, lr, wd=wd, **kwargs)

def step(learn, epochs, lr, wd=1e-4, cbs=()):
    "A tenth of the learning rate after half of the epochs, a hundredth after three quarters"
    sched = combine_scheds([0.5,0.25,0.25], [SchedNo(o,o) for o in (lr, lr/10, lr/100)])
    learn.fit(epochs, lr, wd=wd, cbs=[ParamScheduler({'lr':sched}), *cbs])

schedules = dict(one_cycle=one_cycle, constant=constant, step=step)

def run(name, schedule, epochs, out, lr, clr_beta=None, wd=None, **setup):
    "Train one configuration into `{out}/{name}.csv`, unless that is complete"
    csv = out/f'{name}.csv'
    if csv.exists() and len(pd.read_csv(csv)) == epochs: return
    csv.unlink(missing_ok=True)
    print(f'{name}: {schedule}, {epochs} epochs, lr {lr}, {clr_beta or ""} {setup}', flush=True)
    learn = learner(**setup)
    kwargs = {k:v for k,v in dict(clr_beta=clr_beta, wd=wd).items() if v is not None}
    config = _defaults(learner) | _defaults(schedules[schedule]) | setup | kwargs
    del config['data']
    config = dict(schedule=schedule, epochs=epochs, lr=lr, **config, versions=versions())
    (out/f'{name}.json').write_text(json.dumps(config, indent=1))
    with plain_rows(learn): schedules[schedule](learn, epochs, lr, cbs=[EpochCSV(csv)], **kwargs)

def _defaults(f): return {k:p.default for k,p in inspect.signature(f).parameters.items() if p.default is not p.empty and k != 'cbs'}

def range_tests(out, **setup):
    tests = dict(exponential=dict(start_lr=1e-4, end_lr=10, num_it=200), linear=dict(start_lr=0, end_lr=3, num_it=400, linear=True))
    for name,kwargs in tests.items():
        csv = out/f'range_{name}.csv'
        if csv.exists(): continue
        print(f'{name} range test', flush=True)
        learn = learner(**setup)
        with learn.no_bar(): found = learn.lr_find_val(wd=1e-4, stop_div=None, show_plot=False, **kwargs)
        found.to_csv(csv)

def final(out, name):
    "Accuracy after the last epoch of a run, None where it has not been run"
    return pd.read_csv(out/f'{name}.csv').accuracy.iloc[-1] if (out/f'{name}.csv').exists() else None

def small_scale(out, data=None):
    "ResNet-20, batch 128. The most telling runs come first, so that what is there after an hour is worth a look"
    lrs = dict(one_cycle=(0.4,0.8,1.6), step=(0.03,0.1,0.3), constant=(0.01,0.1,0.3))
    small = dict(epochs=15, n_train=10_000, data=data)
    range_tests(out, data=data)
    for s in lrs:
        for lr in lrs[s]: run(f'10k_{s}_{lr}_seed0', s, out=out, lr=lr, **small)
    best = {s:max(lrs[s], key=lambda lr: final(out, f'10k_{s}_{lr}_seed0')) for s in lrs}
    for seed in (1,2):
        for s,lr in best.items(): run(f'10k_{s}_{lr}_seed{seed}', s, out=out, lr=lr, seed=seed, **small)
    for seed in range(3):
        lr = best['one_cycle']
        run(f'10k_one_cycle_{lr}_constant_momentum_seed{seed}', 'one_cycle', out=out, lr=lr, seed=seed, clr_beta=(10,13.68), **small)
    for wd in (1e-3,1e-2): run(f"10k_one_cycle_{best['one_cycle']}_wd{wd}_seed0", 'one_cycle', out=out, lr=best['one_cycle'], wd=wd, **small)
    for s in ('one_cycle','step'): run(f'50k_{s}_{best[s]}_seed0', s, out=out, lr=best[s], epochs=15, data=data)

def full_scale(out, data=None):
    "The five configurations of the 2018 notebook: ResNet-56 with convolution shortcuts, batch 512, flip and crop"
    setup = dict(depth=56, shortcut='conv', bs=512, augment=True, data=data)
    for lr,epochs,clr_beta in [(0.8, 95, (10,13.68,0.95,0.85)), (0.8, 95, (10,50,0.95,0.85)), (3, 50, (20,10,0.95,0.85)),
                               (3, 70, (20,10,0.95,0.85)), (0.8, 95, (10,13.68,0.9,0.9))]:
        run(f"full_{lr}_{epochs}_{'_'.join(map(str, clr_beta))}", 'one_cycle', epochs, out, lr, clr_beta, **setup)

@call_parse
def main(
    data:str=None,  # Folder of CIFAR-10. None: fastai's own copy, downloaded where there is none
    out:str=str(Path(__file__).parent/'results'), # Folder for the logs
    full:bool=False,  # The configurations of 2018 at their full size
):
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (full_scale if full else small_scale)(out, data)
    runs = {o.stem:pd.read_csv(o) for o in sorted(out.glob('*.csv')) if not o.stem.startswith('range')}
    rows = [dict(run=k, epochs=len(df), **df.iloc[-1][['train_loss','valid_loss','accuracy']]) for k,df in runs.items()]
    print(pd.DataFrame(rows).to_string(index=False, float_format='{:.4f}'.format))

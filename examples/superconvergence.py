"""The claims of super-convergence, rebuilt with fastai_clrbeta.

    python examples/superconvergence.py                  # most telling first; two cores will do, but for gap and resnet56
    python examples/superconvergence.py --only momentum  # one of them
    python examples/superconvergence.py --full           # the line of 2018 to the letter, ResNet-56: bring a GPU
    python examples/superconvergence.py --trial          # everything in little, to see that it works

Stop it whenever you like: the same command goes on where it was. Start it twice, and two processes share the work.

The protocol. Learning rate and momentum of each arm are chosen on 5,000 images held out of the training set, by the mean
accuracy of the last epochs over two seeds, on a grid that grows until the best rate lies inside it. What is reported
comes from other seeds and from the test set. A run is known by a hash of its whole configuration, the images included:
the hash is in the name of its log, a CSV with a row per epoch, and the configuration in the JSON beside it."""
from fastai_clrbeta.all import *
from fastai_clrbeta.cli import EpochCSV, versions
from fastai_clrbeta.checkpoint import checkpoint_paths
from fastcore.script import call_parse
from dataclasses import asdict, dataclass, replace
from filelock import FileLock, Timeout
from scipy import stats
import hashlib, json

# The schedules, all of them run by `fit_clr_beta` and its checkpoints

class Constant(CLRBeta):
    "The same learning rate throughout"
    def lr_at(self, i, nb): return 1.

class Steps(CLRBeta):
    "A tenth of the learning rate after half of the steps, a hundredth after three quarters"
    def lr_at(self, i, nb): return 1. if i < nb/2 else 0.1 if i < nb*3/4 else 0.01

schedules = dict(cycle=CLRBeta, constant=Constant, steps=Steps)

@dataclass(frozen=True)
class Setup:
    "Network and data"
    depth:int=20
    shortcut:str='pool'
    preact:bool=False
    bs:int=128
    wd:float=1e-4
    augment:bool=False
    n_train:int|None=10_000
    valid:str|float='test' # The folder to judge by, or the fraction of the training images to hold out for that
    seed:int=0             # For the images drawn, the first weights and the order of batches

    @property
    def label(self):
        net = f"resnet{self.depth}{self.shortcut}{'_preact' if self.preact else ''}{'_augment' if self.augment else ''}"
        return f"{net}_{f'{self.n_train//1000}k' if self.n_train else 'all'}"
    @property
    def ending(self): return f"{'' if self.valid=='test' else '_heldout'}_seed{self.seed}"

@dataclass(frozen=True)
class Run(Setup):
    schedule:str='cycle'
    lr:float=0.8
    epochs:int=15
    mom:tuple=(0.95,0.8) # Highest and lowest; the same twice is constant
    div:float=10
    pct:float=13.68

    @property
    def name(self): return f'{self.label}_{self.schedule}_{self.lr:g}_{self.epochs}epochs{self.ending}'

@dataclass(frozen=True)
class RangeTest(Setup):
    n_train:int|None=None
    start_lr:float=1e-4
    end_lr:float=10
    num_it:int=200
    linear:bool=False

    @property
    def name(self):
        kind = 'linear' if self.linear else 'exponential'
        return f'{self.label}_range_{kind}_{self.end_lr:g}_{self.num_it}steps_wd{self.wd:g}{self.ending}'

precisions = 'fp32','bf16','fp16'

class WholeCSV(EpochCSV):
    "An `EpochCSV` that a kill can't cut in two"
    def after_epoch(self):
        super().after_epoch()
        os.replace(self.fname, self.fname.with_suffix('.csv'))

def write_json(f, o):
    f.with_suffix('.tmp').write_text(json.dumps(o, indent=1)+'\n')
    os.replace(f.with_suffix('.tmp'), f)

def sitting(device):
    "What a log needs to tell of the machine it was made on"
    return versions() | dict(gpu=torch.cuda.get_device_name(device) if device.startswith('cuda') else None)

def plain_row(row): print('  ', *[f'{v:.4f}' if isinstance(v, float) else v for v in row], flush=True)

def fingerprint(dls):
    "A hash of all images and their classes, in order"
    h = hashlib.sha256()
    for dl in dls.loaders:
        for o in dl.mem: h.update(f'{tuple(o.shape)} {o.dtype}'.encode() + o.numpy().tobytes())
    return h.hexdigest()[:16]

class Lab:
    "Runs what is not there yet, and reads what is"
    def __init__(self,
        data,               # Folder of CIFAR-10, or None: fastai's own copy
        out,                # Folder for the logs
        device=None,        # None: fastai's default
        precision='fp32',   # One of `precisions`
        compiled=False,     # Compile the network?
        **overrides         # Settings that replace those of every run: a trial in little
    ):
        if precision not in precisions:
            raise ValueError(f"precision={precision!r}: must be one of {', '.join(precisions)}.")
        self.data,self.out,self.overrides = data,Path(out),overrides
        self.device = str(default_device() if device is None else device)
        images = fingerprint(cifar10_dls(data, bs=1, device='cpu'))
        self.setup = dict(data=images, optimiser='SGD with momentum, L2 on all parameters', memory='channels last',
                          precision=precision, device=torch.device(self.device).type, compiled=compiled)
        (self.out/'checkpoints').mkdir(parents=True, exist_ok=True)

    def trim(self, o):
        "`o` as this lab runs it"
        return replace(o, **{k:v for k,v in self.overrides.items() if hasattr(o, k)})
    def config(self, o): return dict(kind=type(o).__name__, **asdict(self.trim(o)), **self.setup)
    def file(self, o):
        "The log of `o`: no other configuration has this name"
        key = hashlib.sha256(json.dumps(self.config(o), sort_keys=True).encode()).hexdigest()[:8]
        return self.out/f'{self.trim(o).name}_{key}.csv'

    def df(self, o):
        "The log as far as it got, None where there is none"
        f = self.file(o)
        return pd.read_csv(f) if f.exists() else None
    def n_epochs(self, o):
        df = self.df(o)
        return 0 if df is None else len(df)
    def done(self, o):
        if isinstance(o, RangeTest): return self.file(o).exists()
        return self.n_epochs(o) == self.trim(o).epochs

    def learner(self, o):
        "The same seed gives every schedule the same images, the same first weights and the same order of batches"
        set_seed(o.seed, reproducible=True)
        dls = cifar10_dls(self.data, o.bs, o.valid, o.augment, self.device, o.seed, o.n_train)
        model = cifar_resnet(o.depth, len(dls.vocab), shortcut=o.shortcut, preact=o.preact)
        if self.setup['compiled']:
            torch.compiler.reset()  # after some networks it would compile no more
            model.compile()
        learn = Learner(dls, model, opt_func=sgd, metrics=accuracy, cbs=ChannelsLast(), path=self.out, model_dir='checkpoints')
        learn.to_precision(self.setup['precision'])
        learn.logger = plain_row
        return learn

    def run(self, o, wait=False):
        "Run `o` from where it was left, unless it is done, or another process is at it and we are not to `wait`"
        f = self.file(o)
        try:
            with FileLock(self.out/'checkpoints'/f'{f.stem}.lock', timeout=-1 if wait else 0):
                if not self.done(o): self._begin(f, o)
                if not self.done(o): raise RuntimeError(f'{f} has not all of its rows: its checkpoint is kept.')
                for p in checkpoint_paths(self.out/'checkpoints'/f.stem): p.unlink(missing_ok=True)
        except Timeout: pass

    def _begin(self, f, o):
        o = self.trim(o)
        learn = self.learner(o)
        print(f.stem, flush=True)
        about = f.with_suffix('.json')
        sittings = json.loads(about.read_text())['sittings'] if about.exists() else []
        write_json(about, self.config(o) | dict(sittings=[*sittings, sitting(self.device)]))
        go = self._test if isinstance(o, RangeTest) else self._train
        with learn.no_bar(): go(learn, f, o)

    def _test(self, learn, f, o):
        "A range test is short: one that was cut off starts over"
        kwargs = dict(start_lr=o.start_lr, end_lr=o.end_lr, num_it=o.num_it, linear=o.linear)
        learn.lr_find_val(**kwargs, wd=o.wd, stop_div=False, show_plot=False, bn='both')
        learn.lr_find_result.to_csv(f.with_suffix('.tmp'))
        os.replace(f.with_suffix('.tmp'), f)

    def _train(self, learn, f, o):
        path,prev,_ = checkpoint_paths(self.out/'checkpoints'/f.stem)
        if f.exists() and not (path.exists() or prev.exists()):  # it can't go on without its checkpoint, and is kept as it is
            kept = (f.with_suffix(f'.partial{k}') for k in itertools.count(1))
            os.replace(f, first(p for p in kept if not p.exists()))
        sched = schedules[o.schedule](o.div, o.pct, *o.mom)
        learn.fit_clr_beta(o.lr, cycle_len=o.epochs, wds=o.wd, use_clr_beta=sched, cbs=WholeCSV(f.with_suffix('.tmp')),
                           checkpoint=f.stem, every_iter=50, resume=True)

    def all(self, runs):
        "First what nobody else is at, then wait for the others; what can't go on is told when all others are done"
        for wait in (False,True):
            failed = {}
            for o in runs:
                try: self.run(o, wait)
                except (RuntimeError,ValueError) as e: failed[self.file(o).stem] = e
        told = [f'{k}: {e}' for k,e in failed.items()]
        if told: raise SystemExit('\n'.join([*told, f"To start one over, move its checkpoint out of {self.out/'checkpoints'}."]))

class Archive(Lab):
    "Reads the logs in `out` that were made with `setup`, such as precision='bf16', and runs nothing"
    def __init__(self, out, **setup):
        self.out,self.overrides = Path(out),{}
        made = (json.loads(f.read_text()) for f in sorted(self.out.glob('*.json')))
        config = first(o for o in made if setup.items() <= o.items())
        if config is None: raise FileNotFoundError(f'no log in {out} with {setup}')
        own = {'kind','sittings',*Run.__dataclass_fields__,*RangeTest.__dataclass_fields__}
        self.setup = {k:v for k,v in config.items() if k not in own}
    def run(self, o, wait=False):
        if not self.done(o): raise FileNotFoundError(self.file(o))

# Choosing and reporting

tuning,reporting,n_last = (100,101),(0,1,2),3

def held_out(lab, arm, lr, mom):
    "Runs of `arm` that its rate is chosen by"
    return [replace(arm, lr=lr, mom=mom, valid=0.1, seed=s) for s in tuning]

def score(lab, runs): return np.mean([lab.df(o).accuracy.tail(n_last).mean() for o in runs])

def tune(lab, arm, lrs, moms, most=6):
    "`arm` with the learning rate and momentum that do best on held-out images, the rate inside of its grid"
    found = {}
    lab.all([o for mom in moms for lr in lrs for o in held_out(lab, arm, lr, mom)])  # to be shared
    for mom in moms:
        grid = sorted(lrs)
        for _ in range(most):
            lab.all([o for lr in grid for o in held_out(lab, arm, lr, mom)])
            found |= {(lr,mom): score(lab, held_out(lab, arm, lr, mom)) for lr in grid}
            best = max(grid, key=lambda lr: found[lr,mom])
            if best not in (grid[0],grid[-1]): break
            new = best*best/grid[1 if best==grid[0] else -2]
            grid = sorted([*grid, float(f'{new:.2g}')])
        else: raise SystemExit(f'{arm.label}, {arm.schedule}: of the rates from {min(found)[0]:g} to {max(found)[0]:g} the best is at an end.')
    lr,mom = max(found, key=found.get)
    tried = ', '.join(f'{l:g} with {m[0]}-{m[1]}: {v:.1%}' for (l,m),v in found.items())
    print(f'{arm.label}, {arm.schedule}: {lr:g} with momentum {mom[0]}-{mom[1]}, of {tried}', flush=True)
    return replace(arm, lr=lr, mom=mom)

def seeds(arm, n=reporting): return [replace(arm, seed=s) for s in (range(n) if isinstance(n, int) else n)]

def paired(a, b):
    "Mean of `a`-`b`, seed by seed, half of its 95 % interval by the t distribution, and a word on it"
    d = np.asarray(a)-np.asarray(b)
    mean,half = d.mean(),math.inf
    if len(d) > 1: half = stats.t.ppf(0.975, len(d)-1)*d.std(ddof=1)/len(d)**0.5
    return mean,half,'inconclusive' if not abs(mean) > half else 'higher' if mean > 0 else 'lower'

def describe(o):
    "Mean and, of several, standard deviation"
    return f'{np.mean(o):.2f}' + (f' ± {np.std(o, ddof=1):.2f}' if len(o) > 1 else '')

def difference(a, b):
    "`a`-`b` in words, for those seeds that both have"
    both = [s for s in a if s in b]
    if not both: return ''
    mean,half,word = paired([a[s] for s in both], [b[s] for s in both])
    return f'{mean:+.2f} ± {half:.2f}, {word}' if len(both) > 1 else f'{mean:+.2f}, one run: inconclusive'

def summary(lab, arms):
    "A row for each of the `arms`, lists of runs by name: how they ended, and the first of them minus this one"
    rows,base = [],None
    for name,runs in arms.items():
        dfs = {o.seed:lab.df(o) for o in runs if lab.done(o)}
        if not dfs: continue
        acc = {s:100*df.accuracy.iloc[-1] for s,df in dfs.items()}
        late = [100*df.accuracy.tail(n_last).mean() for df in dfs.values()]
        gaps = [df.valid_loss.iloc[-1]-df.train_loss.iloc[-1] for df in dfs.values()]
        row = {'':name, 'n':len(dfs), 'accuracy, %':describe([*acc.values()]), f'mean of last {n_last}':describe(late),
               'gap':describe(gaps), 'first − this':difference(base, acc) if base else ''}
        rows.append(row)
        base = base or acc
    return pd.DataFrame(rows)

# The experiments

def best_cycle(lab, **kwargs): return tune(lab, Run(**kwargs), (0.4,0.8,1.6), [(0.95,0.8),(0.95,0.85)])
def best_steps(lab): return tune(lab, Run(schedule='steps'), (0.05,0.1,0.2), [(0.9,0.9),(0.95,0.95)])

def super_convergence(lab):
    "One cycle against steps that have once, twice and four times its epochs, at the rate that is best for 15"
    cycle,steps = best_cycle(lab),best_steps(lab)
    return {'cycle, 15 epochs':seeds(cycle)} | {f'steps, {n} epochs':seeds(replace(steps, epochs=n)) for n in (15,30,60)}

def constant_rate(lab):
    "One cycle against a constant rate"
    constant = tune(lab, Run(schedule='constant'), (0.03,0.05,0.1), [(0.9,0.9),(0.95,0.95)])
    return dict(cycle=seeds(best_cycle(lab)), constant=seeds(constant))

def momentum(lab):
    "Cyclical against constant momentum, each with its own rate"
    constant = tune(lab, Run(), (0.4,0.8,1.6), [(0.8,0.8),(0.9,0.9),(0.95,0.95)])
    return dict(cyclical=seeds(best_cycle(lab)), constant=seeds(constant))

def peaks(lab):
    "One cycle to peaks far from the best, and to 3 with a longer cycle"
    cycle = best_cycle(lab)
    rates = dict.fromkeys([cycle.lr, 0.1, 0.2, 3])
    longer = {'3, 30 epochs':seeds(replace(cycle, lr=3, epochs=30))}
    return {f'{lr:g}, 15 epochs':seeds(replace(cycle, lr=lr)) for lr in rates} | longer

def gap(lab):
    "All 50,000 images, with the rates chosen on 10,000 and a low one: validation minus training loss by epoch"
    arms = dict(cycle=best_cycle(lab), steps=best_steps(lab), constant=Run(schedule='constant', lr=0.01, mom=(0.9,0.9)))
    return {k:seeds(replace(o, n_train=None)) for k,o in arms.items()}

def networks(lab):
    "BatchNorm after the convolution or before (pre-activation), with conv and pool shortcuts, each with its own rate"
    arms = {'pool, after':('pool',False), 'pool, before':('pool',True), 'conv, after':('conv',False), 'conv, before':('conv',True)}
    return {k:seeds(best_cycle(lab, shortcut=s, preact=p)) for k,(s,p) in arms.items()}

def range_tests(lab):
    "From 1e-4 to 10, linear to 3, and three weight decays from 0.01 to 10"
    decays = [RangeTest(start_lr=0.01, num_it=100, wd=wd) for wd in (1e-2,1e-3,1e-4)]
    linear = [RangeTest(start_lr=0, end_lr=3, num_it=n, linear=True) for n in (300,400)]
    lab.all([RangeTest(), *linear, *decays])
    return {}

def resnet56(lab):
    "The gap at the network and batch size of 2018: all images, 30 epochs"
    big = Run(depth=56, shortcut='conv', bs=512, n_train=None, epochs=30)
    return {'cycle to 0.8':[big], 'constant 0.01':[replace(big, schedule='constant', lr=0.01, mom=(0.9,0.9))]}

small_scale = [super_convergence, constant_rate, momentum, peaks, gap, networks, range_tests, resnet56]

post = Run(depth=56, shortcut='conv', bs=512, n_train=None, epochs=95)
six_fits = {  # Of the 2018 notebook: peak, epochs, use_clr_beta, and the accuracy it shows, one run each
    (0.8, 95, (10,13.68,0.95,0.85)): 93.53,
    (0.8, 95, (10,50,0.95,0.85)):    92.58,
    (3,   50, (20,10,0.95,0.85)):    92.31,
    (3,   70, (20,10,0.95,0.85)):    93.08,
    (0.8, 95, (10,13.68,0.9,0.9)):   93.39,
    (3,   50, (20,10,0.9,0.9)):      92.25}

published = {'conv':'92, twice', 'pool':'92, twice', 'peak 3, 50 epochs':'"one has to be lucky"'}
published |= {str(k):v for k,v in six_fits.items()}

def clr_beta(run, lr, epochs, cycle):
    "`run` with what stood in a line of 2018"
    div,pct,*mom = cycle
    return replace(run, lr=lr, epochs=epochs, div=div, pct=pct, mom=tuple(mom))

def line(lab):
    "`learn.fit(0.8,1,cycle_len=95,wds=1e-4,use_clr_beta=(10,13.68,0.95,0.8))`, no augmentation, and what stands beside it"
    low = replace(post, schedule='constant', lr=0.01, mom=(0.9,0.9))
    pool,preact = replace(post, shortcut='pool'),replace(post, preact=True)
    arms = {'conv':post, 'pool':pool, 'constant 0.01':low, 'conv, pre-activation':preact}
    return {k:seeds(o, 2) for k,o in arms.items()}

def tests_of_2018():
    "Range tests of ResNet-56 with batches of 512, by name: exponential ones for three weight decays, of an epoch, and linear"
    res = {}
    for shortcut in ('conv','pool'):
        test = RangeTest(depth=56, shortcut=shortcut, bs=512, start_lr=0.01, end_lr=100, num_it=100)
        res |= {f'{shortcut}, wd {wd:g}':seeds(replace(test, wd=wd), n) for wd,n in ((1e-4,3),(1e-3,1),(1e-2,1))}
        res[f'{shortcut}, from 1e-5'] = [replace(test, start_lr=1e-5, num_it=98)]
        res[f'{shortcut}, linear'] = [replace(test, start_lr=0, end_lr=3, num_it=196, linear=True)]
    return res

def full_range_tests(lab):
    "Those of `examples/range_test.py`, which shows them"
    return tests_of_2018()

def notebook(lab):
    "The six fits of the 2018 notebook, with flip and crop"
    return {str(k):[clr_beta(replace(post, augment=True), *k)] for k in six_fits}

def lucky(lab):
    "A peak of 3 over 50 epochs, no augmentation: how often does it go well?"
    return {'peak 3, 50 epochs':seeds(clr_beta(post, 3, 50, (20,10,0.95,0.85)), 4)}

full_scale = [line, full_range_tests, notebook, lucky]

def announce(lab, runs):
    "Say how long `runs` will take, by two timed epochs of the post's, after one that doesn't count"
    runs = [o for o in runs if not lab.done(o)]
    if not runs: return
    trial = replace(post, epochs=3)
    lab.run(trial, wait=True)
    seconds = lab.df(trial).seconds.iloc[1:].max()
    left = sum(2 if isinstance(o, RangeTest) else lab.trim(o).epochs - lab.n_epochs(o) for o in runs)  # a range test: about two epochs
    print(f'{left} epochs are left, {seconds:.0f} s each on {lab.device}: about {left*seconds/3600:.1f} hours for one process', flush=True)

def show_table(lab, f, arms, full):
    "How the `arms` of the experiment `f` ended; range tests are left to `range_test.py`"
    print(f'\n{f.__name__}: {f.__doc__}')
    arms = {k:runs for k,runs in arms.items() if not isinstance(runs[0], RangeTest)}
    if not arms: return
    df = summary(lab, arms)
    if full:
        df.insert(3, 'each', [', '.join(f'{100*lab.df(o).accuracy.iloc[-1]:.2f}' for o in runs) for runs in arms.values()])
        df.insert(4, '2018', df[''].map(published).fillna(''))
    print(df.to_string(index=False), '\n', flush=True)

@call_parse
def main(
    data:str=None,        # Folder of CIFAR-10. None: fastai's own copy, downloaded where there is none
    out:str=None,         # Folder for the logs. None: results/protocol2 beside this script, or ./trial
    full:bool=False,      # The line and the notebook of 2018 at their full size
    only:str=None,        # Names of experiments, with commas between
    trial:bool=False,     # All in little: ResNet-8, three epochs, all images of --data, which should be few
    device:str=None,      # cpu, cuda, cuda:1, … None: fastai's default
    precision:str='fp32', # fp32, bf16, or fp16 on CUDA
    compile:bool=False,   # Compile the network with torch.compile
):
    experiments = {f.__name__:f for f in (full_scale if full else small_scale)}
    unknown = set(only.split(',') if only else ()) - set(experiments)
    if unknown:
        raise SystemExit(f"--only {only}: there is no {', '.join(sorted(unknown))}. There is {', '.join(experiments)}.")
    chosen = [f for k,f in experiments.items() if not only or k in only.split(',')]
    little = dict(depth=8, epochs=3, bs=16, n_train=None, num_it=10) if trial else {}
    out = out or ('trial' if trial else Path(__file__).parent/'results/protocol2')
    lab = Lab(data, out, device, precision, compile, **little)
    for group in [chosen] if full else [[f] for f in chosen]:  # several processes share all runs of a group
        arms = {f:f(lab) for f in group}
        runs = [o for found in arms.values() for os in found.values() for o in os]
        if full: announce(lab, runs)
        lab.all(runs)
        for f,found in arms.items(): show_table(lab, f, found, full)

"""The claims of super-convergence, tested with fastai_clrbeta.

    python experiments/superconvergence.py                  # most telling first; gap and resnet56 need a GPU
    python experiments/superconvergence.py --only momentum  # one of them
    python experiments/superconvergence.py --full           # the line of 2018 to the letter; needs a GPU
    python experiments/superconvergence.py --trial          # everything at a small size, to see that it works

Stop it whenever you like: the same command resumes it. Start it twice, and two processes share the work.

The protocol: the learning rate and momentum of each arm are chosen on 5,000 images held out of the training
set, by the mean accuracy of the last epochs over two seeds, on a grid that grows until the best rate is
inside it. What is reported comes from other seeds and from the test set.
"""
from fastcore.script import call_parse
from dataclasses import replace
from fastai.basics import *
from compare import seeds, summary, tune
from laboratory import Laboratory, RangeTest, Run, working_files

# At a small scale: ResNet-20, batches of 128, 10,000 images. Each experiment returns lists of runs by name

def best_cycle(lab, **network):
    return tune(lab, Run(**network), (0.4,0.8,1.6), [(0.95,0.8),(0.95,0.85)])

def best_steps(lab):
    return tune(lab, Run(schedule='steps'), (0.05,0.1,0.2), [(0.9,0.9),(0.95,0.95)])

def super_convergence(lab):
    "One cycle against steps that have once, twice and four times its epochs, at the rate that is best for 15"
    cycle,steps = best_cycle(lab),best_steps(lab)
    longer = {f'steps, {n} epochs':seeds(replace(steps, epochs=n)) for n in (15,30,60)}
    return {'cycle, 15 epochs':seeds(cycle)} | longer

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
    lrs = dict.fromkeys([cycle.lr, 0.1, 0.2, 3])
    longer = {'3, 30 epochs':seeds(replace(cycle, lr=3, epochs=30))}
    return {f'{lr:g}, 15 epochs':seeds(replace(cycle, lr=lr)) for lr in lrs} | longer

def gap(lab):
    "All 50,000 images, with the rates chosen on 10,000 and a low one: validation minus training loss"
    low = Run(schedule='constant', lr=0.01, mom=(0.9,0.9))
    arms = dict(cycle=best_cycle(lab), steps=best_steps(lab), constant=low)
    return {name:seeds(replace(arm, n_train=None)) for name,arm in arms.items()}

def networks(lab):
    "BatchNorm after or before the convolution, with conv and pool shortcuts, each network with its own rate"
    arms = {}
    for shortcut in ('pool','conv'):
        for place,preact in dict(after=False, before=True).items():
            arms[f'{shortcut}, {place}'] = seeds(best_cycle(lab, shortcut=shortcut, preact=preact))
    return arms

def range_tests(lab):
    "From 1e-4 to 10, linear to 3, and three weight decays from 0.01 to 10"
    decays = [RangeTest(start_lr=0.01, num_it=100, wd=wd) for wd in (1e-2,1e-3,1e-4)]
    linear = [RangeTest(start_lr=0, end_lr=3, num_it=num_it, linear=True) for num_it in (300,400)]
    lab.all([RangeTest(), *linear, *decays])
    return {}

def resnet56(lab):
    "The gap at the network and batch size of 2018: all images, 30 epochs"
    cycle = Run(depth=56, shortcut='conv', bs=512, n_train=None, epochs=30)
    low = replace(cycle, schedule='constant', lr=0.01, mom=(0.9,0.9))
    return {'cycle to 0.8':[cycle], 'constant 0.01':[low]}

small_scale = [super_convergence, constant_rate, momentum, peaks, gap, networks, range_tests, resnet56]

# At full scale: the forum post and the notebook of 2018

post = Run(depth=56, shortcut='conv', bs=512, n_train=None, epochs=95)

six_fits = {  # Peak, epochs and use_clr_beta of the notebook, and the accuracy that it shows, one run each
    (0.8, 95, (10,13.68,0.95,0.85)): 93.53,
    (0.8, 95, (10,50,0.95,0.85)):    92.58,
    (3,   50, (20,10,0.95,0.85)):    92.31,
    (3,   70, (20,10,0.95,0.85)):    93.08,
    (0.8, 95, (10,13.68,0.9,0.9)):   93.39,
    (3,   50, (20,10,0.9,0.9)):      92.25}

published = {'conv':'92, twice', 'pool':'92, twice', 'peak 3, 50 epochs':'"one has to be lucky"'}
published |= {str(fit):accuracy for fit,accuracy in six_fits.items()}

def as_in_2018(run, lr, epochs, use_clr_beta):
    "Return `run` with what stood in a line of 2018."
    div,pct,*mom = use_clr_beta
    return replace(run, lr=lr, epochs=epochs, div=div, pct=pct, mom=tuple(mom))

def line(lab):
    "`learn.fit(0.8,1,cycle_len=95,wds=1e-4,use_clr_beta=(10,13.68,0.95,0.8))`, and what stands beside it"
    arms = {'conv':post, 'pool':replace(post, shortcut='pool'),
            'constant 0.01':replace(post, schedule='constant', lr=0.01, mom=(0.9,0.9)),
            'conv, pre-activation':replace(post, preact=True)}
    return {name:seeds(arm, 2) for name,arm in arms.items()}

def tests_of_2018():
    "Return range tests of ResNet-56 by name: with three weight decays, from 1e-5 in one epoch, and linear."
    tests = {}
    for shortcut in ('conv','pool'):
        test = RangeTest(depth=56, shortcut=shortcut, bs=512, start_lr=0.01, end_lr=100, num_it=100)
        for wd,n_seeds in ((1e-4,3),(1e-3,1),(1e-2,1)):
            tests[f'{shortcut}, wd {wd:g}'] = seeds(replace(test, wd=wd), n_seeds)
        tests[f'{shortcut}, from 1e-5'] = [replace(test, start_lr=1e-5, num_it=98)]
        tests[f'{shortcut}, linear'] = [replace(test, start_lr=0, end_lr=3, num_it=196, linear=True)]
    return tests

def full_range_tests(lab):
    "Those of `experiments/range_test.py`, which shows them"
    return tests_of_2018()

def notebook(lab):
    "The six fits of the 2018 notebook, with flip and crop"
    return {str(fit):[as_in_2018(replace(post, augment=True), *fit)] for fit in six_fits}

def lucky(lab):
    "A peak of 3 over 50 epochs, no augmentation: how often does it go well?"
    return {'peak 3, 50 epochs':seeds(as_in_2018(post, 3, 50, (20,10,0.95,0.85)), 4)}

full_scale = [line, full_range_tests, notebook, lucky]

# The command

def epochs_left(lab, run):
    "Return the epochs that `run` still needs; a range test takes as long as about two."
    return 2 if isinstance(run, RangeTest) else lab.trim(run).epochs - lab.n_rows(run)

def announce(lab, runs):
    "Print how long `runs` will take. Two epochs of the post's run are timed, after one that doesn't count."
    runs = [run for run in runs if not lab.done(run)]
    if not runs: return
    timed = replace(post, epochs=3)
    lab.run(timed, wait=True)
    seconds = lab.df(timed).seconds.iloc[1:].max()
    left = sum(epochs_left(lab, run) for run in runs)
    print(f'{left} epochs are left, {seconds:.0f} s each on {lab.device}: '
          f'about {left*seconds/3600:.1f} hours for one process', flush=True)

def show_table(lab, experiment, arms, full):
    "Print how the `arms` of an experiment ended. Range tests are left to `range_test.py`."
    print(f'\n{experiment.__name__}: {experiment.__doc__}')
    arms = {name:runs for name,runs in arms.items() if not isinstance(runs[0], RangeTest)}
    if not arms: return
    df = summary(lab, arms)
    if full:
        each = lambda runs: ', '.join(f'{100*lab.df(run).accuracy.iloc[-1]:.2f}' for run in runs)
        df.insert(3, 'each', [each(runs) for runs in arms.values()])
        df.insert(4, '2018', df[''].map(published).fillna(''))
    print(df.to_string(index=False), '\n', flush=True)

def choose(only, full):
    "Return the experiments that are named in `only`, with commas between, or all of them."
    experiments = {experiment.__name__:experiment for experiment in (full_scale if full else small_scale)}
    names = only.split(',') if only else list(experiments)
    unknown = set(names) - set(experiments)
    if unknown:
        raise SystemExit(f"--only {only}: there is no {', '.join(sorted(unknown))}. "
                         f"There is {', '.join(experiments)}.")
    return [experiment for name,experiment in experiments.items() if name in names]

def perform(lab, experiments, full):
    "Run all of `experiments`, so that several processes can share their runs, and show a table of each."
    arms = {experiment:experiment(lab) for experiment in experiments}
    runs = [run for by_name in arms.values() for runs in by_name.values() for run in runs]
    if full: announce(lab, runs)
    lab.all(runs)
    for experiment,by_name in arms.items(): show_table(lab, experiment, by_name, full)

@call_parse
def main(
    data:str=None,        # Folder of CIFAR-10. None: fastai's own copy, which is downloaded
    working:str=None,     # Folder of working files. None: working/protocol2 beside this, or working/trial
    tables:str=None,      # Folder of tables: what they have is not run again. None: results/protocol2
    full:bool=False,      # The line and the notebook of 2018 at their full size
    only:str=None,        # Names of experiments, with commas between. None: all
    trial:bool=False,     # A small size: ResNet-8, three epochs, all images of --data, which should be few
    device:str=None,      # cpu, cuda, cuda:1, … None: fastai's default
    precision:str='fp32', # fp32, bf16, or fp16 on CUDA
    compile:bool=False,   # Compile the network with torch.compile
):
    "Run the experiments that are not done yet, and show their results."
    experiments = choose(only, full)
    small = dict(depth=8, epochs=3, bs=16, n_train=None, num_it=10) if trial else {}
    if trial: working = working or working_files.with_name('trial')
    lab = Laboratory(data, working, tables, device, precision, compile, **small)
    if full: perform(lab, experiments, full)
    else:
        for experiment in experiments: perform(lab, [experiment], full)

"""Train the tasks with many cycles, and ask all rules: the measurements behind the peak.

    python benchmarks/cycles.py --what shapes   # the default cycle: momentum and last part
    python benchmarks/cycles.py --what short    # cycles of 300 steps at peaks half a decade apart
    python benchmarks/cycles.py --what long     # cycles of 1,500 steps around the best of them
    python benchmarks/cycles.py --what minis    # miniature cycles of 100 steps
    python benchmarks/cycles.py --what answers  # what the rules answer, ours and others'
    python benchmarks/cycles.py --what free     # optimisers that need no learning rate
    ... --half judging                          # the same on the half that is for judging

Stop it whenever you like: the same command resumes it. The logs are tables in `benchmarks/results/peak`.
"""
from tasks import *
from peers import finders, free_runs, score_of_free_run
from rule_020 import peak_of_020
from fastcore.script import call_parse
import warnings

results = Path(__file__).parent/'results'/'peak'
runs_file = results/'runs.csv'
minis_file = results/'minis.csv'
answers_file = results/'answers.csv'
trials_file = results/'trials.csv'
free_file = results/'free.csv'

class Cycle(CLRBeta):
    "One cycle of exactly `n_steps` steps, whatever the length of an epoch. It ends at a loss of NaN."
    def __init__(self, n_steps, lrs, shape):
        super().__init__(*shape, lrs=lrs)
        self.n_steps,self.losses,self.diverged = n_steps,[],False

    def before_train(self):
        super().before_train()
        self.cycle_steps = self.n_steps

    def before_batch(self):
        if len(self.losses) == self.n_steps: raise CancelFitException()
        super().before_batch()

    def after_loss(self):
        self.losses.append(self.loss.item())
        self.diverged = not math.isfinite(self.losses[-1])
        if self.diverged: raise CancelFitException()

shapes = {'pct13.68 mom0.95-0.8': (10, 13.68, 0.95, 0.8),
          'pct10 mom0.95-0.85':   (10, 10, 0.95, 0.85),
          'pct13.68 mom0.9':      (10, 13.68, 0.9, 0.9)}
default = 'pct13.68 mom0.95-0.8'

def run_cycle(task, seed, cycle):
    "Train `cycle` on a new Learner of `task`, and return the Learner."
    learn = tasks[task].learner(seed)
    n_epoch = math.ceil(cycle.n_steps/len(learn.dls.train))
    with learn.no_bar(), learn.no_logging(): learn.fit(n_epoch, cbs=[cycle, NoValidation()])
    return learn

def score_of(learn, cycle): return -math.inf if cycle.diverged else points(learn)

def train(task, peak, n_steps, seed, shape):
    "Return a row of the table: what a cycle scored, and its training loss over the last tenth."
    t0 = time.perf_counter()
    cycle = Cycle(n_steps, tasks[task].lrs(peak), shapes[shape])
    learn = run_cycle(task, seed, cycle)
    last = np.mean(cycle.losses[-max(1, n_steps//10):])
    return dict(task=task, seed=seed, steps=n_steps, shape=shape, peak=peak,
                score=score_of(learn, cycle),
                valid_loss=math.inf if cycle.diverged else learn.final_record[0],
                last_loss=math.inf if cycle.diverged else last, seconds=time.perf_counter()-t0)

# Which cycles

keys = 'task seed steps shape peak'.split()

def table(file=runs_file):
    if file.exists(): return pd.read_csv(file)
    return pd.DataFrame(columns=[*keys, 'score', 'last_loss'])

def add(jobs, file=runs_file):
    "Run those of `jobs` that the table in `file` lacks, and add a row for each."
    done = set(table(file)[keys].itertuples(index=False, name=None))
    for job in jobs:
        if job in done: continue
        task,seed,steps,shape,peak = job
        row = train(task, peak, steps, seed, shape)
        if file == runs_file: del row['valid_loss']
        with file.open('a') as f:
            pd.DataFrame([row]).to_csv(f, index=False, header=f.tell() == 0, float_format='%.5g')

def usual(task): return 0.1 if 'sgd' in task else 0.01

def rates(centre, decades_below, decades_above):
    "Return rates half a decade apart around `centre`, rounded to two digits."
    exponents = np.arange(-2*decades_below, 2*decades_above+1)/2
    return [float(f'{o:.2g}') for o in centre*10**exponents]

def best_peak(task, steps=300):
    df = table().query('task == @task and steps == @steps and shape == @default')
    return df.groupby('peak').score.mean().idxmax()

def short(names):
    "Peaks around the usual rate; then more, while the best is one of the two at an end."
    for task in names:
        peaks = rates(usual(task), 2, 1.5)
        while True:
            add(itertools.product([task], range(3), [300], [default], peaks))
            i = peaks.index(best_peak(task))
            if   i < 2 and peaks[0] > 1e-8:            peaks = rates(peaks[0]/10**0.5, 0, 0) + peaks
            elif i > len(peaks)-3 and peaks[-1] < 100: peaks = peaks + rates(peaks[-1]*10**0.5, 0, 0)
            else: break

def long(names):
    for task in names:
        if tasks[task].long:
            add(itertools.product([task], range(2), [1500], [default], rates(best_peak(task), 1, 1)))

def shapes_of(names):
    for task in names:
        peaks = rates(best_peak(task), 0.5, 0.5)
        add((task, seed, 300, shape, peak) for peak in peaks for seed in range(5) for shape in shapes)

def minis(names):
    for task in names:
        peaks = table().query('task == @task and steps == 300').peak.unique()
        add(itertools.product([task], range(3), [100], [default], sorted(peaks[peaks <= 10*usual(task)])),
            minis_file)

# What the rules answer

def kind_of(task): return 'sgd' if 'sgd' in task else 'adaptive'

def answers_of(task, seed):
    """Return a row for each rule: the learning rate, the band, and the steps that it cost; and a row for each
    trial that was made."""
    t,rows,trials = tasks[task],[],[]
    def note(rule, lr, steps, band=(None,None)): rows.append((task, seed, rule, lr, *band, steps))
    learn = t.learner(seed)
    if t.slices: learn.lr = slice(1e-3, 1e-1)
    with learn.no_bar(), learn.no_logging():
        for rule,kind in ('test alone',False), ('default',True), ('thorough','thorough'):
            found = learn.lr_find_val(show_plot=False, trials=kind)
            note(rule, found.peak, len(found.df)+found.trials.steps.sum(), found.band)
            trials.append(found.trials.assign(task=task, seed=seed, rule=rule))
        three = learn.lr_find_val(show_plot=False, trials=False, n_runs=3)
    note('three tests', three.peak, len(three.df), three.band)
    for rule in 'valley','minimum','steep','slide': note(rule, found.found[rule], len(found.df))
    diverged = len(found.df) < 100
    old = peak_of_020(found.df.lr, found.df.train_loss, 100, kind_of(task), diverged)
    note('peak of 0.2.0', old, len(found.df))
    for rule,find in finders.items():
        try: note(rule, *find(t.learner(seed)))
        except Exception as e:
            print(task, rule, type(e).__name__, e)
            note(rule, None, 100)
    return pd.DataFrame(rows, columns='task seed rule lr low high steps'.split()), pd.concat(trials)

def answers(names, seeds=range(3)):
    for task,seed in itertools.product(names, seeds):
        done = pd.read_csv(answers_file) if answers_file.exists() else pd.DataFrame(columns=['task','seed'])
        if ((done.task == task) & (done.seed == seed)).any(): continue
        for table,file in zip(answers_of(task, seed), (answers_file,trials_file)):
            with file.open('a', encoding='utf-8') as f:
                table.to_csv(f, index=False, header=f.tell() == 0, float_format='%.5g')

def free(names):
    "Whole runs with optimisers that need no learning rate"
    for task,name,seed in itertools.product(names, free_runs(), range(3)):
        keys = dict(task=task, seed=seed, optimiser=name)
        done = pd.read_csv(free_file) if free_file.exists() else pd.DataFrame(columns=list(keys))
        if (done[list(keys)] == list(keys.values())).all(axis=1).any(): continue
        row = pd.DataFrame([keys | dict(score=score_of_free_run(task, name, seed))])
        with free_file.open('a') as f: row.to_csv(f, index=False, header=f.tell() == 0, float_format='%.5g')

@call_parse
def main(
    what:str='short',       # shapes, short, long, minis, answers or free
    half:str=design,        # design or judging
    only:str='',            # Only tasks with this in their names
):
    warnings.simplefilter('ignore')
    results.mkdir(parents=True, exist_ok=True)
    names = [k for k,o in tasks.items() if o.half == half and only in k]
    dict(shapes=shapes_of, short=short, long=long, minis=minis, answers=answers, free=free)[what](names)

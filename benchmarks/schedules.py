"""`fit_clr_beta` against `fit_one_cycle`: what the schedule brings, and what the peak brings.

    python benchmarks/schedules.py            # train what the log lacks, then print the tables
    python benchmarks/schedules.py --train 0  # print the tables from the log

Eight everyday tasks, each trained for 300 steps with both schedules at two peaks, that of `lr_find_val` and
stock `lr_find`'s valley, with 5 seeds; and for 75 and 150 steps at the first peak. The log is
`benchmarks/results/schedules.csv`; the tables beside it are made from it.
"""
from cycles import *
from scipy.stats import t as student

everyday = ['cifar frozen adam', 'fashion frozen adam', 'fashion cnn bn sgd', 'mnist mlp ln adamw',
            'flights tabular adamw', 'temperatures tabular adamw', 'employment collab adam',
            'languages gru adamw']
log = results.parent/'schedules.csv'
n_seeds,n_steps,shorter = 5,300,(75,150)
ours,stock = 'fit_clr_beta','fit_one_cycle'

class OneCycle(Cycle):
    "The curves of fastai's `fit_one_cycle`, in exactly `n_steps` steps."
    def lr_at(self, i, nb):  return float(combined_cos(0.25, 1/25, 1, 1e-5)(i/nb))
    def mom_at(self, i, nb): return float(combined_cos(0.25, 0.95, 0.85, 0.95)(i/nb))

def score(task, seed, schedule, steps, peak):
    "Train one cycle, and return the points that it scores."
    cycle = {ours:Cycle, stock:OneCycle}[schedule](steps, peak, shapes[default])
    return score_of(run_cycle(task, seed, cycle), cycle)

def peaks(task, seed):
    "Return the peak that each rule finds, with the steps of its test."
    learn = tasks[task].learner(seed)
    with learn.no_bar(), learn.no_logging():
        valley = learn.lr_find(show_plot=False).valley
        n_valley = len(learn.recorder.lrs)
        found = learn.lr_find_val(show_plot=False)
    return dict(found=(found.peak, len(found.df)+found.trials.steps.sum()), valley=(valley, n_valley))

def rows_of(task, seed):
    "Return a row for each cycle of one seed."
    by_rule,rows = peaks(task, seed),[]
    arms = [(schedule, rule, n_steps) for rule in by_rule for schedule in (ours,stock)]
    arms += [(ours, 'found', steps) for steps in shorter]
    for schedule,rule,steps in arms:
        peak,test_steps = by_rule[rule]
        rows.append(dict(task=task, seed=seed, schedule=schedule, rule=rule, steps=steps, peak=peak,
                         test_steps=test_steps, score=score(task, seed, schedule, steps, peak)))
    return rows

def train_all():
    for seed,task in itertools.product(range(n_seeds), everyday):
        done = pd.read_csv(log) if log.exists() else pd.DataFrame(columns=['task','seed'])
        if ((done.task == task) & (done.seed == seed)).any(): continue
        rows = pd.DataFrame(rows_of(task, seed))
        with log.open('a', encoding='utf-8') as f:
            rows.to_csv(f, index=False, header=f.tell() == 0, float_format='%.5g')

# Tables

def logged():
    "Return the log. A run that diverged counts 100 points below the best of its task."
    df = pd.read_csv(log)
    return df.assign(score=df.score.clip(lower=df.groupby('task').score.transform('max')-100))

def paired(a, b):
    "Return the mean of `a-b`, paired by seed, and the half width of its 95% interval."
    diff = (a-b).dropna()
    return diff.mean(), student.ppf(0.975, len(diff)-1)*diff.sem()

def differences(df):
    "Return for each task what the schedule brings at each peak, and what the peak brings to each schedule."
    table = df.query('steps == @n_steps').set_index(['task','seed','schedule','rule']).score.unstack([2,3])
    pairs = {f'schedule, at {rule}':((ours,rule), (stock,rule)) for rule in ('found','valley')}
    pairs |= {f'peak, with {schedule}':((schedule,'found'), (schedule,'valley')) for schedule in (ours,stock)}
    rows = [(task, name, *paired(own[a], own[b])) for task,own in table.groupby('task')
            for name,(a,b) in pairs.items()]
    return pd.DataFrame(rows, columns='task what points interval'.split())

def steps_needed(df):
    "Return for each task after how many steps `fit_clr_beta(found)` is as good as `fit_one_cycle(valley)`."
    rows = {}
    for task,own in df.groupby('task'):
        goal = own.query('schedule == @stock and rule == "valley"').score.mean()
        mine = own.query('schedule == @ours and rule == "found"')
        by_steps = mine.groupby('steps').score.mean().cummax()
        needs = np.exp(np.interp(goal, by_steps, np.log(by_steps.index), right=np.inf))
        rows[task] = dict(goal=goal, steps=needs, with_test=needs+mine.test_steps.mean())
    return pd.DataFrame(rows).T

def overall(df):
    "Return the mean of each difference over the tasks, with its 95% interval over tasks."
    by_what = differences(df).groupby('what').points
    half = by_what.sem()*student.ppf(0.975, by_what.count()-1)
    return pd.DataFrame(dict(mean=by_what.mean(), low=by_what.mean()-half, high=by_what.mean()+half))

@call_parse
def main(
    train:int=1, # Train what the log lacks? 0: only print the tables
):
    "Compare the two schedules at two peaks."
    warnings.simplefilter('ignore')
    if train: train_all()
    df = logged()
    by_task = differences(df).pivot(index='task', columns='what', values='points').join(steps_needed(df))
    tables = dict(by_task=by_task, overall=overall(df))
    for name,table in tables.items():
        print(table.round(2).to_string())
        table.to_csv(log.with_name(f'schedules_{name}.csv'), float_format='%.4g')

"""How settings are chosen and compared: on held-out images for the choice, on the test set for the report."""
from fastai.basics import *
from dataclasses import replace
from scipy import stats

tuning_seeds,reporting_seeds = (100,101),(0,1,2)
n_last = 3 # Epochs at the end of a run over which its accuracy is averaged

def seeds(arm, which=reporting_seeds):
    "Return `arm` with each of these seeds, or with the first `which` seeds if it is a number."
    return [replace(arm, seed=seed) for seed in (range(which) if isinstance(which, int) else which)]

# Choosing

def held_out(arm, lr, mom):
    "Return the runs by which this learning rate and momentum of `arm` are judged."
    return [replace(arm, lr=lr, mom=mom, valid=0.1, seed=seed) for seed in tuning_seeds]

def score(lab, runs):
    "Return the accuracy of the last epochs, averaged over `runs`."
    return np.mean([lab.df(run).accuracy.tail(n_last).mean() for run in runs])

def beyond(grid, best):
    "Return a learning rate beyond the end of `grid` at which `best` is, as far away as its neighbour."
    neighbour = grid[1] if best == grid[0] else grid[-2]
    return float(f'{best*best/neighbour:.2g}')

def scores_around_best(lab, arm, lrs, mom, max_grids=6):
    "Return the score of each learning rate of a grid that grows until the best is inside."
    grid = sorted(lrs)
    for _ in range(max_grids):
        lab.all([run for lr in grid for run in held_out(arm, lr, mom)])
        scores = {lr:score(lab, held_out(arm, lr, mom)) for lr in grid}
        best = max(grid, key=scores.get)
        if best not in (grid[0], grid[-1]): return scores
        grid = sorted([*grid, beyond(grid, best)])
    raise SystemExit(f'{arm.label}, {arm.schedule}: of the learning rates from {grid[0]:g} to {grid[-1]:g} '
                     'the best is at an end.')

def tune(lab, arm, lrs, moms):
    "Return `arm` with the learning rate and momentum that do best on held-out images."
    first_runs = [run for mom in moms for lr in lrs for run in held_out(arm, lr, mom)]
    lab.all(first_runs)  # all at once, so that several processes can share them
    scores = {}
    for mom in moms:
        scores |= {(lr,mom):accuracy for lr,accuracy in scores_around_best(lab, arm, lrs, mom).items()}
    best_lr,best_mom = max(scores, key=scores.get)
    tried = [f'{lr:g} with {high}-{low}: {accuracy:.1%}' for (lr,(high,low)),accuracy in scores.items()]
    print(f"{arm.label}, {arm.schedule}: {best_lr:g} with momentum {best_mom[0]}-{best_mom[1]}, "
          f"of {', '.join(tried)}", flush=True)
    return replace(arm, lr=best_lr, mom=best_mom)

# Reporting

def paired(a, b):
    """Return the mean of `a`-`b`, seed by seed, half of its 95 % interval by the t distribution, and a word:
    'higher' or 'lower' if the interval excludes zero, else 'inconclusive'."""
    diffs = np.asarray(a)-np.asarray(b)
    mean,half = diffs.mean(),math.inf
    if len(diffs) > 1: half = stats.t.ppf(0.975, len(diffs)-1)*diffs.std(ddof=1)/len(diffs)**0.5
    if not abs(mean) > half: return mean,half,'inconclusive'
    return mean,half,'higher' if mean > 0 else 'lower'

def describe(values):
    "Return the mean and, of several values, the standard deviation."
    text = f'{np.mean(values):.2f}'
    return text if len(values) == 1 else f'{text} ± {np.std(values, ddof=1):.2f}'

def difference(a, b):
    "Return `a`-`b` in words, of the seeds that both have. Both are dicts by seed."
    both = [seed for seed in a if seed in b]
    if not both: return ''
    mean,half,word = paired([a[seed] for seed in both], [b[seed] for seed in both])
    return f'{mean:+.2f} ± {half:.2f}, {word}' if len(both) > 1 else f'{mean:+.2f}, one run: inconclusive'

def summary(lab, arms):
    "Return a row for each of `arms`, lists of runs by name: how they ended, and the first arm minus each."
    rows,first_arm = [],None
    for name,runs in arms.items():
        logs = {run.seed:lab.df(run) for run in runs if lab.done(run)}
        if not logs: continue
        ends = {seed:100*df.accuracy.iloc[-1] for seed,df in logs.items()}
        late = [100*df.accuracy.tail(n_last).mean() for df in logs.values()]
        gaps = [df.valid_loss.iloc[-1]-df.train_loss.iloc[-1] for df in logs.values()]
        rows.append({'':name, 'n':len(logs), 'accuracy, %':describe([*ends.values()]),
                     f'mean of last {n_last}':describe(late), 'gap':describe(gaps),
                     'first − this':difference(first_arm, ends) if first_arm else ''})
        first_arm = first_arm or ends
    return pd.DataFrame(rows)

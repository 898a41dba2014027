"What the pages on 2018 compute from the logs: figures of runs, effects with their intervals, and verdicts."
from contextlib import redirect_stdout
from fastai.basics import *
from IPython.display import HTML
from compare import n_last, paired
import io

def quiet(experiment, lab):
    "Return the runs of `experiment` by name, without a word about how they were chosen."
    with redirect_stdout(io.StringIO()): return experiment(lab)

# Figures of runs: a value for each run, or a row for each with a column per epoch

def end(lab, runs): return np.array([100*lab.df(run).accuracy.iloc[-1] for run in runs])
def late(lab, runs): return np.array([100*lab.df(run).accuracy.tail(n_last).mean() for run in runs])
def best(lab, runs): return np.array([100*lab.df(run).accuracy.max() for run in runs])
def last(lab, runs, column): return np.array([lab.df(run)[column].iloc[-1] for run in runs])
def last_gap(lab, runs): return last(lab, runs, 'valid_loss')-last(lab, runs, 'train_loss')
def by_epoch(lab, runs): return 100*np.stack([lab.df(run).accuracy for run in runs])
def lowest(lab, runs): return np.array([lab.df(run).valid_loss.idxmin()+1 for run in runs])

def gaps(lab, runs):
    "Return the gap, validation minus training loss, by epoch: as many epochs as all `runs` have."
    found = [df.valid_loss-df.train_loss for df in map(lab.df, runs)]
    return np.stack([gap[:min(map(len, found))] for gap in found])

def rise(lab, runs, n=13):
    "Return how much a straight line through the gap of the first `n` epochs rises."
    return (n-1)*np.polyfit(np.arange(n), gaps(lab, runs)[:,:n].T, 1)[0]

def turn(df, column):
    "Return the learning rate at which a curve of a range test turns: a loss is lowest, the accuracy highest."
    return df.lr[df[column].idxmax() if 'accuracy' in column else df[column].idxmin()]

# Effects and verdicts

class Effect:
    "The mean of `values`, one for each seed, and its 95 % interval; of `ratios` it is the geometric mean."
    def __init__(self, values, ratios=False):
        logs = np.log(values) if ratios else np.asarray(values)
        mean,half,_ = paired(logs, np.zeros_like(logs))
        back = np.exp if ratios else float
        self.n = len(logs)
        self.mean,self.low,self.high = (back(o) for o in (mean, mean-half, mean+half))

    def __repr__(self):
        mean,low,high = (f'{o:.2g}' if abs(o) < 10 else f'{o:.0f}' for o in (self.mean, self.low, self.high))
        return f'{mean} ({low} to {high})'.replace('-', '−')

    def verdict(self, low=0, high=math.inf):
        "Return what the interval says of a claim that the value lies between `low` and `high`."
        if low < self.low and self.high < high: return 'confirmed'
        if self.high < low or high < self.low: return 'contradicted'
        return 'inconclusive'

def difference(lab, a, b, measure): return Effect(measure(lab, a)-measure(lab, b))

def differences(lab, arms):
    "Return a row for each of `arms` but the first: the first minus this one, with its interval and a word."
    (name,first_runs),*others = arms.items()
    words = dict(confirmed='higher', contradicted='lower', inconclusive='inconclusive')
    measures = {'at the end':end, f'last {n_last} epochs':late, 'best epoch of each':best}
    rows = []
    for other,runs in others:
        effects = {k:difference(lab, first_runs, runs, measure) for k,measure in measures.items()}
        rows.append({f'{name}, minus':other} | {k:f'{o}, {words[o.verdict()]}' for k,o in effects.items()})
    return pd.DataFrame(rows)

# Tables

def show(df):
    "Return the table as HTML, with real minus signs."
    html = df.to_html(index=False, border=0, na_rep='–', float_format='{:.2f}'.format)
    return HTML(html.replace('>-0.00<', '>0.00<').replace('>-', '>−'))

def table(rows):
    "Return `rows`, dicts with the same keys, as a table in Markdown."
    head = [*rows[0]]
    lines = [head, [':--']*len(head), *[[str(o) for o in row.values()] for row in rows]]
    return '\n'.join(f"| {' | '.join(line)} |" for line in lines)

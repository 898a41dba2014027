"""How many points each rule for the learning rate loses on real tasks, from the tables of `cycles.py`.

    python benchmarks/peak.py            # print the tables, and write them to benchmarks/results/peak
    python benchmarks/peak.py --smoke-test    # measure one small task in a new folder, and judge it

A point is one percent of accuracy, or 0.01 of the standardised squared error; at most 100 are counted. The
reference is the best mean of the grid of peaks; between two of its rates, scores are interpolated.
"""
from fastai.basics import *
from fastcore.script import call_parse
import cycles, tempfile
from tasks import design, judging, tasks

most = 100        # Points that are counted at most
no_answer = 10    # Points for a test without an answer
multipliers = 10**np.linspace(-1.5, 1.5, 25)
constants = dict(sgd=0.1, adaptive=0.03)
fastai_rules = 'valley','minimum','steep','slide'

# Scores

def scores_of(steps):
    "Return for each task a table of scores: a row per peak, a column per seed."
    runs = cycles.table().query('steps == @steps and shape == @cycles.default')
    return {task:_clipped(rows.pivot_table(index='peak', columns='seed', values='score', dropna=False))
            for task,rows in runs.groupby('task')}

def _clipped(table):
    table = table.loc[:, table.notna().sum() >= table.notna().sum().max()]  # seeds that ran at all peaks
    table = table.dropna().replace(-np.inf, -1e9)
    return table.clip(lower=table.mean(axis=1).max()-most)

def regret(table, lr):
    "Return the points that `lr` loses against the best peak."
    means = table.mean(axis=1)
    if lr is None or not math.isfinite(lr): return no_answer
    return means.max() - np.interp(math.log10(lr), np.log10(means.index), means)

def noise(table):
    "Return the points lost by choosing the peak by one seed and scoring it by the others."
    lost = []
    for seed in table:
        others = table.drop(columns=seed).mean(axis=1)
        lost.append(others.max()-others[table[seed].idxmax()])
    return np.mean(lost)

# Rows: what each rule loses on each task

def rows_of_answers(scores):
    "Return a row for each answer: task, seed, rule, points, steps and whether there was no answer."
    answers = pd.read_csv(cycles.answers_file)
    answers = answers[answers.task.isin(scores)]
    constant = answers.query("rule == 'test alone'")
    usual = [constants[cycles.kind_of(o)] for o in constant.task]
    constant = constant.assign(rule='the usual rate', steps=0, lr=usual)
    tuned = [_tuned(answers, scores, rule) for rule in fastai_rules]
    answers = pd.concat([answers, constant, *tuned], ignore_index=True)
    points = [regret(scores[task], lr) for task,lr in zip(answers.task, answers.lr)]
    return answers.assign(points=points, without=answers.lr.isna())

def _tuned(answers, scores, rule):
    "Return the answers of `rule`, times the factor that is best on the design half for each optimiser."
    own = answers[answers.rule == rule]
    kinds = own.task.map(cycles.kind_of)
    is_design = own.task.map(lambda o: tasks[o].half) == design
    factors = {}
    for kind in constants:
        some = own[(kinds == kind) & is_design]
        lost = [np.mean([regret(scores[t], lr*m) for t,lr in zip(some.task, some.lr)]) for m in multipliers]
        factors[kind] = multipliers[np.argmin(lost)] if len(some) else 1.
    return own.assign(rule=f'{rule}, tuned', lr=own.lr*kinds.map(factors))

def rows_of_three_runs(scores, steps):
    "Return the rows of a search by three full runs: a third of the default, the default, and three times it."
    answers = pd.read_csv(cycles.answers_file).query("rule == 'test alone'")
    rows = []
    for o in answers[answers.task.isin(scores)].itertuples():
        table = scores[o.task]
        seed = table.columns[o.seed % len(table.columns)]
        tried = [o.lr/3, o.lr, o.lr*3]
        found = np.interp(np.log10(tried), np.log10(table.index), table[seed])
        rows.append((o.task, o.seed, 'three full runs', regret(table, tried[found.argmax()]), 100+3*steps))
    return pd.DataFrame(rows, columns='task seed rule points steps'.split()).assign(without=False)

def rows_of_free_runs(scores):
    "Return the rows of the optimisers that need no learning rate."
    free = pd.read_csv(cycles.free_file).query('task in @scores').rename(columns={'optimiser':'rule'})
    best = free.task.map(lambda o: scores[o].mean(axis=1).max())
    lost = (best-free.score.replace(-np.inf, -1e9)).clip(upper=most)
    return free.assign(points=lost, steps=0, without=False)

# Tables

def summary(rows):
    "Return for each rule the median, mean and worst points, with 95% intervals over data sets."
    by_task = rows.groupby(['rule','task']).agg(
        points=('points','mean'), without=('without','sum'), steps=('steps','mean'))
    table = []
    for rule,own in by_task.groupby('rule'):
        points = own.points.droplevel('rule')
        drawn = _bootstrap(points)
        low,high = np.quantile(drawn, [0.025,0.975])
        table.append((rule, points.median(), points.mean(), low, high, points.max(), points.idxmax(),
                      own.without.sum(), own.steps.mean(), len(points)))
    columns = 'rule median mean mean_low mean_high worst worst_task without cost tasks'.split()
    return pd.DataFrame(table, columns=columns).sort_values('mean')

def _bootstrap(points, n=2000):
    "Return the means over tasks for `n` draws of data sets with replacement."
    rng = np.random.default_rng(0)
    by_data = [own.to_numpy() for _,own in points.groupby(points.index.map(lambda o: tasks[o].data))]
    draws = rng.integers(len(by_data), size=(n, len(by_data)))
    return [np.concatenate([by_data[i] for i in draw]).mean() for draw in draws]

def compare_shapes():
    """Return for each shape of the cycle how many points more than the default it scores in the mean over the
    design tasks, with a 95% interval over data sets. Each shape has the best of the same three peaks."""
    runs = cycles.table().query('steps == 300')
    rows = {}
    for task,own in runs.groupby('task'):
        own = own[own.groupby('peak')['shape'].transform('nunique') == len(cycles.shapes)]
        if own.empty: continue
        table = own[own.seed < 5].replace(-np.inf, np.nan).pivot_table(
            index='peak', columns=['shape','seed'], values='score', dropna=False)
        best = {shape:table[shape].loc[table[shape].mean(axis=1).idxmax()] for shape in cycles.shapes}
        rows[task] = {shape:(scores-best[cycles.default]).mean() for shape,scores in best.items()}
    table = pd.DataFrame(rows).T.drop(columns=cycles.default)
    drawn = {shape:np.quantile(_bootstrap(table[shape]), [0.025,0.975]) for shape in table}
    return pd.DataFrame({shape:dict(mean=table[shape].mean(), low=drawn[shape][0], high=drawn[shape][1],
                                    tasks=len(table)) for shape in table}).T

def lengths():
    "Return for each task the best peaks of short and long cycles, and what the first loses in the second."
    short,long = scores_of(300),scores_of(1500)
    rows = {}
    for task,table in long.items():
        best = [scores.mean(axis=1).idxmax() for scores in (short[task],table)]
        rows[task] = dict(short=best[0], long=best[1], lost=regret(table, best[0]))
    return pd.DataFrame(rows).T

def is_telling(table, task):
    "Return False if the best peak is within 5 points of the lowest rate, so that any rate would do."
    means = table.mean(axis=1)
    return means.max()-means.iloc[0] > 5 or means.max()-means.iloc[-1] > 5

near = 0.5  # points: about the noise of one seed

def coverage(scores):
    """Return how often the band of each rule holds the best peak, how often one that is `near` it in points,
    and its median width in decades."""
    answers = pd.read_csv(cycles.answers_file).dropna(subset=['low'])
    answers = answers[answers.task.isin(scores)]
    best = answers.task.map({task:table.mean(axis=1).idxmax() for task,table in scores.items()})
    rounding = 1.02  # the grid's rates are rounded to two digits
    holds = (best >= answers.low/rounding) & (best <= answers.high*rounding)
    in_band = [np.geomspace(low, high, 20) for low,high in zip(answers.low, answers.high)]
    lost = [min(regret(scores[task], lr) for lr in lrs) for task,lrs in zip(answers.task, in_band)]
    width = np.log10(answers.high/answers.low)
    by_rule = answers.assign(holds=holds, is_near=np.array(lost) <= near, width=width).groupby('rule')
    return by_rule.agg(holds=('holds','mean'), is_near=('is_near','mean'), width=('width','median'))

def judge(half, steps):
    "Return the summary of one half at one length of cycle, its rows, the noise of a seed, and its bands."
    everywhere = {task:table for task,table in scores_of(steps).items() if is_telling(table, task)}
    rows = [rows_of_answers(everywhere), rows_of_three_runs(everywhere, steps)]
    if steps == 300 and cycles.free_file.exists(): rows.append(rows_of_free_runs(everywhere))
    rows = pd.concat(rows, ignore_index=True)
    rows = rows[rows.task.map(lambda o: tasks[o].half) == half]
    own = {task:table for task,table in everywhere.items() if tasks[task].half == half}
    table = summary(rows).assign(half=half, steps=steps)
    return table,rows,np.mean([noise(o) for o in own.values()]),coverage(own)

def smoke():
    "Measure one small task in a new folder."
    cycles.results = Path(tempfile.mkdtemp())
    for name in 'runs','minis','answers','trials','free':
        setattr(cycles, f'{name}_file', cycles.results/f'{name}.csv')
    task = 'cancer mlp sgd'
    cycles.add(itertools.product([task], range(2), [300], [cycles.default], cycles.rates(0.1, 2, 1)))
    cycles.finders.clear()  # other packages need not be installed
    cycles.answers([task], range(1))

def save(table, name, **kwargs): table.to_csv(cycles.results/f'{name}.csv', float_format='%.4g', **kwargs)

@call_parse
def main(
    smoke_test:store_true=False, # Measure one small task first, in a new folder, and judge only that
):
    "Print the tables of points lost, and write them beside the measurements."
    if smoke_test: smoke()
    tables,all_rows,bands = [],[],[]
    for half,steps in itertools.product([design,judging], [300,1500]):
        if not any(tasks[task].half == half for task in scores_of(steps)): continue
        table,rows,of_seed,band = judge(half, steps)
        print(f'\n{half}, {steps} steps, {rows.task.nunique()} tasks, noise of one seed {of_seed:.2f}')
        print(table.drop(columns=['half','steps']).to_string(index=False, float_format='{:.2f}'.format))
        print(band.to_string(float_format='{:.2f}'.format))
        tables.append(table)
        all_rows.append(rows.assign(half=half, length=steps))
        bands.append(band.assign(half=half, length=steps))
    save(pd.concat(tables), 'regret', index=False)
    save(pd.concat(all_rows), 'rows', index=False)
    save(pd.concat(bands), 'bands')
    if not smoke_test: save(compare_shapes(), 'shapes'), save(lengths(), 'lengths')

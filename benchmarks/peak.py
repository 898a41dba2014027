"""What a suggestion for the peak of a cycle is worth: tiny tasks, a grid of peaks, and the rules of this and
other tools on range tests.

    python benchmarks/peak.py grid    # train each task at each peak (50 minutes of one core); can be resumed
    python benchmarks/peak.py tests   # range tests, their raw curves
    python benchmarks/peak.py trials  # of three peaks the best, by short cycles
    python benchmarks/peak.py judge   # regret of every rule, from the logs, in seconds

Regret: points of accuracy (regression: hundredths of the standardised squared error) that a task loses at the
rule's learning rate against the best of the grid, both as means over seeds and linear in log10 of the
learning rate between its points.
"""
from fastai.basics import *
from fastai.callback.schedule import *
from fastai.layers import *
from fastai_clrbeta.all import *
from fastcore.script import call_parse
from sklearn import datasets as skd
from fastai_clrbeta.peak import centred, factors, find_peak
import importlib.util, warnings

here = Path(__file__).parent/'results'
grid = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1., 3., 10.]
seeds = 0,1,2

# Data: (x, y) of the training set and of the validation set, always the same

def split(x, y, n_train, n_max=2000):
    idx = np.random.RandomState(0).permutation(len(x))
    x,y = tensor(x).float() if x.dtype.kind=='f' else tensor(x).long(),tensor(y)
    return (x[idx[:n_train]],y[idx[:n_train]]),(x[idx[n_train:n_max]],y[idx[n_train:n_max]])

def scaled(x): return (x-x.mean(0))/(x.std(0)+1e-6)

def digits(n_train=800, px=None):
    "Handwritten digits as rows of numbers, or as images of `px` pixels"
    x,y = skd.load_digits(return_X_y=True)
    x = ((x-x.mean())/x.std()).astype('float32')
    if not px: return split(x, y, n_train)
    train,valid = split(x.reshape(-1,1,8,8), y, n_train)
    big = lambda o: F.interpolate(o, size=(px,px), mode='bilinear') if px!=8 else o
    return (big(train[0]),train[1]),(big(valid[0]),valid[1])

def rows(n_train=1000):
    "A table of 20 columns in 4 classes"
    x,y = skd.make_classification(3000, 20, n_informative=10, n_classes=4, class_sep=1.2, flip_y=0.02,
                                  random_state=1)
    return split(scaled(x), y, n_train, 3000)

def cancer():
    x,y = skd.load_breast_cancer(return_X_y=True)
    return split(scaled(x), y, 300)

def regression(f, n_train):
    x,y = f()
    (a,b),(c,d) = split(scaled(x), scaled(y), n_train, 3000)
    return (a,b.float()[:,None]),(c,d.float()[:,None])

def friedman(n_train=1000):
    return regression(lambda: skd.make_friedman1(3000, 10, noise=1., random_state=1), n_train)

def friedman3(n_train=1000):
    return regression(lambda: skd.make_friedman3(3000, noise=0.1, random_state=1), n_train)

def diabetes(): return regression(lambda: skd.load_diabetes(return_X_y=True), 300)

def quantiles(n_train=1500):
    "Three shells around a point in 8 dimensions"
    x,y = skd.make_gaussian_quantiles(n_samples=4000, n_features=8, n_classes=3, random_state=1)
    return split(scaled(x), y, n_train, 4000)

def hastie(n_train=1500):
    "Is a point of 10 dimensions far from the centre?"
    x,y = skd.make_hastie_10_2(4000, random_state=1)
    return split(scaled(x), (y>0).astype(int), n_train, 4000)

def shapes(n_train=1200, n=2400, px=16):
    "Coloured discs, squares, crosses and rings of any size and place, on noise"
    rs = np.random.RandomState(3)
    y,r = rs.randint(4, size=n),rs.uniform(2.5, 5, n)[:,None,None]
    dx,dy = (np.arange(px)[None,None]-rs.uniform(5, px-5, (n,1,1)),
             np.arange(px)[None,:,None]-rs.uniform(5, px-5, (n,1,1)))
    dist,side = np.hypot(dx, dy),np.maximum(abs(dx), abs(dy))
    forms = [dist<r, side<r*0.9, (np.minimum(abs(dx), abs(dy))<r*0.35) & (side<r), (dist<r) & (dist>r*0.6)]
    on = np.choose(y[:,None,None], forms)[:,None]
    x = 0.25*rs.randn(n, 3, px, px) + on*rs.uniform(0.7, 1.5, (n,3,1,1))*rs.choice([-1,1], (n,3,1,1))
    return split(x, y, n_train, n)

def text(n_train=1000, n=3000, length=16, vocab=30):
    "Sentences of made-up words: each of 4 topics has words that are more frequent in it"
    rs = np.random.RandomState(2)
    topics = rs.dirichlet(np.full(vocab, 0.6), 4)
    y = rs.randint(4, size=n)
    return split(np.stack([rs.choice(vocab, length, p=topics[o]) for o in y]), y, n_train, n)

# Models

def mlp(norm, n_in, n_out, n=64):
    layer = lambda a,b: [
        nn.Linear(a, b), *({'bn':[nn.BatchNorm1d(b)], 'ln':[nn.LayerNorm(b)], None:[]}[norm]), nn.ReLU()]
    return nn.Sequential(*layer(n_in, n), *layer(n, n), nn.Linear(n, n_out))

def cnn(norm, n=16, c_in=1, n_out=10):
    layer = lambda a,b: ConvLayer(a, b, stride=2, norm_type=NormType.Batch if norm else None)
    head = lambda: nn.Sequential(layer(2*n, 2*n), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                 nn.Linear(2*n, n_out))
    return nn.Sequential(layer(c_in, n), layer(n, 2*n), head())

class Recurrent(Module):
    "The last state of an RNN over words or over the rows of an image"
    def __init__(self, kind, n_in=None, vocab=30, n=32, n_out=4):
        self.emb = nn.Embedding(vocab, n) if n_in is None else nn.Flatten(0, 0)
        self.rnn,self.out = kind(n_in or n, n, batch_first=True),nn.Linear(n, n_out)
        self.n_in = n_in
    def forward(self, x):
        x = self.emb(x) if self.n_in is None else x.view(len(x), -1, self.n_in)
        return self.out(self.rnn(x)[0][:,-1])

class Attention(Module):
    "A transformer's encoder, with LayerNorm"
    def __init__(self, vocab=30, length=16, n=32, n_out=4):
        self.emb,self.pos = nn.Embedding(vocab, n),nn.Parameter(torch.randn(length, n)*0.1)
        self.layers = nn.Sequential(*[nn.TransformerEncoderLayer(n, 2, 64, dropout=0., batch_first=True)
                                      for _ in range(2)])
        self.out = nn.Linear(n, n_out)
    def forward(self, x): return self.out(self.layers(self.emb(x)+self.pos).mean(1))

def thirds(m): return [params(o) for o in m]

def pretrained():
    "A CNN that knows the digits turned upside down"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        m,(x,y) = cnn(True),digits(px=8)[0]
        opt = torch.optim.Adam(m.parameters(), 1e-2)
        for _ in range(20):
            opt.zero_grad(); F.cross_entropy(m(x.flip(2)), y).backward(); opt.step()
        m[2][-1].reset_parameters()
    return m

# Tasks: data, model, optimiser, epochs, batch size

def task(data, model, opt, epochs, bs=64, **kw):
    return SimpleNamespace(data=data, model=model, opt=opt, epochs=epochs, bs=bs, kw=kw)

tasks = {
    'digits mlp bn sgd':        task(digits,        lambda: mlp('bn', 64, 10), sgd, 6),
    'digits mlp sgd':           task(digits,        lambda: mlp(None, 64, 10), sgd, 8),
    'digits cnn sgd':           task(partial(digits, px=8), lambda: cnn(None), sgd, 8),
    'digits cnn bn adam':       task(partial(digits, px=8), lambda: cnn(True), Adam, 5),
    'digits resnet8 sgd':  task(partial(digits, 320, px=16), lambda: cifar_resnet(8, c_in=1), sgd, 5, bs=32),
    'digits resnet8 adam': task(partial(digits, 320, px=16), lambda: cifar_resnet(8, c_in=1), Adam, 5, bs=32),
    'digits gru adam':          task(digits,        lambda: Recurrent(nn.GRU, 8, n_out=10), Adam, 8),
    'digits frozen bn adam':    task(partial(digits, px=8), pretrained, Adam, 5, splitter=thirds),
    'rows mlp ln adam':         task(rows,          lambda: mlp('ln', 20, 4), Adam, 8),
    'rows mlp adam':            task(rows,          lambda: mlp(None, 20, 4), Adam, 10),
    'cancer mlp sgd':           task(cancer,        lambda: mlp(None, 30, 2), sgd, 10, bs=32),
    'friedman mlp bn sgd':      task(friedman,      lambda: mlp('bn', 10, 1), sgd, 8),
    'diabetes mlp adam':        task(diabetes,      lambda: mlp(None, 10, 1), Adam, 10, bs=32),
    'text lstm sgd':            task(text,          lambda: Recurrent(nn.LSTM), sgd, 8),
    'text attention ln adam':   task(text,          Attention, Adam, 5),
    'text attention ln sgd':    task(text,          Attention, sgd, 5),
    'quantiles mlp bn sgd':     task(quantiles,     lambda: mlp('bn', 8, 3), sgd, 6),
    'quantiles mlp bn adam':    task(quantiles,     lambda: mlp('bn', 8, 3), Adam, 6),
    'hastie mlp sgd':           task(hastie,        lambda: mlp(None, 10, 2), sgd, 10),
    'hastie mlp ln adam':       task(hastie,        lambda: mlp('ln', 10, 2), Adam, 5),
    'friedman3 mlp ln sgd':     task(friedman3,     lambda: mlp('ln', 4, 1), sgd, 8),
    'friedman3 mlp bn adam':    task(friedman3,     lambda: mlp('bn', 4, 1), Adam, 6),
    'shapes cnn bn sgd':        task(shapes,        lambda: cnn(True, c_in=3, n_out=4), sgd, 8),
    'shapes cnn adam':          task(shapes,        lambda: cnn(None, c_in=3, n_out=4), Adam, 10),
    'shapes resnet8 long sgd':  task(shapes,        lambda: cifar_resnet(8, n_out=4), sgd, 12),
    'digits gru sgd':           task(digits,        lambda: Recurrent(nn.GRU, 8, n_out=10), sgd, 8),
}

def loader(x, y, bs, **kw):
    return DataLoader(range(len(x)), bs, create_batch=lambda b: (x[b],y[b]), **kw)

class NoValid(Callback):
    "Only the end counts"
    def before_validate(self): raise CancelValidException()

def learner(name, seed):
    t = tasks[name]
    train,valid = t.data()
    set_seed(seed)
    is_reg = train[1].is_floating_point()
    dls = DataLoaders(loader(*train, t.bs, shuffle=True, drop_last=True),
                      loader(*valid, 2*t.bs, shuffle=True))
    learn = Learner(dls, t.model(), loss_func=MSELossFlat() if is_reg else CrossEntropyLossFlat(),
                    opt_func=t.opt,
                    metrics=None if is_reg else accuracy, **t.kw)
    if t.kw: learn.lr = slice(1e-4, 1e-3); learn.freeze_to(1)
    learn.remove_cb(ProgressCallback)
    return learn

def score(name, peak, seed):
    "Points of accuracy, or minus hundredths of the standardised squared error, of a cycle with this peak"
    learn = learner(name, seed)
    with learn.no_logging():
        learn.fit_clr_beta(slice(peak/10, peak) if tasks[name].kw else peak, cycle_len=tasks[name].epochs,
                           wds=1e-4, cbs=NoValid())
        res = learn.validate()
    if len(res) > 1: return 100*res[1]
    return -100*min(res[0], 1.) if res[0]==res[0] else -100.

def range_test(name, seed):
    learn = learner(name, seed)
    with learn.no_logging():
        df = learn.lr_find_val(1e-5, 10, num_it=100, wd=1e-4, show_plot=False, bn='both').df
    return df[['lr', *[o for o in df if o in ('train_loss','valid_loss','valid_loss_batch')]]]

def run_grid():
    f = here/'peak_grid.csv'
    done = set() if not f.exists() else {
        tuple(o) for o in pd.read_csv(f)[['task','peak','seed']].itertuples(index=False)}
    if not done: f.write_text('task,peak,seed,score,seconds\n')
    for seed,name,peak in itertools.product(seeds, tasks, grid):
        if (name,peak,seed) in done: continue
        t0 = time.perf_counter()
        res = score(name, peak, seed)
        with f.open('a') as o: o.write(f'{name},{peak:g},{seed},{res:.3f},{time.perf_counter()-t0:.2f}\n')

def run_tests():
    f = here/'peak_tests.csv.gz'
    res = [range_test(name, seed).assign(task=name, seed=seed) for seed in seeds for name in tasks]
    pd.concat(res).to_csv(f, index=False, float_format='%.6g')

def trial(name, peak, seed, n):
    "What `score` says after a cycle of only `n` steps, on as few batches, or on some of the epochs"
    learn = learner(name, seed)
    t,dl = tasks[name],learn.dls.train
    if n < len(dl):
        x,y = (o[:n*t.bs] for o in t.data()[0])
        learn.dls.loaders[0] = loader(x, y, t.bs, shuffle=True, drop_last=True)
    with learn.no_logging():
        lrs = slice(peak/10, peak) if t.kw else peak
        learn.fit_clr_beta(lrs, cycle_len=max(1, round(n/len(dl))), wds=1e-4, cbs=NoValid())
        res = learn.validate()
    return -res[0] if res[0]==res[0] else -math.inf

def run_trials():
    """Of three peaks, a third, one and three times the suggestion, the best after trial cycles that cost a
    part of the run"""
    df = regrets().query("rule == 'peak, training'").dropna()
    res = []
    for part in (0.1, 0.3, 1):
        for o in df.itertuples():
            steps = len(learner(o.task, o.seed).dls.train)*tasks[o.task].epochs
            peaks = [o.lr/3, o.lr, o.lr*3]
            best = max(peaks, key=lambda p: trial(o.task, p, o.seed, max(4, round(steps*part/3))))
            res.append((part, o.task, o.seed, best, loss_of(o.task, best), o.regret))
        pd.DataFrame(res, columns='part task seed lr regret of_peak'.split()).to_csv(
            here/'peak_trials.csv', index=False, float_format='%.4g')

# The rules: a learning rate from the curves of one range test

def lagging(y):
    "fastai's smoothing of a loss"
    avg,res = 0.,[]
    for i,o in enumerate(y):
        avg = 0.98*avg + 0.02*o
        res.append(avg/(1-0.98**(i+1)))
    return res

def fastais(f):
    "A rule of fastai's, on its own smoothed loss, without the first tenth and the last five steps"
    def rule(lrs, losses, adaptive):
        keep = slice(10, max(11, len(lrs)-5))
        lrs,losses = tensor(lrs)[keep],tensor(lagging(losses))[keep]
        ok = losses.isfinite()
        args = (lrs[ok].tolist(),losses[ok].tolist()) if f is valley else (lrs[ok],losses[ok])
        return float(f(*args, 100)[0])
    return rule

def steepest(smoothing, skip_begin, skip_end):
    """Where the loss falls fastest from step to step, as torch-lr-finder (0.05, 10, 5) and Lightning (its
    moving average, 10, 1) suggest"""
    def rule(lrs, losses, adaptive):
        y = np.array(lagging(losses) if smoothing is None else
                     pd.Series(losses).ewm(alpha=smoothing, adjust=False).mean())
        keep = slice(skip_begin, len(y)-skip_end)
        y,lrs = y[keep],np.asarray(lrs)[keep]
        ok = np.isfinite(y)
        return lrs[ok][np.gradient(y[ok]).argmin()]
    return rule

def peaks(lrs, losses, adaptive): return find_peak(lrs, losses, 100, adaptive, diverged=len(lrs) < 100).lr

rules = {'peak, training':(peaks,'train_loss'),
         'torch-lr-finder, training':(steepest(0.05, 10, 5),'train_loss'),
         'Lightning, training':(steepest(None, 10, 1),'train_loss'),
         **{f'{f.__name__}, {name}':(fastais(f),f'{col}_loss') for f in (valley,minimum,steep,slide)
            for name,col in (('training','train'),('validation','valid'))}}

# What they are worth

def loss_of(task, lr):
    "What `task` loses at `lr`"
    y = pd.read_csv(here/'peak_grid.csv').query('task == @task').groupby('peak').score.mean()
    return y.max()-np.interp(math.log10(lr), np.log10(y.index.to_numpy(float)), y)

def regrets():
    "Of each rule, task and seed: the suggestion and what it loses; None where there is no suggestion"
    scores = pd.read_csv(here/'peak_grid.csv').groupby(['task','peak']).score.mean().unstack()
    x,res = np.log10(scores.columns.to_numpy(float)),[]
    for (task,seed),df in pd.read_csv(here/'peak_tests.csv.gz').groupby(['task','seed']):
        y = scores.loc[task].to_numpy()
        for name,(rule,col) in rules.items():
            try: lr = rule(df.lr.to_numpy(), df[col].to_numpy(), 'adam' in task)
            except (ValueError,IndexError,RuntimeError): lr = None
            found = lr is not None and math.isfinite(lr) and lr > 0
            res.append((name, task, seed, lr if found else math.nan,
                        y.max()-np.interp(np.log10(lr), x, y) if found else math.nan))
    return pd.DataFrame(res, columns='rule task seed lr regret'.split())

def left_out():
    "Of each task, the factor that is best on the other tasks of its kind of optimiser, and what it loses"
    df = regrets().query("rule == 'peak, training'").dropna()
    scores = pd.read_csv(here/'peak_grid.csv').groupby(['task','peak']).score.mean().unstack()
    x,tried = np.log10(scores.columns.to_numpy(float)),np.geomspace(0.05, 2, 38)
    loses = {}
    for task,own in df.groupby('task'):
        y,middles = scores.loc[task].to_numpy(),own.lr/factors['adam' in task]
        loses[task] = np.array([np.mean(y.max()-np.interp(np.log10(f*middles), x, y)) for f in tried])
    res = []
    for task in loses:
        others = [np.minimum(o, 6) for k,o in loses.items()
                  if k != task and ('adam' in k) == ('adam' in task)]
        best = np.sum(others, axis=0).argmin()  # no task counts for more than six points
        res.append((task, tried[best], loses[task][best]))
    return pd.DataFrame(res, columns='task factor regret'.split()).set_index('task')

def faces():
    """Of each task with BatchNorm, how many decades below the training loss the validation loss turns, and
    how high it stands at the best peak against its start: with running averages, and with the mini-batch's
    own statistics"""
    best = pd.read_csv(here/'peak_grid.csv').groupby(['task','peak']).score.mean().unstack().idxmax(axis=1)
    res = []
    for (task,seed),df in pd.read_csv(here/'peak_tests.csv.gz').groupby(['task','seed']):
        df = df.reset_index(drop=True)
        if np.allclose(df.valid_loss, df.valid_loss_batch, equal_nan=True): continue
        curves = dict(training='train_loss', running='valid_loss', own='valid_loss_batch')
        curves = {k:centred(df[o], 100) for k,o in curves.items()}
        turn = {k:math.log10(df.lr[o.idxmin()]) for k,o in curves.items()}
        at = min((df.lr-best[task]).abs().idxmin(), len(df)-1)
        row = {f'{k}, decades below':turn['training']-turn[k] for k in ('running','own')}
        res.append(dict(task=task) | row | {f'{k}, at the best peak':curves[k][at]/curves[k][:10].median()
                                            for k in ('running','own')})
    return pd.DataFrame(res).groupby('task').median()

def judge():
    df = regrets()
    tasks = df.groupby(['rule','task']).regret.mean().unstack()
    table = pd.DataFrame({'median':tasks.median(axis=1), 'worst':tasks.max(axis=1),
                          'worst run':df.groupby('rule').regret.max(),
                          'runs without':df.groupby('rule').regret.apply(lambda o: o.isna().sum())}
                         ).sort_values('median').round(2)
    out = left_out()
    table['more than peak'] = tasks.gt(out.regret).sum(axis=1)
    table.to_csv(here/'peak_regret.csv')
    print(table.to_markdown() if importlib.util.find_spec('tabulate') else table.to_string())
    print(tasks.loc['peak, training'].round(2).to_string())
    faces().to_csv(here/'peak_faces.csv', float_format='%.3g')
    out.to_csv(here/'peak_left_out.csv', float_format='%.3f')
    print(f"with the factor chosen on the other tasks: median {out.regret.median():.2f}, "
          f"worst {out.regret.max():.2f}")
    print(out.round(2).to_string())

@call_parse
def main(
    what:str, # grid, tests, trials or judge
):
    warnings.simplefilter('ignore')
    dict(grid=run_grid, tests=run_tests, trials=run_trials, judge=judge)[what]()

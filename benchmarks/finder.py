"""Cost of the range test: `python benchmarks/finder.py`, alone on the machine. ResNet-20, batch 128; medians over rounds, in one process.

1. A step of `lr_find_val`, against a training step of stock `lr_find` plus one forward pass of a validation batch.
2. Snapshot and restore of `no_trace`, against one training step.
3. Beside them, torch-lr-finder with a `val_loader`: a step with one whole validation pass, on a validation set of 10 batches.
"""
from fastai.vision.all import *
from fastai_clrbeta.all import *
from fastcore.script import call_parse
from contextlib import redirect_stderr, redirect_stdout
from torch_lr_finder import LRFinder as TorchLRFinder
from training import tell

bs,n_valid = 128,10

def loaders():
    "Random images of CIFAR's shape: only time is measured"
    x,y = torch.randn(16*bs,3,32,32),torch.randint(10,(16*bs,))
    ds = torch.utils.data.TensorDataset(x, y)
    dl = lambda n,**kw: torch.utils.data.DataLoader(torch.utils.data.Subset(ds, range(n*bs)), bs, **kw)
    return dl(16, shuffle=True),dl(n_valid)

def learner():
    return Learner(DataLoaders(*loaders()), cifar_resnet(20), loss_func=CrossEntropyLossFlat(), opt_func=sgd, metrics=accuracy,
                   cbs=[ChannelsLast(), Tick()])

ticks = []
class Tick(Callback):
    "When each training batch, and what a search does after it, was over"
    order = 99
    def before_batch(self):
        if self.training: ticks.append(time.perf_counter())

def a_step(f):
    "Median time from one training batch to the next"
    ticks.clear(); f()
    return np.median(np.diff(ticks)[3:])

@call_parse
def main(
    rounds:int=5, # Rounds; the median counts
    steps:int=30, # Steps a round
):
    learn,stock = learner(),learner()
    x,y = first(learn.dls.valid)
    kw = dict(start_lr=1e-5, end_lr=1e-3, num_it=steps, stop_div=False, show_plot=False)

    def forward():
        m = stock.model.eval().to(memory_format=torch.channels_last)
        t0 = time.perf_counter()
        with torch.no_grad():
            for _ in range(10): F.cross_entropy(m(x), y)
        return (time.perf_counter()-t0)/10

    def no_trace():
        t0 = time.perf_counter()
        with learn.no_trace(): pass
        return time.perf_counter()-t0

    def other(n=6):
        m = stock.model.to(memory_format=torch.channels_last)
        f = TorchLRFinder(m, torch.optim.SGD(m.parameters(), 1e-5, 0.9), nn.CrossEntropyLoss())
        t0 = time.perf_counter()
        f.range_test(stock.dls.train, val_loader=stock.dls.valid, end_lr=1e-3, num_iter=n, diverge_th=1e9)
        return (time.perf_counter()-t0)/n

    def quiet(f):
        with learn.no_bar(), stock.no_bar(), tempfile.TemporaryDirectory() as d, redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            stock.path = Path(d)
            return f()

    runs = dict(ours  = lambda: a_step(lambda: learn.lr_find_val(**kw)),
                stock = lambda: a_step(lambda: stock.lr_find(suggest_funcs=None, **kw)),
                forward=forward, no_trace=no_trace, other=other)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-5)  # an optimiser with state, to be kept
    times = {k:[] for k in runs}
    for _ in range(rounds):
        for k,f in runs.items(): times[k].append(quiet(f))
    t = {k:np.array(v) for k,v in times.items()}
    print(f"ResNet-20, batch {bs}, {torch.get_num_threads()} threads, torch {torch.__version__}, {rounds} rounds of {steps} steps")
    tell('step of lr_find_val / (step of lr_find + a forward pass)', t['ours']/(t['stock']+t['forward']), 'at most 1.10')
    tell('snapshot and restore / training step', t['no_trace']/t['stock'], 'at most 0.10')
    tell(f'step of torch-lr-finder, {n_valid} validation batches / step of lr_find_val', t['other']/t['ours'])

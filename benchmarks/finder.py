"""Cost of the range test: `python benchmarks/finder.py`, alone on the machine.

1. A step of `lr_find_val`, against a training step of stock `lr_find` plus one forward pass of a validation
   batch.
2. Snapshot and restore of `no_trace`, against one training step.
3. Beside them, torch-lr-finder with a `val_loader`: a step with one whole validation pass, on a validation
   set of 10 batches.

ResNet-20, batches of 128. Figures are medians over rounds, in one process.
"""
from fastai.vision.all import *
from fastai_clrbeta.all import *
from fastcore.script import call_parse
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from torch_lr_finder import LRFinder as TorchLRFinder
from training import tell

bs,n_train,n_valid = 128,16,10 # Batch size, and batches in the training and in the validation set

def loaders():
    "Return loaders of random images of CIFAR's shape, since only time is measured."
    images,targets = torch.randn(n_train*bs, 3, 32, 32),torch.randint(10, (n_train*bs,))
    train = torch.utils.data.TensorDataset(images, targets)
    valid = torch.utils.data.Subset(train, range(n_valid*bs))
    return torch.utils.data.DataLoader(train, bs, shuffle=True),torch.utils.data.DataLoader(valid, bs)

ticks = [] # Not an attribute of the callback, since a range test gives callbacks their old attributes back

class Tick(Callback):
    "Record when each training batch begins: all that a search does after the batch before has ended"
    order = 99
    def before_batch(self):
        if self.training: ticks.append(time.perf_counter())

def learner():
    return Learner(DataLoaders(*loaders()), cifar_resnet(20), loss_func=CrossEntropyLossFlat(), opt_func=sgd,
                   metrics=accuracy, cbs=[ChannelsLast(), Tick()])

def seconds_of(func):
    start = time.perf_counter()
    func()
    return time.perf_counter()-start

# Each of these returns the seconds of one step, or of whatever its name says

def step(search):
    "Time the median step of `search`, from one training batch to the next, after the first three."
    ticks.clear()
    search()
    return np.median(np.diff(ticks)[3:])

def forward(learn, n=10):
    "Time a forward pass of a validation batch, with its loss."
    images,targets = first(learn.dls.valid)
    model = learn.model.eval().to(memory_format=torch.channels_last)
    def passes():
        with torch.no_grad():
            for _ in range(n): F.cross_entropy(model(images), targets)
    return seconds_of(passes)/n

def no_trace(learn):
    def enter_and_leave():
        with learn.no_trace(): pass
    return seconds_of(enter_and_leave)

def torch_lr_finder(learn, n=6):
    "Time a step of torch-lr-finder."
    model = learn.model.to(memory_format=torch.channels_last)
    finder = TorchLRFinder(model, torch.optim.SGD(model.parameters(), 1e-5, 0.9), nn.CrossEntropyLoss())
    test = partial(finder.range_test, learn.dls.train, val_loader=learn.dls.valid, end_lr=1e-3, num_iter=n,
                   diverge_th=1e9)
    return seconds_of(test)/n

@contextmanager
def quiet(learn, stock):
    "Print nothing and draw no bar. Stock `lr_find` writes its file into a temporary folder."
    with tempfile.TemporaryDirectory() as folder, learn.no_bar(), stock.no_bar():
        stock.path = Path(folder)
        with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()): yield

def contestants(learn, stock, steps):
    "Return what is timed, by name."
    test = dict(start_lr=1e-5, end_lr=1e-3, num_it=steps, stop_div=False, show_plot=False)
    ours = partial(learn.lr_find_val, **test)
    theirs = partial(stock.lr_find, suggest_funcs=None, **test)
    return dict(ours=partial(step, ours), stock=partial(step, theirs), forward=partial(forward, stock),
                no_trace=partial(no_trace, learn), torch_lr_finder=partial(torch_lr_finder, stock))

@call_parse
def main(
    rounds:int=5, # Rounds; the median counts
    steps:int=30, # Steps a round, 10 or more
):
    "Print the ratios of times, and their quartiles over rounds."
    learn,stock = learner(),learner()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-5)  # now the optimiser has a state to be kept
    timers = contestants(learn, stock, steps)
    times = {name:[] for name in timers}
    for _ in range(rounds):
        for name,timer in timers.items():
            with quiet(learn, stock): times[name].append(timer())
    times = {name:np.array(seconds) for name,seconds in times.items()}

    print(f'ResNet-20, batch {bs}, {torch.get_num_threads()} threads, torch {torch.__version__}, '
          f'{rounds} rounds of {steps} steps')
    wanted = times['stock']+times['forward']
    tell('step of lr_find_val / (step of lr_find + a forward pass)', times['ours']/wanted, 'at most 1.10')
    tell('snapshot and restore / training step', times['no_trace']/times['stock'], 'at most 0.10')
    tell(f'step of torch-lr-finder, {n_valid} validation batches / step of lr_find_val',
         times['torch_lr_finder']/times['ours'])

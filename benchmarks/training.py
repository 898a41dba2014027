"""Speed of training: `python benchmarks/training.py [--data FOLDER]`, alone on the machine.

Each contestant trains in turn, round after round, in one process; figures are medians over rounds.
1. ResNet-20, batch 128, CIFAR-10: images/s through this package, through stock fastai, and in a plain PyTorch loop.
2. A tiny model: time a step of `fit_clr_beta` and of `fit_one_cycle`.
"""
from fastai.vision.all import *
from fastai_clrbeta.all import *
from fastcore.script import call_parse

class Clock(Callback):
    "Stop after `n` batches; `self.t` is the time a batch after the first `warm`"
    order = 99
    def __init__(self, n, warm): store_attr()
    def before_fit(self): self.k = 0
    def after_batch(self):
        self.k += 1
        if self.k == self.warm: self.t0 = time.perf_counter()
        if self.k == self.n:
            self.t = (time.perf_counter()-self.t0)/(self.n-self.warm)
            raise CancelFitException()

def timed(fit, learn, n, warm):
    clock = Clock(n, warm)
    with learn.no_bar(), learn.no_logging(): fit(learn, clock)
    return clock.t

def stock(path, bs):
    dls = ImageDataLoaders.from_folder(path, train='train', valid='test', bs=bs, batch_tfms=Normalize.from_stats(*cifar_stats))
    learn = Learner(dls, cifar_resnet(20), metrics=accuracy)
    return partial(timed, lambda learn,cb: learn.fit_one_cycle(1, 0.01, cbs=cb), learn)

def ours(dls):
    learn = Learner(dls, cifar_resnet(20), opt_func=sgd, metrics=accuracy, cbs=ChannelsLast())
    return partial(timed, lambda learn,cb: learn.fit_clr_beta(0.1, wds=1e-4, cbs=cb), learn)

def plain(dls, bs):
    x,y = dls.train.mem
    mean,std = (tensor(o).view(1,3,1,1) for o in cifar_stats)
    model = cifar_resnet(20).to(memory_format=torch.channels_last).train()
    opt = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=1e-4)
    def run(n, warm):
        for k,idx in enumerate(torch.randperm(len(y)).split(bs)):
            if k == warm: t0 = time.perf_counter()
            if k == n: return (time.perf_counter()-t0)/(n-warm)
            loss = F.cross_entropy(model((x[idx].float()/255-mean)/std), y[idx])
            loss.backward(); opt.step(); opt.zero_grad()
    return run

def tiny(fit):
    ds = torch.utils.data.TensorDataset(torch.randn(8000,4), torch.randn(8000,1))
    dls = DataLoaders(*(DataLoader(ds, bs=8, device='cpu') for _ in range(2)), device='cpu')
    return partial(timed, fit, Learner(dls, nn.Linear(4,1), loss_func=MSELossFlat(), opt_func=sgd))

def compare(runs, rounds, *args):
    times = {k:[] for k in runs}
    for _ in range(rounds):
        for k,f in runs.items(): times[k].append(f(*args))
    return {k:np.median(v) for k,v in times.items()}

@call_parse
def main(
    data:str=None,  # Folder of CIFAR-10. Default: fastai's own
    rounds:int=7,   # Rounds; the median counts
    batches:int=30, # Batches a round
):
    path = Path(data) if data else untar_data(URLs.CIFAR)
    bs,dls = 128,cifar10_dls(path, bs=128)
    t = compare(dict(ours=ours(dls), stock=stock(path, bs), plain=plain(dls, bs)), rounds, batches+5, 5)
    print(f"ResNet-20, batch {bs}, CIFAR-10, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"  ours / stock fastai : {t['stock']/t['ours']:.2f} × the images/s   (wanted: 1.6)")
    print(f"  ours / plain PyTorch: {t['plain']/t['ours']:.2f} × the images/s   (wanted: 0.95)")
    print(f"  ({', '.join(f'{k} {bs/v:.0f} images/s' for k,v in t.items())})")
    t = compare(dict(ours     =tiny(lambda learn,cb: learn.fit_clr_beta (   0.01, cbs=cb)),
                     one_cycle=tiny(lambda learn,cb: learn.fit_one_cycle(1, 0.01, cbs=cb))), 5*rounds, 300, 50)
    print(f"A step of a tiny model\n  fit_clr_beta / fit_one_cycle: {t['ours']/t['one_cycle']:.2f} × the time   (wanted: at most 1)")

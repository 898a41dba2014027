"""Speed of training: `python benchmarks/training.py [--data FOLDER]`, alone on the machine.

Each contestant trains in turn, round after round, in one process. Rounds are short and ratios are taken within each, since
a machine's speed drifts; figures are medians over rounds, of ratios with their quartiles.
1. ResNet-20, batch 128, CIFAR-10, in fp32 and bf16: images/s through this package, through stock fastai, and in a plain
   PyTorch loop; and what lies between them, a step at a time: SGD in place of Adam, images from memory, channels last,
   precision, and, with `--compile`, torch.compile.
2. A tiny model: time a step of `fit_clr_beta` and of `fit_one_cycle`.

Accuracy in both precisions, CIFAR-10, ResNet-20, 8 epochs at learning rate 0.4, batch 128, seed 0:

    for p in fp32 bf16; do clrbeta --data cifar10 --lr 0.4 --cycle_len 8 --bs 128 --seed 0 --precision $p --out accuracy_$p; done
"""
from fastai.vision.all import *
from fastai_clrbeta.all import *
from fastai_clrbeta.cli import versions
from fastai_clrbeta.precision import native_bf16
from fastcore.script import call_parse

class Clock(Callback):
    "Stop after `n` batches; `self.t` is the time a batch after the first `warm`"
    order = 99
    def __init__(self, n, warm, device): store_attr()
    def before_fit(self): self.k = 0
    def after_batch(self):
        self.k += 1
        if self.k == self.warm: self.t0 = now(self.device)
        if self.k == self.n:
            self.t = (now(self.device)-self.t0)/(self.n-self.warm)
            raise CancelFitException()

def now(device):
    "The time when `device` is done with all that it was given"
    if device.type in ('cuda','mps'): getattr(torch, device.type).synchronize()
    return time.perf_counter()

def timed(fit, learn, n, warm):
    clock = Clock(n, warm, torch.device(learn.dls.device))
    with learn.no_bar(), learn.no_logging(): fit(learn, clock)
    return clock.t

def one_cycle(learn, cb): learn.fit_one_cycle(1, 0.01, cbs=cb)
def clr_beta(learn, cb): learn.fit_clr_beta(0.1, wds=1e-4, cbs=cb)

def network(compiled):
    model = cifar_resnet(20)
    if compiled: model.compile()
    return model

def files(path, bs, device):
    "The images as stock fastai has them: each is decoded when its turn comes"
    return ImageDataLoaders.from_folder(path, train='train', valid='test', bs=bs, device=device,
                                        batch_tfms=Normalize.from_stats(*cifar_stats))

def fastai(dls, precision='fp32', fit=one_cycle, compiled=False, **kwargs):
    learn = Learner(dls, network(compiled), metrics=accuracy, **kwargs)
    if precision == 'stock bf16': learn.to_bf16()
    elif precision != 'fp32': learn.to_precision(precision)
    return partial(timed, fit, learn)

def ours(dls, precision, compiled=False): return fastai(dls, precision, clr_beta, compiled, opt_func=sgd, cbs=ChannelsLast())

def plain(dls, bs, precision, compiled=False):
    x,y = dls.train.mem
    device = y.device
    mean,std = (tensor(o).view(1,3,1,1).to(device) for o in cifar_stats)
    model = network(compiled).to(device, memory_format=torch.channels_last).train()
    opt = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=1e-4)
    half = partial(torch.autocast, device.type, torch.bfloat16, enabled=precision == 'bf16')
    def run(n, warm):
        for k,idx in enumerate(torch.randperm(len(y)).to(device).split(bs)):
            if k == warm: t0 = now(device)
            if k == n: return (now(device)-t0)/(n-warm)
            with half(): loss = F.cross_entropy(model((x[idx].float()/255-mean)/std), y[idx])
            loss.backward(); opt.step(); opt.zero_grad()
    return run

def tiny(fit):
    ds = torch.utils.data.TensorDataset(torch.randn(8000,4), torch.randn(8000,1))
    dls = DataLoaders(*(DataLoader(ds, bs=8, device='cpu') for _ in range(2)), device='cpu')
    return partial(timed, fit, Learner(dls, nn.Linear(4,1), loss_func=MSELossFlat(), opt_func=sgd))

def compare(runs, rounds, *args):
    "The times of each of `runs`, an array with one a round; nobody goes first in every round"
    times,order = {k:[] for k in runs},list(runs)
    for i in range(rounds):
        for k in order[i%len(order):] + order[:i%len(order)]: times[k].append(runs[k](*args))
    return {k:np.array(v) for k,v in times.items()}

def contestants(path, bs, device, compiled):
    stock,dls = files(path, bs, device),cifar10_dls(path, bs=bs, device=device)
    runs = {'stock fastai, fp32':fastai(stock), 'stock fastai, to_bf16':fastai(stock, 'stock bf16'),
            '+ SGD, fp32':fastai(stock, opt_func=sgd), '+ images in memory, fp32':fastai(dls, opt_func=sgd)}
    for p in ('fp32','bf16'): runs |= {f'ours, {p}':ours(dls, p), f'plain PyTorch, {p}':plain(dls, bs, p)}
    if compiled:
        for p in ('fp32','bf16'):
            runs |= {f'ours, {p}, compiled':ours(dls, p, True), f'plain PyTorch, {p}, compiled':plain(dls, bs, p, True)}
    return runs

def tell(what, ratios, wanted=None, fmt='.3g', unit=''):
    "Print the median of `ratios`, one a round, and the quartiles"
    lo,mid,hi = (f'{o:{fmt}}' for o in np.quantile(ratios, (0.25,0.5,0.75)))
    want = f', wanted: {wanted}' if wanted else ''
    print(f'  {what}: {mid}{unit}   (quartiles {lo} to {hi}{want})')

def report(t, compiled):
    "Ratios of images/s: ours to the others, then what they are made of"
    def ratio(what, a, b, wanted=None): tell(f'{what:44}', t[b]/t[a], wanted, '.2f', ' × the images/s')
    ratio('ours / stock fastai', 'ours, fp32', 'stock fastai, fp32')
    ratio('ours / plain PyTorch', 'ours, fp32', 'plain PyTorch, fp32', 0.97)
    ratio('ours in bf16 / plain PyTorch in fp32', 'ours, bf16', 'plain PyTorch, fp32', '1.4 with bf16 in hardware')
    ratio('ours in bf16 / plain PyTorch in bf16', 'ours, bf16', 'plain PyTorch, bf16', '0.92 with bf16 in hardware')
    ratio('ours in bf16 / stock fastai', 'ours, bf16', 'stock fastai, fp32', '2.8 with bf16 in hardware')
    ratio("stock fastai's to_bf16 / its fp32", 'stock fastai, to_bf16', 'stock fastai, fp32')
    print('Made of')
    ratio('SGD in place of Adam', '+ SGD, fp32', 'stock fastai, fp32')
    ratio('images decoded once, and kept in memory', '+ images in memory, fp32', '+ SGD, fp32')
    ratio('channels last, and this schedule', 'ours, fp32', '+ images in memory, fp32')
    ratio('bf16', 'ours, bf16', 'ours, fp32')
    for p in ('fp32','bf16') if compiled else (): ratio(f'torch.compile, {p}', f'ours, {p}, compiled', f'ours, {p}')

@call_parse
def main(
    data:str=None,   # Folder of CIFAR-10. Default: fastai's own
    rounds:int=15,   # Rounds; the median counts
    batches:int=10,  # Batches a round, after five that don't count
    device:str=None, # cpu, cuda, mps. Default: fastai's
    compile:bool=False, # Also with torch.compile
):
    path,bs = Path(data) if data else untar_data(URLs.CIFAR),128
    device = torch.device(device or default_device())
    os.environ['TORCHINDUCTOR_CACHE_DIR'] = tempfile.mkdtemp()  # nothing is compiled yet
    runs = contestants(path, bs, device, compile)
    print(f"ResNet-20, batch {bs}, CIFAR-10, {device}, {torch.get_num_threads()} threads, {rounds} rounds of {batches} batches")
    print('  ' + ', '.join(f'{k} {v}' for k,v in versions().items()))
    native,why = native_bf16(device.type)
    print(f"  bf16 is {'' if native else 'not '}in the hardware: {why}")
    for k in runs:
        if 'compiled' not in k: continue
        t0 = time.perf_counter()
        runs[k](2, 1)  # compiles, and does not count
        print(f'  first two batches of {k}: {time.perf_counter()-t0:.0f} s')
    t = compare(runs, rounds, batches+5, 5)
    speed = {k:bs/np.median(v) for k,v in t.items()}
    for k,v in speed.items(): print(f'  {k:33} {v:8.0f} images/s')
    short = dict(ours='ours, fp32', stock='stock fastai, fp32', plain='plain PyTorch, fp32')
    print('  (' + ', '.join(f'{k} {speed[v]:.0f} images/s' for k,v in short.items()) + ')')
    report(t, compile)
    t = compare(dict(ours     =tiny(lambda learn,cb: learn.fit_clr_beta (   0.01, cbs=cb)),
                     one_cycle=tiny(lambda learn,cb: learn.fit_one_cycle(1, 0.01, cbs=cb))), rounds, 300, 50)
    print('A step of a tiny model')
    tell('fit_clr_beta / fit_one_cycle', t['ours']/t['one_cycle'], 'at most 1', '.2f', ' × the time')

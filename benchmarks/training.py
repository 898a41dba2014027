"""Speed of training: `python benchmarks/training.py [--data FOLDER]`, alone on the machine.

Each contestant trains in turn, round after round, in one process. Rounds are short and ratios are taken
within each, since a machine's speed drifts; figures are medians over rounds, of ratios with their quartiles.

1. ResNet-20, batch 128, CIFAR-10, in fp32 and bf16: images/s through this package, through stock fastai, and
   in a plain PyTorch loop; and what lies between them, a step at a time: SGD in place of Adam, images from
   memory, channels last, precision, and, with `--compile`, torch.compile.
2. A tiny model: time a step of `fit_clr_beta` and of `fit_one_cycle`.

Accuracy in both precisions, CIFAR-10, ResNet-20, 8 epochs at learning rate 0.4, batch 128, seed 0:

    for p in fp32 bf16; do
        clrbeta --data cifar10 --lr 0.4 --cycle-len 8 --bs 128 --seed 0 --precision $p --out accuracy_$p
    done
"""
from fastai.vision.all import *
from fastai_clrbeta.all import *
from fastai_clrbeta.cli import versions
from fastai_clrbeta.precision import native_bf16
from fastcore.script import call_parse

# Time

def now(device):
    "Return the time when `device` has finished all that it was given."
    if device.type in ('cuda','mps'): getattr(torch, device.type).synchronize()
    return time.perf_counter()

class Clock(Callback):
    "Stop after `n` batches; `seconds` is the time a batch after the first `warm_up`"
    order = 99
    def __init__(self, n, warm_up, device): store_attr()
    def before_fit(self): self.n_done = 0
    def after_batch(self):
        self.n_done += 1
        if self.n_done == self.warm_up: self.start = now(self.device)
        if self.n_done == self.n:
            self.seconds = (now(self.device)-self.start)/(self.n-self.warm_up)
            raise CancelFitException()

def seconds_a_batch(fit, learn, n, warm_up):
    "Train `learn` for `n` batches, and return the seconds a batch after the first `warm_up`."
    clock = Clock(n, warm_up, torch.device(learn.dls.device))
    with learn.no_bar(), learn.no_logging(): fit(learn, clock)
    return clock.seconds

# Contestants: functions of the number of batches and of those that don't count, which return seconds a batch

def one_cycle(learn, clock): learn.fit_one_cycle(1, 0.01, cbs=clock)

def clr_beta(learn, clock): learn.fit_clr_beta(0.1, wds=1e-4, cbs=clock)

def network(compiled):
    model = cifar_resnet(20)
    if compiled: model.compile()
    return model

def files(path, bs, device):
    "Return the images as stock fastai has them: each is decoded when its turn comes."
    return ImageDataLoaders.from_folder(path, train='train', valid='test', bs=bs, device=device,
                                        batch_tfms=Normalize.from_stats(*cifar_stats))

def fastai(dls, precision='fp32', fit=one_cycle, compiled=False, **kwargs):
    learn = Learner(dls, network(compiled), metrics=accuracy, **kwargs)
    if precision == 'stock bf16': learn.to_bf16()
    elif precision != 'fp32':     learn.to_precision(precision)
    return partial(seconds_a_batch, fit, learn)

def ours(dls, precision, compiled=False):
    return fastai(dls, precision, clr_beta, compiled, opt_func=sgd, cbs=ChannelsLast())

def plain(dls, bs, precision, compiled=False):
    "Return a loop as one writes it in PyTorch, on images that are in memory."
    images,targets = dls.train.mem
    device = targets.device
    mean,std = (tensor(stat).view(1,3,1,1).to(device) for stat in cifar_stats)
    model = network(compiled).to(device, memory_format=torch.channels_last).train()
    opt = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=1e-4)
    autocast = partial(torch.autocast, device.type, torch.bfloat16, enabled=precision == 'bf16')

    def train(n, warm_up):
        for i,rows in enumerate(torch.randperm(len(targets)).to(device).split(bs)):
            if i == warm_up: start = now(device)
            if i == n: return (now(device)-start)/(n-warm_up)
            with autocast(): loss = F.cross_entropy(model((images[rows].float()/255-mean)/std), targets[rows])
            loss.backward()
            opt.step()
            opt.zero_grad()
    return train

def tiny(fit):
    "Return the fit of a model so small that what counts is the work around it."
    rows = torch.utils.data.TensorDataset(torch.randn(8000,4), torch.randn(8000,1))
    dls = DataLoaders(*(DataLoader(rows, bs=8, device='cpu') for _ in range(2)), device='cpu')
    return partial(seconds_a_batch, fit, Learner(dls, nn.Linear(4,1), loss_func=MSELossFlat(), opt_func=sgd))

def contestants(path, bs, device, compiled):
    "Return all contestants of the first benchmark, by name."
    stock,dls = files(path, bs, device),cifar10_dls(path, bs=bs, device=device)
    runs = {'stock fastai, fp32':    fastai(stock),
            'stock fastai, to_bf16': fastai(stock, 'stock bf16'),
            '+ SGD, fp32':           fastai(stock, opt_func=sgd),
            '+ images in memory, fp32':fastai(dls, opt_func=sgd)}
    for precision in ('fp32','bf16'):
        runs[f'ours, {precision}'] = ours(dls, precision)
        runs[f'plain PyTorch, {precision}'] = plain(dls, bs, precision)
    for precision in ('fp32','bf16') if compiled else ():
        runs[f'ours, {precision}, compiled'] = ours(dls, precision, True)
        runs[f'plain PyTorch, {precision}, compiled'] = plain(dls, bs, precision, True)
    return runs

def compare(runs, rounds, *args):
    "Return the times of each of `runs`, an array with one a round; nobody goes first in every round."
    times,names = {name:[] for name in runs},list(runs)
    for i in range(rounds):
        start = i%len(names)
        for name in names[start:] + names[:start]: times[name].append(runs[name](*args))
    return {name:np.array(seconds) for name,seconds in times.items()}

# Report

def tell(what, ratios, wanted=None, fmt='.3g', unit=''):
    "Print the median of `ratios`, one a round, and the quartiles."
    low,median,high = (f'{ratio:{fmt}}' for ratio in np.quantile(ratios, (0.25,0.5,0.75)))
    want = f', wanted: {wanted}' if wanted else ''
    print(f'  {what}: {median}{unit}   (quartiles {low} to {high}{want})')

def tell_speed(times, what, run, base, wanted=None):
    "Print how many times the images/s of `base` the contestant `run` has."
    tell(f'{what:44}', times[base]/times[run], wanted, '.2f', ' × the images/s')

def report(times, compiled):
    "Print ratios of images/s: ours to the others, then what they are made of."
    ratio = partial(tell_speed, times)
    ratio('ours / stock fastai', 'ours, fp32', 'stock fastai, fp32')
    ratio('ours / plain PyTorch', 'ours, fp32', 'plain PyTorch, fp32', 0.97)
    hardware = 'with bf16 in hardware'
    ratio('ours in bf16 / plain PyTorch in fp32', 'ours, bf16', 'plain PyTorch, fp32', f'1.4 {hardware}')
    ratio('ours in bf16 / plain PyTorch in bf16', 'ours, bf16', 'plain PyTorch, bf16', f'0.92 {hardware}')
    ratio('ours in bf16 / stock fastai', 'ours, bf16', 'stock fastai, fp32', f'2.8 {hardware}')
    ratio("stock fastai's to_bf16 / its fp32", 'stock fastai, to_bf16', 'stock fastai, fp32')
    print('Made of')
    ratio('SGD in place of Adam', '+ SGD, fp32', 'stock fastai, fp32')
    ratio('images decoded once, and kept in memory', '+ images in memory, fp32', '+ SGD, fp32')
    ratio('channels last, and this schedule', 'ours, fp32', '+ images in memory, fp32')
    ratio('bf16', 'ours, bf16', 'ours, fp32')
    for precision in ('fp32','bf16') if compiled else ():
        ratio(f'torch.compile, {precision}', f'ours, {precision}, compiled', f'ours, {precision}')

def report_speeds(times, bs):
    "Print the images/s of each contestant."
    speed = {name:bs/np.median(seconds) for name,seconds in times.items()}
    for name,images in speed.items(): print(f'  {name:33} {images:8.0f} images/s')
    short = dict(ours='ours, fp32', stock='stock fastai, fp32', plain='plain PyTorch, fp32')
    print('  (' + ', '.join(f'{key} {speed[name]:.0f} images/s' for key,name in short.items()) + ')')

def compile_all(runs):
    "Train each compiled contestant for two batches, which compiles it, and print how long that takes."
    for name,run in runs.items():
        if 'compiled' not in name: continue
        start = time.perf_counter()
        run(2, 1)
        print(f'  first two batches of {name}: {time.perf_counter()-start:.0f} s')

@call_parse
def main(
    data:str=None,      # Folder of CIFAR-10. None: fastai's own
    rounds:int=15,      # Rounds; the median counts
    batches:int=10,     # Batches a round, after five that don't count
    device:str=None,    # cpu, cuda, mps. None: fastai's default
    compile:bool=False, # Also with torch.compile
):
    "Print the speed of training through this package and others."
    path,bs = Path(data) if data else untar_data(URLs.CIFAR),128
    device = torch.device(device or default_device())
    os.environ['TORCHINDUCTOR_CACHE_DIR'] = tempfile.mkdtemp()  # nothing is compiled yet
    runs = contestants(path, bs, device, compile)

    print(f'ResNet-20, batch {bs}, CIFAR-10, {device}, {torch.get_num_threads()} threads, '
          f'{rounds} rounds of {batches} batches')
    print('  ' + ', '.join(f'{package} {version}' for package,version in versions().items()))
    native,why = native_bf16(device.type)
    print(f"  bf16 is {'' if native else 'not '}in the hardware: {why}")
    compile_all(runs)
    times = compare(runs, rounds, batches+5, 5)
    report_speeds(times, bs)
    report(times, compile)

    fits = dict(ours=lambda learn, clock: learn.fit_clr_beta(0.01, cbs=clock), one_cycle=one_cycle)
    times = compare({name:tiny(fit) for name,fit in fits.items()}, rounds, 300, 50)
    print('A step of a tiny model')
    tell('fit_clr_beta / fit_one_cycle', times['ours']/times['one_cycle'], 'at most 1', '.2f', ' × the time')

"""Runs of many kinds that are killed or interrupted again and again: `python kills.py folder case …`.
Everything is imported once, and each run is a fork of that.
What came of them is in `results.json` in the folder."""
import functools
from faults import *
from fastai.collab import *
from fastai.tabular.all import *
from fastai.text.all import *
from fastai.vision.models.unet import DynamicUnet
from torch.amp import GradScaler
from torch.utils.data import DataLoader as TorchDataLoader

defaults.cpus = 0  # texts are split into words in the process itself

# Learners, with six batches in an epoch or a few more
def images(folder, cbs=None, cls=DataLoader, workers=0):
    "Items that are different at each look, also by random numbers that the data set holds itself"
    kw = dict(batch_size=16, num_workers=workers)
    dls = DataLoaders(cls(OwnNoise(), shuffle=True, **kw), cls(OwnNoise(), **kw))
    cbs = [SaveModelCallback(fname='best_loss'), EarlyStoppingCallback(patience=10), *L(cbs)]
    return Learner(dls, Net(), loss_func=CrossEntropyLossFlat(), opt_func=sgd, metrics=accuracy,
                   path=folder, cbs=cbs)

def half(folder, cbs, change):
    learn = images(folder, cbs)
    getattr(learn, change[0])(*change[1:])
    return learn

def three_groups(folder, cbs):
    "The first of the groups is frozen"
    learn = images(folder, cbs)
    learn.opt_func,learn.splitter = Adam,lambda m: [params(m.conv), params(m.bn), params(m.head)]
    learn.freeze_to(1)
    return learn

def rows(n=120):
    rng = np.random.default_rng(0)
    return pd.DataFrame(dict(
        a=rng.normal(size=n), b=rng.choice([*'uvw'], n), y=rng.choice(['no','yes'], n),
        user=rng.integers(0, 9, n), item=rng.integers(0, 7, n), rating=rng.uniform(1, 5, n)))

def tabular(folder, cbs):
    procs = [Categorify,FillMissing,Normalize]
    dls = TabularDataLoaders.from_df(rows(), cat_names=['b'], cont_names=['a'], procs=procs, y_names='y',
                                     y_block=CategoryBlock(), valid_idx=range(24), bs=16)
    config = tabular_config(ps=0.2, embed_p=0.1)
    metrics = [accuracy,F1Score()]
    return tabular_learner(dls, layers=[16,8], config=config, metrics=metrics, path=folder, cbs=cbs)

def collab(folder, cbs):
    dls = CollabDataLoaders.from_df(rows()[['user','item','rating']], valid_pct=0.2, seed=0, bs=16)
    return collab_learner(dls, n_factors=5, y_range=(0.5,5.5), path=folder, cbs=cbs)

def language_model(folder, cbs):
    words = np.random.default_rng(0).choice([*'abcdefgh'], (24,12))
    texts = pd.DataFrame(dict(text=[*map(' '.join, words)]))
    dls = TextDataLoaders.from_df(texts, text_col='text', is_lm=True, bs=4, seq_len=8, seed=0,
                                  tok_tfm=BaseTokenizer())
    config = {**awd_lstm_lm_config, 'emb_sz':8, 'n_hid':8}
    return language_model_learner(dls, AWD_LSTM, pretrained=False, config=config, metrics=Perplexity(),
                                  path=folder, cbs=cbs)

def unet(folder, cbs):
    images = torch.randn(96, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    items = [(TensorImage(o), TensorMask((o[0] > 0).long())) for o in images]
    dls = DataLoaders(DataLoader(items, bs=16, shuffle=True), DataLoader(items, bs=32))
    encoder = nn.Sequential(ConvLayer(3, 8, stride=2), ConvLayer(8, 8), ConvLayer(8, 16, stride=2))
    model = DynamicUnet(encoder, 2, (16,16))
    return Learner(dls, model, loss_func=CrossEntropyLossFlat(axis=1), path=folder, cbs=cbs)

class Scale(Callback):
    "A gradient scaler, which each fit makes anew: two steps overflow, and three good steps double the scale"
    order = 10
    def __init__(self): self.scales = []
    def before_fit(self): self.learn.scaler = GradScaler('cpu', init_scale=4., growth_interval=3)
    def before_backward(self): self.learn.loss_grad = self.scaler.scale(self.loss_grad)
    def after_backward(self):
        if self.train_iter in (2,7): first(self.model.parameters()).grad.fill_(math.inf)
    def before_step(self):
        self.scales.append(list(self.scaler.state_dict().values()))
        self.skip = True
        self.scaler.unscale_(self)
        self.scaler.step(self)
        self.scaler.update()
        if self.skip: raise CancelStepException
    # the scaler asks for the gradients, and steps if they are finite
    @property
    def param_groups(self): return self.opt.param_groups
    def step(self, *args, **kwargs): self.skip = False

# What ends a run
plan = SimpleNamespace(event=None, left=0, how=None)  # not in an attribute, which a checkpoint would hold
class Strike(Callback):
    "End this process at the event that the plan names, before a checkpoint is written"
    order = 900
    def strike(self, event):
        if event != plan.event or not self.training and event.endswith('batch'): return
        plan.left -= 1
        if plan.left == 0: plan.how()
for o in 'after_loss after_backward after_batch after_train before_validate'.split():
    setattr(Strike, o, functools.partialmethod(Strike.strike, o))

def sigkill(): os.kill(os.getpid(), signal.SIGKILL)
def ctrl_c(): os.killpg(0, signal.SIGINT)  # a terminal sends it to all processes
INTERRUPTED = 130

# event, how often it has to happen, and the rank of the process if only one is killed
five = [('after_batch',3,None), ('before_validate',1,0), ('after_loss',1,None), ('after_backward',3,1),
        ('after_train',1,0)]
each_step = 11*[('after_batch',2,None)]

def case(make, strikes=five, how=sigkill, n=1, lrs=0.1, **kwargs):
    return SimpleNamespace(make=make, strikes=strikes, how=how, n=n, lrs=lrs, kwargs=kwargs)

cases = {
    'fastai, no worker':      case(images),
    'fastai, two workers':    case(partial(images, workers=2)),
    'torch, no worker':       case(partial(images, cls=TorchDataLoader)),
    'torch, two workers':     case(partial(images, cls=TorchDataLoader, workers=2)),
    'at each step':           case(images, each_step),
    'tabular':                case(tabular),
    'collab':                 case(collab, lrs=0.05),
    'language model':         case(language_model, lrs=0.02),
    'U-Net':                  case(unet),
    'to_fp16':                case(partial(half, change=['to_fp16'])),
    'bf16':                   case(partial(half, change=['to_precision','bf16'])),
    'three groups':           case(three_groups, lrs=[1e-3,1e-2,3e-2]),
    'gradient scaler':        case(lambda folder, cbs: images(folder, [Scale(), *cbs])),
    'two processes':          case(images, n=2),
    'two processes, workers': case(partial(images, cls=TorchDataLoader, workers=2), five[:2], n=2),
    'Ctrl-C':                 case(images, how=ctrl_c),
    'Ctrl-C, two workers':    case(partial(images, cls=TorchDataLoader, workers=2), how=ctrl_c),
    'Ctrl-C, language model': case(language_model, how=ctrl_c, lrs=0.02),
    'Ctrl-C, two processes':  case(images, five[::2], how=ctrl_c, n=2)}

def train(c, folder, seed=0, strike=(None,0,None), **kwargs):
    "Run, or resume, the case `c` in this process, with fastai's progress bar"
    event,left,one = strike
    rank = rank_distrib()
    alone = one is None if c.how is sigkill else rank == 0
    if alone or c.n == 1 or rank == one: plan.event,plan.left,plan.how = event,left,c.how
    signal.signal(signal.SIGINT, signal.default_int_handler)
    set_seed(100*seed, reproducible=True)  # another process has other weights and random numbers
    learn = c.make(folder, [Strike()])
    set_seed(100*seed + rank)
    together = learn.distrib_ctx(sync_bn=False, cpu=True) if c.n > 1 else nullcontext()
    try:
        with warnings.catch_warnings(record=True) as told, together:
            warnings.simplefilter('always')
            learn.fit_clr_beta(c.lrs, cycle_len=2, use_clr_beta=(10,13.68,0.95,0.8), **c.kwargs, **kwargs)
    except KeyboardInterrupt:
        plan.event = None
        os._exit(INTERRUPTED)
    scales = learn.scale.scales if hasattr(learn, 'scale') else []
    told = [str(o.message) for o in told if '/fastai_clrbeta/' in o.filename]
    end = dict(outcome=[*outcome(learn), scales], told=told)
    (Path(folder)/f'outcome{rank}.json').write_text(json.dumps(end))

def go(c, folder):
    "Run the case `c` in peace and through its strikes. Return exit codes, and whether the end is the same"
    peace,struck,codes = folder/'peace',folder/'struck',[]
    def go_on(*args, **kwargs):
        for _ in range(3):
            if HUNG not in (res := forked(partial(train, c, *args, **kwargs), n=c.n, limit=150)): break
        codes.append(res)
    peace.mkdir(parents=True)
    go_on(peace)
    kept = dict(checkpoint='run', every_iter=1, resume=True)
    for i,strike in enumerate(c.strikes): go_on(struck, seed=i, strike=strike, **kept)
    go_on(struck, seed=len(c.strikes), **kept)
    a,b = ([json.loads(o) for o in read(f)] for f in (peace,struck))
    return dict(codes=codes, same=len(a) == c.n and [o['outcome'] for o in a] == [o['outcome'] for o in b],
                epochs=[len(o['outcome'][1]) for o in b], told=[o['told'] for o in b])

def main(folder, *names):
    if os.getpgrp() != os.getpid(): os.setpgrp()  # a Ctrl-C is for this group alone
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    res = {}
    for name in names:
        start = time.time()
        res[name] = go(cases[name], Path(folder)/name)
        res[name]['seconds'] = round(time.time()-start, 1)
    (Path(folder)/'results.json').write_text(json.dumps(res))

if __name__ == '__main__': main(*sys.argv[1:])

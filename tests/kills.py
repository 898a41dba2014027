"""Runs of many kinds that are killed or interrupted again and again: `python kills.py folder case …`.
Each run is a fork of one process, which has imported everything.
What came of them is in `results.json` in the folder."""
from faults import *
from fastai.collab import *
from fastai.tabular.all import *
from fastai.text.all import *
from fastai.vision.models.unet import DynamicUnet
from torch.amp import GradScaler
from torch.utils.data import DataLoader as TorchDataLoader

defaults.cpus = 0  # texts are split into words in the process itself

# Learners, with six batches in an epoch or a few more
def noisy_images(folder, cbs=(), cls=DataLoader, workers=0):
    "Items that are different at each look, also by random numbers that the data set holds itself"
    kw = dict(batch_size=16, num_workers=workers)
    def dls(): return DataLoaders(cls(OwnNoise(), shuffle=True, **kw), cls(OwnNoise(), **kw))
    return learner(folder, cbs, dls)

def bf16(folder, cbs): return noisy_images(folder, cbs).to_precision('bf16')

def three_groups(folder, cbs):
    "The first of the groups is frozen"
    learn = noisy_images(folder, cbs)
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
    pictures = torch.randn(96, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    items = [(TensorImage(o), TensorMask((o[0] > 0).long())) for o in pictures]
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
def ctrl_c(): os.killpg(0, signal.SIGINT)  # a terminal sends it to all processes
INTERRUPTED = 130

# event, how often it has to happen, and the rank of the process if only one is killed
five = [('after_batch',3,None), ('before_validate',1,0), ('after_loss',1,None), ('after_backward',3,1),
        ('after_train',1,0)]
three,two = five[::2],[five[0],five[4]]
each_step = 11*[('after_batch',2,None)]

def case(make, strikes=two, how=sigkill, n=1, lrs=0.1, **kwargs):
    return SimpleNamespace(make=make, strikes=strikes, how=how, n=n, lrs=lrs, kwargs=kwargs)

cases = {
    'fastai, no worker':      case(noisy_images, three),
    'fastai, two workers':    case(partial(noisy_images, workers=2)),
    'torch, no worker':       case(partial(noisy_images, cls=TorchDataLoader)),
    'torch, two workers':     case(partial(noisy_images, cls=TorchDataLoader, workers=2), three),
    'at each step':           case(noisy_images, each_step),
    'tabular':                case(tabular),
    'collab':                 case(collab, lrs=0.05),
    'language model':         case(language_model, lrs=0.02),
    'U-Net':                  case(unet),
    'bf16':                   case(bf16),
    'three groups':           case(three_groups, lrs=[1e-3,1e-2,3e-2]),
    'gradient scaler':        case(lambda folder, cbs: noisy_images(folder, [Scale(), *cbs])),
    'two processes':          case(noisy_images, five, n=2),
    'two processes, workers': case(partial(noisy_images, cls=TorchDataLoader, workers=2), five[:1], n=2),
    'Ctrl-C':                 case(noisy_images, how=ctrl_c),
    'Ctrl-C, two workers':    case(partial(noisy_images, cls=TorchDataLoader, workers=2), how=ctrl_c),
    'Ctrl-C, two processes':  case(noisy_images, how=ctrl_c, n=2)}

def crash(c, event, left, one):
    "A callback that ends this process at the event, before a checkpoint is written, if this rank is struck"
    struck = c.n == 1 or one in (None, rank_distrib())
    if c.how is ctrl_c: struck = rank_distrib() == 0  # it reaches the others, too
    return CrashAt(event, how=nth(left if struck else None, c.how), order=900)

def of_package(warning):
    "Does the warning come from this package?"
    return Path(warning.filename).parent.name == 'fastai_clrbeta'

def train(c, folder, seed=0, strike=('after_batch',None,None), **kwargs):
    "Run, or resume, the case `c` in this process, with fastai's progress bar"
    rank = rank_distrib()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    set_seed(100*seed, reproducible=True)  # another process has other weights and random numbers
    learn = c.make(folder, [crash(c, *strike)])
    set_seed(100*seed + rank)
    together = learn.distrib_ctx(sync_bn=False, cpu=True) if c.n > 1 else nullcontext()
    try:
        with warnings.catch_warnings(record=True) as told, together:
            warnings.simplefilter('always')
            learn.fit_clr_beta(c.lrs, cycle_len=2, use_clr_beta=(10,13.68,0.95,0.8), **c.kwargs, **kwargs)
    except KeyboardInterrupt: os._exit(INTERRUPTED)
    scales = learn.scale.scales if hasattr(learn, 'scale') else []
    end = dict(outcome=[outcome(learn), scales], epochs=len(learn.recorder.values),
               told=[str(o.message) for o in told if of_package(o)])
    (Path(folder)/f'outcome{rank}.json').write_text(json.dumps(end), encoding='utf-8')

def attempt(f, n):
    "Call `f` in `n` forks, and again if one of them was hung"
    for _ in range(3):
        codes = forked(f, n=n, limit=150)
        if HUNG not in codes: break
    return codes

def go(c, folder):
    "Run the case `c` as a whole and through its strikes. Return exit codes, and whether the end is the same"
    whole,struck = folder/'whole',folder/'struck'
    whole.mkdir(parents=True)
    kept = partial(train, c, struck, checkpoint='run', every_iter=1, resume=True)
    codes = [attempt(partial(train, c, whole), c.n)]
    for i,strike in enumerate(c.strikes): codes.append(attempt(partial(kept, seed=i, strike=strike), c.n))
    codes.append(attempt(partial(kept, seed=len(c.strikes)), c.n))
    a,b = ([json.loads(o) for o in read(f)] for f in (whole,struck))
    same = len(a) == c.n and [o['outcome'] for o in a] == [o['outcome'] for o in b]
    return dict(codes=codes, same=same, epochs=[o['epochs'] for o in b], told=[o['told'] for o in b])

def main(folder, *names):
    if os.getpgrp() != os.getpid(): os.setpgrp()  # a Ctrl-C is for this group alone
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    res = {}
    for name in names:
        start = time.time()
        res[name] = go(cases[name], Path(folder)/name)
        res[name]['seconds'] = round(time.time()-start, 1)
    (Path(folder)/'results.json').write_text(json.dumps(res), encoding='utf-8')

if __name__ == '__main__': main(*sys.argv[1:])

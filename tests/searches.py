"Small tasks for range tests, and a record of all that a range test could change"
from fastai.text.all import *
from fastai_clrbeta.all import *
from helpers import digits

TorchDL = torch.utils.data.DataLoader
nan = math.nan

# tasks

class Dropped(nn.Module):
    "Dropout, BatchNorm, a buffer that is not saved, and a counter: all that a forward pass can change"
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3,8,3,2,1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(8*16,10)
        self.register_buffer('seen', torch.zeros(1), persistent=False)
        self.calls,self.hidden = 0,[torch.zeros(2)]

    def forward(self, x):
        self.seen += 1
        self.calls += 1
        self.hidden[0] = self.hidden[0]+1
        return self.head(self.drop(self.body(x)))

class CountingLoss(nn.Module):
    "A loss with a running mean in a buffer that acts on its value"
    def __init__(self):
        super().__init__()
        self.register_buffer('mean', torch.zeros(()))

    def forward(self, p, y):
        loss = F.cross_entropy(p, y)
        self.mean.lerp_(loss.detach(), 0.1)
        return loss + 0.01*self.mean

def fastai_loaders():
    dls = digits()
    dls.train.n = 256
    return dls

def torch_loaders():
    train,valid = digits().loaders
    train = torch.utils.data.TensorDataset(train.mem[0][:256].float()/255, train.mem[1][:256])
    valid = torch.utils.data.TensorDataset(valid.mem[0][:100].float()/255, valid.mem[1][:100])
    shuffled = TorchDL(train, 32, shuffle=True, generator=torch.Generator().manual_seed(1))
    return DataLoaders(shuffled, TorchDL(valid, 64), device='cpu')

def loaders_in_order():
    dls = fastai_loaders()
    dls.train.shuffle = False
    return dls

class Shuffler(torch.utils.data.Sampler):
    "A sampler that keeps its order between epochs, and draws from a generator of numpy's"
    def __init__(self, n): self.order,self.gen = list(range(n)),np.random.default_rng(0)
    def __len__(self): return len(self.order)
    def __iter__(self):
        self.gen.shuffle(self.order)
        return iter(self.order)

class Loader:
    "Batches without a length, `n` of them or for ever"
    def __init__(self, n=None): self.n,self.batches = n,list(torch_loaders().train)[:2]
    def __iter__(self): return itertools.islice(itertools.cycle(self.batches), self.n)

def learner(dls=fastai_loaders, opt_func=sgd, loss_func=None, **kwargs):
    set_seed(7)
    kwargs = dict(metrics=accuracy) | kwargs
    loss_func = loss_func or CrossEntropyLossFlat()
    return Learner(dls(), Dropped(), loss_func=loss_func, opt_func=opt_func, **kwargs)

def groups_learner(**kwargs):
    "A Learner with two parameter groups"
    kwargs = dict(opt_func=partial(SGD, mom=0.9)) | kwargs
    return learner(splitter=lambda m: [params(m.body), params(m.head)], **kwargs)

def find(learn, start_lr=1e-3, end_lr=1., num_it=12, stop_div=False, trials=False, **kwargs):
    "Run a short range test, without trials, which would cost far more steps."
    kwargs = dict(show_plot=False, trials=trials) | kwargs
    return learn.lr_find_val(start_lr, end_lr, num_it, stop_div=stop_div, **kwargs)

def sweep(learn, **kwargs):
    kwargs = dict(num_it=12, show_plot=False, trials=False) | kwargs
    return learn.lr_find_sweep(**kwargs)

def train(learn, lrs=0.1, **kwargs):
    with learn.no_bar(), learn.no_logging(): learn.fit_clr_beta(lrs, **kwargs)

class Scripted:
    "A loss that follows a given curve, whatever the model does"
    def __init__(self, losses): self.losses = iter(losses)
    def __call__(self, pred, y): return 0*pred.sum() + next(self.losses)

# faults

class Stop(Callback):
    "Raise `exc` in the `n`-th training batch, at `event`"
    def __init__(self, event, exc, n=5):
        self.exc,self.n,self.k = exc,n,0
        setattr(self, event, self._go)

    def _go(self):
        if not self.training: return
        self.k += 1
        if self.k == self.n: raise self.exc('stop')

def boom(exc, o):
    "Raise `exc` at the ninth call for `o`."
    o.count = getattr(o, 'count', 0)+1
    if o.count == 9: raise exc('stop')

def boom_model(learn, exc): learn.model.head.register_forward_hook(lambda m,i,o: boom(exc, m))

# what a search could change

def plain(o):
    "Return `o` as plain values that can be compared."
    if isinstance(o, Tensor): return o.tolist()
    if isinstance(o, (list,tuple,L)): return [plain(x) for x in o]
    return {str(k):plain(v) for k,v in o.items()} if isinstance(o, dict) else o

def state(learn):
    "Everything about `learn` that a search could change, as plain values"
    rec,opt,model,loss_func = learn.recorder,learn.opt,learn.model,learn.loss_func
    counters = 'epoch iter n_iter train_iter pct_train smooth_loss final_record'.split()
    return dict(
        weights   = plain(dict(model.state_dict())),
        buffers   = plain(list(model.buffers())),
        hidden    = plain(model.hidden),
        calls     = model.calls,
        grads     = plain([p.grad for p in model.parameters()]),
        frozen    = [not p.requires_grad for p in model.parameters()],
        modes     = [m.training for m in model.modules()],
        training  = learn.training,
        loss      = plain(loss_func.state_dict()) if isinstance(loss_func, nn.Module) else {},
        loss_func = id(loss_func),
        opt       = opt and plain(list(opt.state_dict().values())),
        opt_id    = id(opt),
        hypers    = opt and plain(list(opt.hypers)),
        rng       = repr(get_random_states()),
        loaders   = [(id(dl), repr(generator_state(dl)), hasattr(dl, 'it')) for dl in learn.dls.loaders],
        recorder  = plain({k:v for k,v in vars(rec).items() if isinstance(v, (list,L)) and k != 'log'}),
        log       = plain(getattr(rec, 'log', None)),
        smooth    = plain(vars(rec.smooth_loss)),
        cbs       = [id(o) for o in learn.cbs],
        attrs     = sorted(vars(learn)),
        n_epoch   = learn.n_epoch,
        counters  = [plain(getattr(learn, k, None)) for k in counters])

def generator_state(dl):
    if hasattr(dl, 'rng'): return dl.rng.getstate()
    generator = getattr(dl, 'generator', None)
    return generator and plain(generator.get_state())

def diff(a, b):
    "Return what differs between two records."
    return [k for k in a if repr(a[k]) != repr(b[k])]

# curves

def curve(n=100, turn=0.3, seed=0):
    "A training loss that falls, turns near `turn`, and explodes"
    lrs = np.geomspace(1e-5, 10, n)
    noise = np.random.default_rng(seed).normal(0, 0.05, n)
    return 2.3 - 1.8/(1+(lrs/(turn/10))**-1.5) + (lrs/turn)**2*0.1 + noise

def table(losses, name='train_loss'):
    "What a run of a range test measures"
    lrs = np.geomspace(1e-5, 10, len(losses))
    return pd.DataFrame({'lr':lrs, name:losses, f'{name}_smooth':losses})

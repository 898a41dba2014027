"""The tasks on which learning rates are judged: real data, everyday and untypical, in two halves by data set.

Form and constants of a rule are chosen on the design half. The other half is for judging only.
"""
from fastai.basics import *
from fastai.collab import CollabDataLoaders, collab_learner
from fastai.data.block import CategoryBlock, RegressionBlock
from fastai.tabular.core import Categorify, FillMissing, Normalize, TabularPandas
from fastai.tabular.learner import tabular_learner
from fastai_clrbeta.all import *
from dataclasses import dataclass
import datasets

design,judging = 'design','judging'

# Loaders

def loader(x, y, bs, **kwargs):
    "Return a loader that takes whole batches from the tensors `x` and `y`."
    return DataLoader(range(len(x)), bs, create_batch=lambda i: (x[i], y[i]), **kwargs)

def loaders(data, bs, n_train=None):
    "Return the loaders of ((x, y), (x, y)), arrays; of the first `n_train` items to train, if it is given."
    (x,y),(x_valid,y_valid) = [tuple(map(tensor, o)) for o in data]
    if n_train: x,y = x[:n_train],y[:n_train]
    train = loader(x, y, bs, shuffle=True, drop_last=True)
    return DataLoaders(train, loader(x_valid, y_valid, 256, shuffle=True))

def of_classes(data, classes):
    "Return the items of `data` whose class is one of `classes`, and number these from 0."
    def keep(x, y):
        on = np.isin(y, classes)
        return x[on],y[on]-min(classes)
    return [keep(*o) for o in data]

# Networks

norms = dict(bn=nn.BatchNorm1d, ln=nn.LayerNorm)

def mlp(n_in, n_out, norm=None, width=64):
    "Return two hidden layers, each followed by `norm`, if it is given, and ReLU."
    def layer(a, b): return [nn.Linear(a, b), *([norms[norm](b)] if norm else []), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *layer(n_in, width), *layer(width, width), nn.Linear(width, n_out))

def cnn(c_in, n_out, norm=True, width=16):
    "Return three convolutions of stride 2, with BatchNorm or without a norm."
    def layer(a, b): return ConvLayer(a, b, stride=2, norm_type=NormType.Batch if norm else None)
    body = nn.Sequential(layer(c_in, width), layer(width, 2*width), layer(2*width, 4*width))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4*width, n_out))
    return nn.Sequential(body, head)

def conv1d(c_in, n_out, width=32):
    "Return three convolutions over time with BatchNorm, as in a fully convolutional network for time series."
    def layer(a, b, size): return ConvLayer(a, b, size, ndim=1)
    return nn.Sequential(layer(c_in, width, 7), layer(width, 2*width, 5), layer(2*width, width, 3),
                         nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(width, n_out))

class Recurrent(Module):
    "A GRU over embedded tokens, and the mean of its states"
    def __init__(self, vocab, n_out, n_emb=32, n_hidden=64):
        self.emb = nn.Embedding(vocab, n_emb, padding_idx=0)
        self.rnn = nn.GRU(n_emb, n_hidden, batch_first=True)
        self.out = nn.Linear(n_hidden, n_out)
    def forward(self, x): return self.out(self.rnn(self.emb(x))[0].mean(1))

class Transformer(Module):
    "A transformer's encoder with LayerNorm over embedded tokens, and the mean of its outputs"
    def __init__(self, vocab, n_out, length, width=48, n_layers=2):
        self.emb = nn.Embedding(vocab, width, padding_idx=0)
        self.position = nn.Parameter(torch.randn(length, width)*0.02)
        block = nn.TransformerEncoderLayer(width, 4, 2*width, dropout=0.1, batch_first=True)
        self.blocks = nn.TransformerEncoder(block, n_layers, enable_nested_tensor=False)
        self.out = nn.Linear(width, n_out)
    def forward(self, x): return self.out(self.blocks(self.emb(x)+self.position).mean(1))

# Optimisers

adamw = Adam                                # fastai's Adam decouples weight decay
rmsprop = partial(RMSProp, mom=0.9)
def torch_adamw(*args, **kwargs): return OptimWrapper(*args, opt=torch.optim.AdamW, **kwargs)

# Learners

classify = dict(loss_func=CrossEntropyLossFlat(), metrics=accuracy)
regress = dict(loss_func=MSELossFlat())

def fine_tuned(data, first_classes, classes, c_in, freeze, bs=64, n_train=2000):
    "Return a Learner of `classes` whose body was trained on `first_classes`. Its body may be frozen."
    learn = Learner(loaders(of_classes(data(), classes), bs, n_train), cnn(c_in, len(classes), width=32),
                    opt_func=Adam, splitter=lambda m: [params(o) for o in (*m[0], m[1])], **classify)
    learn.model[0].load_state_dict(pretrained(data, tuple(first_classes), c_in))
    learn.freeze()
    if freeze: return learn
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(3, 1e-2)
    learn.unfreeze()
    return learn

@functools.lru_cache
def pretrained(data, classes, c_in):
    "Return the weights of a body that was trained on `classes`, from the same seed at each call."
    with no_random(1):
        dls = loaders(of_classes(data(), classes), 128)
        learn = Learner(dls, cnn(c_in, len(classes), width=32), opt_func=Adam, **classify)
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(6, 1e-2)
    return deepcopy(learn.model[0].state_dict())

def tabular(data, bs, n_valid=3000, **kwargs):
    df,cats,conts,target = data()
    df = df[[*cats, *conts, target]].copy()
    rs = np.random.RandomState(0).permutation(len(df))
    is_number = pd.api.types.is_numeric_dtype(df[target])
    block = RegressionBlock() if is_number else CategoryBlock()
    splits = list(map(int, rs[n_valid:])),list(map(int, rs[:n_valid]))
    with no_random():
        dls = TabularPandas(df, [Categorify, FillMissing, Normalize], cats, conts, target, block,
                            splits=splits).dataloaders(bs=bs)
    dls.train.rng.seed(torch.initial_seed())
    return tabular_learner(dls, layers=[100, 50], metrics=None if is_number else accuracy, **kwargs)

def collab(data, bs, **kwargs):
    df = data()
    with no_random(): dls = CollabDataLoaders.from_df(df, bs=bs, valid_pct=0.2, seed=0)
    dls.train.rng.seed(torch.initial_seed())
    y = df.iloc[:,-1]
    return collab_learner(dls, n_factors=16, y_range=(y.min()-0.2, y.max()+0.2), **kwargs)

def trained(learn, lr, n_epoch=4):
    "Return `learn` after a first cycle, as somebody has it who wants to go on."
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(n_epoch, lr)
    return learn

class SummedLoss(CrossEntropyLossFlat):
    "A cross-entropy that is summed over the items of a batch"
    def __init__(self): super().__init__(reduction='sum')

# Tasks

@dataclass
class Task:
    data:str            # The data set, by which the halves are made
    half:str            # `design` or `judging`
    make:Callable       # Returns a new Learner
    untypical:bool=False # Is it one where habit fails?
    long:bool=False     # Is it also run for 1,500 steps?
    slices:bool=False   # Are the rates discriminative, from a hundredth of the peak?

    def learner(self, seed):
        set_seed(seed)
        learn = self.make()
        learn.remove_cbs(learn.cbs.filter(risinstance(ProgressCallback)))
        return learn

    def lrs(self, peak): return slice(peak/100, peak) if self.slices else peak

def learn_on(data, bs, model, opt, n_train=None, **kwargs):
    return Learner(loaders(data(), bs, n_train), model(), opt_func=opt, **(kwargs or classify))

d = datasets
words_by = dict(vocab=48, n_out=8)
quotations = dict(vocab=3000, n_out=8, length=40)
summed = dict(loss_func=SummedLoss(), metrics=accuracy)
first_half,second_half = range(5),range(5, 10)

tasks = {
    # the design half
    'cifar resnet8 bn sgd':      Task('cifar10', design, long=True,
        make=lambda: learn_on(d.cifar10, 32, lambda: cifar_resnet(8), sgd)),
    'cifar frozen adam':         Task('cifar10', design,
        make=lambda: fine_tuned(d.cifar10, first_half, second_half, 3, freeze=True)),
    'cifar unfrozen adam':       Task('cifar10', design, slices=True, long=True,
        make=lambda: fine_tuned(d.cifar10, first_half, second_half, 3, freeze=False)),
    'digits mlp ln adamw':       Task('digits', design,
        make=lambda: learn_on(d.digits, 32, lambda: mlp(64, 10, 'ln'), torch_adamw)),
    'digits cnn sgd':            Task('digits', design,
        make=lambda: learn_on(d.digits, 16, lambda: cnn(1, 10, norm=False), sgd)),
    'flights tabular adamw':     Task('flights', design, long=True,
        make=lambda: tabular(d.flights, 512)),
    'trigrams collab adam':      Task('languages', design,
        make=lambda: collab(d.trigrams, 64)),
    'languages gru adamw':       Task('languages', design, long=True,
        make=lambda: learn_on(d.languages_of_words, 64, lambda: Recurrent(**words_by), adamw)),
    'vowels conv bn sgd':        Task('vowels', design,
        make=lambda: learn_on(d.vowels, 32, lambda: conv1d(12, 9), sgd)),
    'cancer mlp sgd':            Task('cancer', design,
        make=lambda: learn_on(d.cancer, 32, lambda: mlp(30, 2), sgd)),
    'diabetes mlp adam':         Task('diabetes', design,
        make=lambda: learn_on(d.diabetes, 32, lambda: mlp(10, 1), Adam, **regress)),
    'digits summed loss sgd':    Task('digits', design, untypical=True,
        make=lambda: learn_on(d.digits, 64, lambda: mlp(64, 10), sgd, **summed)),
    'vowels rmsprop':            Task('vowels', design, untypical=True,
        make=lambda: learn_on(d.vowels, 32, lambda: conv1d(12, 9), rmsprop)),
    'digits trained sgd':        Task('digits', design, untypical=True,
        make=lambda: trained(learn_on(d.digits, 64, lambda: mlp(64, 10, 'bn'), sgd), 0.05)),
    'languages trained adamw':   Task('languages', design, untypical=True,
        make=lambda: trained(tasks['languages gru adamw'].make(), 1e-2, 3)),
    'wine unscaled sgd':         Task('wine', design, untypical=True,
        make=lambda: learn_on(d.wine, 16, lambda: mlp(13, 3), sgd)),
    'wine unscaled adamw':       Task('wine', design, untypical=True,
        make=lambda: learn_on(d.wine, 16, lambda: mlp(13, 3, 'ln'), torch_adamw)),
    'digits very wide adam':     Task('digits', design, untypical=True,
        make=lambda: learn_on(d.digits, 64, lambda: mlp(64, 10, width=1024), Adam)),
    'digits batch of 1300 sgd':  Task('digits', design, untypical=True,
        make=lambda: learn_on(d.digits, 1300, lambda: cnn(1, 10), sgd)),
    'languages batch of 4 sgd':  Task('languages', design, untypical=True,
        make=lambda: learn_on(d.languages_of_words, 4, lambda: Recurrent(**words_by), sgd)),

    # the judging half
    'fashion cnn bn sgd':        Task('fashion', judging, long=True,
        make=lambda: learn_on(d.fashion, 128, lambda: cnn(1, 10), sgd)),
    'fashion frozen adam':       Task('fashion', judging,
        make=lambda: fine_tuned(d.fashion, first_half, second_half, 1, freeze=True)),
    'fashion unfrozen adam':     Task('fashion', judging, slices=True, long=True,
        make=lambda: fine_tuned(d.fashion, first_half, second_half, 1, freeze=False)),
    'mnist mlp ln adamw':        Task('mnist', judging,
        make=lambda: learn_on(d.mnist, 64, lambda: mlp(784, 10, 'ln'), torch_adamw)),
    'mnist cnn sgd':             Task('mnist', judging,
        make=lambda: learn_on(d.mnist, 16, lambda: cnn(1, 10, norm=False), sgd)),
    'temperatures tabular adamw':Task('temperatures', judging, long=True,
        make=lambda: tabular(d.temperatures, 256)),
    'employment collab adam':    Task('employment', judging,
        make=lambda: collab(d.employment, 64)),
    'quotations transformer adamw': Task('quotations', judging, long=True,
        make=lambda: learn_on(d.topics_of_quotations, 64, lambda: Transformer(**quotations), torch_adamw)),
    'leaves conv bn sgd':        Task('leaves', judging,
        make=lambda: learn_on(d.leaves, 32, lambda: conv1d(1, 6), sgd)),
    'power mlp adam':            Task('power', judging,
        make=lambda: learn_on(d.power, 64, lambda: mlp(24, 2), Adam)),
    'penguins tabular adamw':    Task('penguins', judging,
        make=lambda: tabular(d.penguins, 32, n_valid=100)),
    'boston unscaled sgd':       Task('boston', judging, untypical=True,
        make=lambda: learn_on(d.boston, 32, lambda: mlp(13, 1), sgd, **regress)),
    'mnist very wide sgd':       Task('mnist', judging, untypical=True,
        make=lambda: learn_on(d.mnist, 64, lambda: mlp(784, 10, width=2048), sgd)),
    'fashion batch of 1000 sgd': Task('fashion', judging, untypical=True,
        make=lambda: learn_on(d.fashion, 1000, lambda: cnn(1, 10, width=8), sgd)),
    'power rmsprop':             Task('power', judging, untypical=True,
        make=lambda: learn_on(d.power, 32, lambda: mlp(24, 2, 'bn'), rmsprop)),
    'fashion trained adam':      Task('fashion', judging, untypical=True,
        make=lambda: trained(learn_on(d.fashion, 64, lambda: cnn(1, 10), Adam, n_train=5000), 1e-2, 3)),
}

# Cycles

class NoValidation(Callback):
    "Leave the validation out: only the end counts."
    def before_validate(self): raise CancelValidException()

def epochs_of(learn, n_steps): return max(1, round(n_steps/len(learn.dls.train)))

def points(learn):
    "Return what a trained `learn` scores: percent of accuracy, or minus hundredths of the squared error."
    with learn.no_bar(), learn.no_logging(): loss,*mets = learn.validate()
    if mets: return 100*mets[0]
    return -100*loss if math.isfinite(loss) else -math.inf

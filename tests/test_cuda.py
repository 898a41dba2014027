"""On a GPU: schedule, search, precision, memory format, data, compilation, checkpoints, Leslie's network.
The same tests run on the CPU, so that they are known to work. Those on CUDA are skipped without a GPU."""
from collections import Counter
import pytest
from fastai_clrbeta.all import *
from fastai_clrbeta.precision import autocast_state
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')
gpu = pytest.param('cuda', marks=[pytest.mark.cuda, no_gpu])
devices = pytest.mark.parametrize('device', ['cpu',gpu])
pytestmark = pytest.mark.filterwarnings('ignore:.*no instructions for bf16')

def learner(device, path='.', net=partial(cifar_resnet, 8), **kwargs):
    "Six batches to train on, and two to validate, the last of another size"
    set_seed(0, reproducible=True)
    dls = digits_dls(bs=64, size=8, device=device, seed=0)
    dls.train.n,dls.valid.n = 6*64,64+20
    return Learner(dls, net(), opt_func=sgd, metrics=accuracy, path=path, **kwargs)

@contextmanager
def silent(learn):
    with learn.no_bar(), learn.no_logging(): yield learn

def train(learn, lrs=0.2, cycle_len=2, **kwargs):
    with silent(learn):
        learn.fit_clr_beta(lrs, cycle_len=cycle_len, use_clr_beta=(10,13.68,0.95,0.8), **kwargs)
    return learn

def search(learn, **kwargs):
    with silent(learn):
        kwargs = dict(num_it=12, stop_div=False, show_plot=False, trials=False) | kwargs
        return learn.lr_find_val(1e-3, 1, **kwargs)

def weights(learn): return [o.detach().cpu().clone() for o in learn.model.state_dict().values()]
def assert_same(a, b): assert all(map(torch.equal, a, b))

@devices
def test_schedule(device):
    learn = train(learner(device))
    nb = 2*len(learn.dls.train)
    lrs = [0.2*clr_beta_lr(i, nb, 10, 13.68) for i in range(nb)]
    np.testing.assert_allclose(learn.recorder.hps['lr'], lrs)
    assert learn.model.stem[0].weight.device.type == device
    assert learn.recorder.losses[-1] < learn.recorder.losses[0]

@devices
@pytest.mark.parametrize('precision', ['fp32','bf16'])
def test_search_leaves_no_trace(device, precision, short):
    learn = train(learner(device, cbs=ChannelsLast()).to_precision(precision), cycle_len=1)
    before,outside,rng = weights(learn),autocast_state(),torch.get_rng_state()
    gpu_rng = torch.cuda.get_rng_state_all()
    res = search(learn, bn='both', trials=[0.05])
    assert res.stopped == 'finished: 12 steps' and res.df.notna().all().all()
    assert res.trials.stopped[0] == 'finished' and np.isfinite(res.trials.valid_loss[0])
    assert_same(weights(learn), before)
    assert autocast_state() == outside and torch.equal(torch.get_rng_state(), rng)
    assert_same(torch.cuda.get_rng_state_all(), gpu_rng)
    assert learn.model.stem[0].weight.device.type == device

class Look(Callback):
    "In what, in which format, and where layers compute"
    def before_fit(self):
        self.seen = set()
        def look(m, i, o):
            is_last = o.is_contiguous(memory_format=torch.channels_last)
            self.seen.add((o.dtype, is_last, o.device.type))
        self.hook = self.model.stage2[0].convs[0][0].register_forward_hook(look)
    def after_fit(self): self.hook.remove()

on_gpu = [pytest.param('cuda', o, marks=gpu.marks) for o in ('bf16','fp16')]
@pytest.mark.parametrize('device,precision', [('cpu','bf16'), *on_gpu])
def test_half_precision(device, precision):
    "It is computed in it, channels last, with all that goes beside it; what differs from fp32 is little"
    beside = [ChannelsLast(), MixUp(0.4), GradientAccumulation(128), GradientClip(1.), Look()]
    learn = train(learner(device, cbs=beside).to_precision(precision), cycle_len=1, on_diverge='raise')
    assert learn.look.seen == {(dict(bf16=torch.bfloat16, fp16=torch.float16)[precision], True, device)}
    assert {o.dtype for o in learn.model.parameters()} == {torch.float32}
    fits = [train(learner(device).to_precision(o), cycle_len=1) for o in ('fp32',precision)]
    losses = [o.recorder.values[-1][1] for o in fits]
    assert abs(losses[0]-losses[1]) < 0.1*losses[0]
    assert torch.cuda.is_available() or autocast_state()[0] == 1

@pytest.fixture
def fp16_anywhere(monkeypatch):
    "fp16 on the CPU, which users can't ask for, stands in for CUDA's"
    monkeypatch.setattr('fastai_clrbeta.precision._check_fp16', noop)

@devices
def test_steps_that_overflow_are_left_out(device, fp16_anywhere):
    class Overflow(Callback):
        "Makes the gradients of the second step infinite, and looks whether each step moves the weights"
        moved,scales = [],[]
        def after_backward(self):
            ps = [*self.model.parameters()]
            if len(self.moved) == 1: ps[0].grad.fill_(math.inf)
            self.before = [o.detach().clone() for o in ps]
        def after_batch(self):
            if not self.training: return
            self.moved.append(not all(map(torch.equal, self.before, self.model.parameters())))
            self.scales.append(self.learn.scaler.get_scale())
    train(learner(device).to_precision('fp16'), cbs=Overflow())
    assert Overflow.moved == [True,False] + 10*[True]
    assert Overflow.scales == [2.**16] + 11*[2.**15]

def test_the_scaler_goes_with_a_checkpoint(tmp_path, fp16_anywhere):
    make = lambda **kwargs: learner('cpu', tmp_path, **kwargs).to_precision('fp16')
    whole = weights(train(make(), checkpoint='whole', every_iter=3))
    class Cut(Callback):
        def after_batch(self):
            if self.train_iter == 7: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): train(make(cbs=Cut()), checkpoint='run', every_iter=3)
    class Scale(Callback):
        order,scales = 2000,[]
        def after_step(self): self.scales.append((self.train_iter, self.learn.scaler.get_scale()))
    again = train(make(cbs=Scale()), checkpoint='run', every_iter=3, resume=True)
    assert_same(weights(again), whole)
    assert Scale.scales[0][0] == 6 and {o for _,o in Scale.scales} == {2.**16}

@devices
def test_data_on_the_device(device):
    dls = digits_dls(bs=64, size=8, device=device)
    assert {o.device.type for dl in dls.loaders for o in dl.mem} == {device}
    assert dls.train.mem[0].dtype == torch.uint8
    sent = []
    class Sent(TorchFunctionMode):
        "Of images, what is sent anywhere"
        def __torch_function__(self, f, types, args=(), kwargs=None):
            if f in (Tensor.to,Tensor.cpu,Tensor.cuda) and args[0].ndim == 4: sent.append(args[0].device.type)
            return f(*args, **kwargs or {})
    with Sent(): batches = [b for dl in dls.loaders for b in dl]
    assert {o.device.type for b in batches for o in b} == {device} and set(sent) <= {device}
    host = digits_dls(bs=64, size=8, device='cpu')
    test_close(batches[-1][0].cpu(), [*host.valid][-1][0], 1e-5)
    assert dls.cpu().train.mem[0].device.type == 'cpu'
    FlipCrop()(batches[0][0], split_idx=0)
    preds = learner(device).get_preds(dl=host.valid)[0]
    assert len(preds) == 360

class Reads(TorchFunctionMode):
    """Counts what waits for the device, as if the CPU were one. A copy from there belongs to the host, and so
    does what is made of it."""
    n,waits = 0,'item cpu tolist numpy __float__ __bool__ __int__ nonzero'.split()
    def __torch_function__(self, f, types, args=(), kwargs=None):
        ours = all(hasattr(o, 'on_host') for o in tree_leaves((args,kwargs)) if isinstance(o, Tensor))
        name = getattr(f, '__name__', '')
        self.n += name in self.waits and not ours
        res = f(*args, **kwargs or {})
        if name == 'cpu' and not ours: res = res.clone()
        for o in (res if isinstance(res, (tuple,list)) else [res]) if ours or name == 'cpu' else ():
            if isinstance(o, Tensor): o.on_host = True
        return res

steps = []
class Each(Callback):
    "How often each step has read"
    order,run_valid = 3000,False
    def before_batch(self): self.before = reads.n
    def after_batch(self): steps.append(reads.n-self.before)

reads = Reads()

@pytest.mark.parametrize('what', ['guard','search'])
def test_the_device_is_read_once_a_step(what):
    "By ours: fastai's Recorder, which reads twice, is taken out"
    learn = learner('cpu', cbs=Each()).remove_cbs([Recorder,ProgressCallback])
    if what == 'search': learn.metrics = L(accuracy, error_rate).map(mk_metric)
    steps.clear()
    with reads: train(learn, cbs=DivergenceGuard()) if what == 'guard' else search(learn)
    # the first step of a search also looks whether classes are mixed
    assert len(steps) > 10 and set(steps[1:]) == {1}, steps

@contextmanager
def counting():
    "Counts what torch compiles, and what it compiles again"
    torch._dynamo.reset()
    n = Counter()
    def backend(gm, inputs): n[gm.training if hasattr(gm, 'training') else True] += 1; return gm.forward
    yield n,backend
    torch._dynamo.reset()

def compiled_learner(device, tmp_path, backend):
    "A Learner on `device`, compiled if there is a backend"
    learn = learner(device, tmp_path, cbs=ChannelsLast()).to_precision('bf16')
    if backend: learn.model.compile(backend=backend)
    return learn

@devices
@pytest.mark.slow
def test_compiled(device, tmp_path):
    "Compiled once for training, once for validation, and never from step to step; all goes as in a plain run"
    with counting() as (n,backend):
        learn = compiled_learner(device, tmp_path, backend)
        assert search(learn).stopped == 'finished: 12 steps'
        after_search = sum(n.values())
        plain = weights(train(compiled_learner(device, tmp_path, None)))
        assert sum(n.values()) == after_search <= 12  # torch 2.11 compiles an nn.Sequential block by block
        assert_same(weights(train(learn)), plain)
        assert sum(n.values()) <= after_search+1, n  # a last validation batch of another size
        done = sum(n.values())
        search(learn)
        assert sum(n.values()) == done, n
        learn.export('compiled.pkl')
        loaded = load_learner(tmp_path/'compiled.pkl')
        assert loaded.model._compiled_call_impl is None and type(loaded.model) is nn.Sequential

class Cut(Callback):
    def after_batch(self):
        if self.train_iter == 3: raise KeyboardInterrupt

@devices
@pytest.mark.slow
def test_a_compiled_and_a_plain_run_resume_each_other(device, tmp_path):
    with counting() as (_,backend):
        make = partial(compiled_learner, device, tmp_path)
        plain = weights(train(make(None)))
        for first,second in (backend,None), (None,backend):
            kw = dict(checkpoint=f'run{first is None}', every_iter=2)
            with pytest.raises(KeyboardInterrupt): train(make(first), cbs=Cut(), **kw)
            assert_same(weights(train(make(second), resume=True, **kw)), plain)

@devices
def test_checkpoint_and_resume(device, tmp_path):
    whole = weights(train(learner(device, tmp_path), checkpoint='whole'))
    class Cut(Callback):
        def after_batch(self):
            if self.train_iter == 7: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        train(learner(device, tmp_path), cbs=Cut(), checkpoint='run', every_iter=3)
    again = train(learner(device, tmp_path), checkpoint='run', every_iter=3, resume=True)
    assert_same(weights(again), whole)
    momentum = again.opt.state_dict()['state'][0]['momentum_buffer']
    assert again.dls.train.mem[0].device.type == momentum.device.type == device

@devices
def test_leslies_network(device):
    learn = learner(device, net=leslie_resnet56)
    train(learn, cycle_len=1)
    assert len(learn.recorder.losses) == 6 and all(o.isfinite() for o in learn.recorder.losses)

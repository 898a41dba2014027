"Half precision on the CPU: what is computed, what is left on, and what is said"
import warnings
from functools import partial
from unittest.mock import patch as mocked
import pytest
from fastai.callback.channelslast import *
from fastai.callback.fp16 import MixedPrecision
from fastai_clrbeta.all import *
from fastai_clrbeta.precision import autocast_state, native_bf16

def learner(**kwargs):
    set_seed(42)
    learn = Learner(digits_dls(size=8, seed=42), cifar_resnet(8), opt_func=sgd, metrics=accuracy, **kwargs)
    learn.remove_cb(ProgressCallback)
    learn.logger = noop
    return learn

def kinds(learn): return [type(o) for o in learn.cbs if isinstance(o, MixedPrecision)]
def capabilities(**kwargs): return mocked('torch.cpu.get_capabilities', lambda: kwargs, create=True)

def told(f):
    "The texts of the warnings of `f`"
    with warnings.catch_warnings(record=True) as ws:
        warnings.simplefilter('always')
        f()
    return [str(o.message) for o in ws]

@pytest.fixture
def learn():
    with capabilities(bf16=True): return learner().to_precision('bf16')

class Look(Callback):
    def after_loss(self):
        self.kind = self.loss.dtype
        if not hasattr(self, 'first'): self.first = self.loss.detach()

def test_what_is_computed(learn):
    layers = set()
    learn.model.stem[0].register_forward_hook(lambda module, x, y: layers.add(y.dtype))
    learn.fit_clr_beta(0.2, cycle_len=2)
    assert learn.recorder.values[-1][2] > 0.3
    learn.add_cb(Look())
    learn.validate()
    assert layers == {torch.bfloat16} and learn.look.kind == torch.float32
    x,y = (o.as_subclass(Tensor) for o in learn.dls.valid.one_batch())
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        want = F.cross_entropy(learn.model.eval()(x).float(), y)
    torch.testing.assert_close(learn.look.first.as_subclass(Tensor), want)
    learn.get_preds()
    assert not torch.is_autocast_enabled('cpu')

class Cut(Callback):
    "Raise `e` after a forward pass, in batch `at` or in each"
    def __init__(self, e, at=None): store_attr()
    def after_pred(self):
        if self.training and self.at in (None,self.train_iter): raise self.e()

cuts = CancelBatchException,CancelTrainException,CancelEpochException,CancelFitException
@pytest.mark.parametrize('e', cuts)
def test_a_callback_that_cuts_batches_leaves_nothing_on(learn, e):
    outside = autocast_state()
    learn.fit(1, 0.1, cbs=Cut(e))
    assert autocast_state() == outside

def test_an_interrupt_leaves_nothing_on(learn):
    outside = autocast_state()
    for fit in learn.fit_clr_beta,partial(learn.fit, 1),partial(learn.fit, 1):
        with pytest.raises(KeyboardInterrupt): fit(0.1, cbs=Cut(KeyboardInterrupt, 3))
        if fit == learn.fit_clr_beta: assert autocast_state() == outside
        learn.remove_cb(Cut)
    learn.fit_clr_beta(0.1)  # leaves what the others have left on
    assert autocast_state() == outside

@pytest.mark.parametrize('bad', ['float16', 16, None, 'BF16'])
def test_another_precision_is_refused(bad):
    with pytest.raises(ValueError, match='must be'): learner().to_precision(bad)

def test_fp16_is_refused_on_the_cpu():
    learn = learner().to_bf16()
    with pytest.raises(ValueError, match='only CUDA'): learn.to_precision('fp16')
    assert kinds(learn) == [MixedPrecision]
    with pytest.raises(ValueError, match='only CUDA'): learner(cbs=HalfPrecision('fp16')).fit(1)

@pytest.mark.parametrize('flag', ['avx512_bf16', 'amx_bf16', 'bf16', 'sve_bf16'])
def test_a_cpu_with_bf16(flag, capsys):
    with capabilities(**{flag:True, 'cpu_name':'X'}):
        assert native_bf16('cpu') == (True, f'this CPU (X) has {flag}')
        learn = learner().to_precision()
        assert capsys.readouterr().out == f'precision: bf16, because this CPU (X) has {flag}\n'
        assert not told(lambda: learn.to_precision('bf16')) and kinds(learn) == [HalfPrecision]

def test_a_cpu_without_bf16(capsys):
    learn = learner()
    with capabilities(avx2=True, bf16=False):
        assert 'no instructions for bf16' in told(lambda: learn.to_precision('bf16'))[0]
        assert kinds(learn) == [HalfPrecision]
        learn.to_precision()
        assert capsys.readouterr().out == f'precision: fp32, because {native_bf16("cpu")[1]}\n'
        assert kinds(learn) == []

def test_what_other_processors_compute():
    emulates = mocked('torch.cuda.is_bf16_supported', lambda including_emulation: False)
    with emulates, mocked('torch.cuda.get_device_name', lambda: 'T4'):
        assert native_bf16('cuda') == (False, 'T4 only emulates bf16')
    assert not native_bf16('mps')[0]

def test_one_precision_at_a_time(learn):
    assert learn.to_precision('fp32') is learn and kinds(learn) == []
    with capabilities(bf16=True):
        assert kinds(learn.to_precision('bf16').to_fp32()) == []
        assert kinds(learn.to_precision('bf16').to_channelslast()) == [HalfPrecision]
    assert told(lambda: learner(cbs=HalfPrecision('bf16')).validate()) == []

@pytest.mark.parametrize('call', [partial(Learner.fit_clr_beta, lrs=0.1),
                                  partial(Learner.lr_find_val, num_it=10, show_plot=False)])
def test_half_precision_that_does_nothing_is_named_once(call):
    ws = [o for o in told(lambda: call(learner().to_bf16())) if "to_precision('bf16')" in o]
    assert len(ws) == 1 and 'does nothing on cpu' in ws[0]

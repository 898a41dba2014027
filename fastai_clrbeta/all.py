"Everything of `fastai_clrbeta`, on top of everything of `fastai.vision`"
from fastai.vision.all import *

from .resnet import *
from .data import *
from .peak import peak, centred  # noqa: F401
from .results import LRFind, LRSweep  # noqa: F401
from .schedule import *
from .lr_find import *
from .divergence import *
from .fit import *
from .precision import *

from typing import TYPE_CHECKING
from .core import HasPeak  # noqa: F401
if TYPE_CHECKING:  # checkers don't see what `@patch` does: here the methods are attributes
    from fastai.learner import Learner as _Learner
    from . import fit as _fit, lr_find as _lr_find, precision as _precision, run as _run
    class Learner(_Learner):
        # fastai's own hint for `opt_func` has no room for functions, such as its `Adam`
        def __init__(self, dls, model, *args, **kwargs): ...
        fit_clr_beta  = _fit.fit_clr_beta
        lr_find_val   = _lr_find.lr_find_val
        lr_find_sweep = _lr_find.lr_find_sweep
        no_trace      = _run.no_trace
        to_precision  = _precision.to_precision
        @property
        def lr_find_result(self) -> LRFind|None: ...
        @property
        def lr_find_sweep_result(self) -> LRSweep|None: ...
        def plot_clr_beta(self, lrs:float|slice|list|tuple|np.ndarray|HasPeak, n_cycle:int=1,
            wds:float|list|None=None, cycle_len:int|None=None, use_clr_beta:tuple|CLRBeta=(), axs=None,
            wd:float|list|None=None) -> np.ndarray: ...
        def plot_overfit(self, axs=None) -> np.ndarray: ...

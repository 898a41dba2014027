"""1cycle training for fastai: find the learning rate, run the cycle, survive a crash

This package helps you train with [fastai](https://docs.fast.ai). `learn.lr_find_val()` tests learning rates on your task, suggests one and gives the reason. `learn.fit_clr_beta()` trains with this rate, and can resume a run after a crash.

```python
from fastai_clrbeta.all import *

dls = digits_dls(bs=128, seed=42)    # handwritten digits, which come with scikit-learn
learn = Learner(dls, cifar_resnet(8), opt_func=sgd, metrics=accuracy)

found = learn.lr_find_val()          # the range test; it restores `learn` at the end
learn.fit_clr_beta(found, cycle_len=15)
```"""

__version__ = "0.3.0"

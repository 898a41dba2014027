"""1cycle training for fastai: find the learning rate, run the cycle, survive a crash

This package helps you train with [fastai](https://docs.fast.ai). `learn.lr_find_val()` tests learning rates on your task, suggests one and says why; `learn.fit_clr_beta()` trains with it, and after a crash it resumes the run where it was cut.

```python
from fastai_clrbeta.all import *

dls = digits_dls(bs=128, seed=42)    # real handwritten digits: they come with scikit-learn
learn = Learner(dls, cifar_resnet(8), opt_func=sgd, metrics=accuracy)

found = learn.lr_find_val()          # the range test: it leaves no trace on `learn`
learn.fit_clr_beta(found, cycle_len=15)
```"""

__version__ = "0.3.0"

"""1cycle training for fastai: find the learning rate, run the cycle, survive a crash

Training with **1cycle** raises the learning rate to a high peak and lowers it again, once, over the whole
run, while momentum does the opposite. Leslie Smith showed in 2017 that a network can reach in this way, in a
fraction of the steps, what an ordinary schedule reaches
([super-convergence](https://arxiv.org/abs/1708.07120)). This package brings his method to
[fastai](https://docs.fast.ai), as the experiments of 2018 ran it: a range test that finds the peak, the cycle
itself, and runs that go on after a crash as if nothing had happened:

```python
from fastai_clrbeta.all import *

dls = digits_dls(bs=128, seed=42)    # real handwritten digits: they come with scikit-learn
learn = Learner(dls, cifar_resnet(8), opt_func=sgd, metrics=accuracy)

found = learn.lr_find_val()          # the range test, which leaves no trace on `learn`
learn.fit_clr_beta(found.peak, cycle_len=15, use_clr_beta=(10, 13.68, 0.95, 0.8))
```"""

__version__ = "0.2.0"

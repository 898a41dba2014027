"""1cycle training for fastai: find the learning rate, run the cycle, survive a crash

Training with [**1cycle**](tutorial_what_is_1cycle.ipynb) raises the learning rate to a high peak and lowers it again, once, over the whole
run, while momentum does the opposite. Leslie Smith and Nicholay Topin reported in 2017 that a
network can reach in this way, in a fraction of the steps, what an ordinary schedule reaches
([super-convergence](https://arxiv.org/abs/1708.07120)). This package brings the method to
[fastai](https://docs.fast.ai), as the experiments of 2018 ran it: a range test that finds the peak, the cycle
itself, and runs that can be resumed after a crash:

```python
from fastai_clrbeta.all import *

dls = digits_dls(bs=128, seed=42)    # real handwritten digits: they come with scikit-learn
learn = Learner(dls, cifar_resnet(8), opt_func=sgd, metrics=accuracy)

found = learn.lr_find_val()          # the range test, which leaves no trace on `learn`
learn.fit_clr_beta(found, cycle_len=15, use_clr_beta=(10, 13.68, 0.95, 0.8))
```

## Modules

`fastai_clrbeta.all` brings what training needs, on top of `fastai.vision.all`. Each module has a page, too:

- [lr_find](11_lr_find.ipynb): Find the learning rate: a test that watches the validation set, and leaves no trace on the `Learner`.
- [results](09_results.ipynb): What a range test measured, as data and figures, and the learning rate that it suggests.
- [peak](08_peak.ipynb): From the curve of a range test to a learning rate: pure maths, without a Learner.
- [trials](12_trials.ipynb): A cycle in miniature at each of several learning rates: the shortest run that tells them apart.
- [lr_search](11_lr_search.ipynb): Train one step at each of the given learning rates, measure validation in between, and leave no trace.
- [fit](13_fit.ipynb): `fit_clr_beta` checks every argument, runs the schedule, survives kills and notices divergence.
- [schedule](02_schedule.ipynb): Leslie Smith's 1cycle as fastai 0.7's `use_clr_beta` ran it, step by step.
- [checkpoint](12_checkpoint.ipynb): Write a run to a file while it trains, and resume it after a crash, bit for bit.
- [divergence](10_divergence.ipynb): Notice a fit that diverges, stop it, or start over with a longer cycle; and see how far a model overfits.
- [resnet](03_resnet.ipynb): Leslie Smith's ResNet-56 for CIFAR, and the three networks it was confused with.
- [data](04_data.ipynb): CIFAR-10 and handwritten digits, held in memory and served a whole batch at a time.
- [precision](05_precision.ipynb): Half precision on the device at hand: bf16 on CPU, CUDA and MPS, fp16 on CUDA.
- [cli](15_cli.ipynb): `clrbeta`: one cycle from the shell, and everything it did in one folder.
- [legacy](14_legacy.ipynb): Lines written for fastai 0.7, on the `Learner` of today.
- [learner](01_learner.ipynb): What the modules share about a `Learner`: its optimiser, its loaders, its callbacks, and several processes.
- [core](00_core.ipynb): Checks that every call makes before it changes anything, and the look of all figures.
- [run](07_run.ipynb): What a run consists of: one table, which `no_trace` restores in memory and a checkpoint writes to a file.
- [values](06_values.ipynb): Read the values of a run as plain data that is safe to load, and put them back in place."""

__version__ = "0.3.0.dev0"

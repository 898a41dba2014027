"""CIFAR-10: find a learning rate, then train with one cycle.

    python examples/cifar10.py                            # fastai downloads CIFAR-10
    python examples/cifar10.py --data digits --epochs 3   # handwritten digits: a minute without a GPU
"""
from fastai_clrbeta.all import *
from fastcore.script import call_parse

@call_parse
def main(
    data:str=None,  # Folder of CIFAR-10, or `digits`. None: fastai's own copy of CIFAR-10
    depth:int=20,   # Depth of the network: 8, 14, 20, …
    epochs:int=15,  # Epochs of the cycle
    out:str='.',    # Folder of the exported Learner
):
    "Train a small ResNet."
    dls = digits_dls(size=8) if data == 'digits' else cifar10_dls(data, bs=128, augment=True)
    learn = Learner(dls, cifar_resnet(depth), opt_func=sgd, metrics=accuracy, cbs=ChannelsLast(), path=out)

    found = learn.lr_find_val(show_plot=False)
    if found.peak is None: raise SystemExit(found.why)
    print(f'{found.peak:.2g}: {found.why}')

    learn.fit_clr_beta(found, cycle_len=epochs, wd=1e-4, use_clr_beta=(10, 13.68, 0.95, 0.8))
    print(f'accuracy: {learn.validate()[1]:.1%}')
    learn.export('cifar10.pkl')

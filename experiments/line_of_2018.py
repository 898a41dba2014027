"""The line of 2018 to its end, with a ResNet-20: 95 epochs of CIFAR-10 in batches of 512, without augmentation.

    python experiments/line_of_2018.py --data cifar10           # 1cycle with a peak of 0.8
    python experiments/line_of_2018.py --data cifar10 --lr 0.01 # the same 95 epochs at a constant 0.01

Stop it whenever you like: the same command resumes it. Each epoch adds a row to `<out>/<name>.csv`.
"""
from fastai_clrbeta.all import *
from fastai_clrbeta.cli import EpochCSV, plain_rows
from fastcore.script import call_parse

class Constant(CLRBeta):
    "The same learning rate at every step"
    def lr_at(self, i, nb): return 1.

@call_parse
def main(
    data:str=None,      # Folder of CIFAR-10. None: fastai's own copy
    lr:float=0.8,       # Peak learning rate; at 0.01 it is constant
    depth:int=20,       # Depth of the network. In 2018 it was 56
    out:str='line2018', # Folder of the log and the checkpoint
):
    set_seed(0, reproducible=True)
    name = f'resnet{depth}conv_{"constant" if lr == 0.01 else "cycle"}_{lr:g}_95epochs'
    dls = cifar10_dls(data, bs=512, augment=False)
    model = cifar_resnet(depth, shortcut='conv')
    learn = Learner(dls, model, opt_func=sgd, metrics=accuracy, cbs=ChannelsLast(), path=out, model_dir='.')
    learn.to_precision('bf16')
    shape = Constant(10, 13.68, 0.95, 0.8) if lr == 0.01 else (10, 13.68, 0.95, 0.8)
    with plain_rows(learn):
        learn.fit_clr_beta(lr, 1, cycle_len=95, wds=1e-4, use_clr_beta=shape, checkpoint=name, resume=True,
                           cbs=EpochCSV(Path(out)/f'{name}.csv'))

"""The line of 2018 to its end, with a ResNet-20: 95 epochs of CIFAR-10, batches of 512, no augmentation.

    python experiments/line_of_2018.py --data cifar10           # 1cycle with a peak of 0.8
    python experiments/line_of_2018.py --data cifar10 --lr 0.01 # the same 95 epochs at a constant 0.01

Stop it whenever you like: the same command resumes it. Each epoch adds a row to `<out>/<name>.csv`.
"""
from fastai_clrbeta.all import *
from fastai_clrbeta.cli import EpochCSV, plain_rows
from fastcore.script import call_parse
from laboratory import Constant

@call_parse
def main(
    data:str=None,      # Folder of CIFAR-10. None: fastai's own copy
    lr:float=0.8,       # Peak learning rate; 0.01 is constant, with a constant momentum of 0.9
    depth:int=20,       # Depth of the network. In 2018 it was 56
    out:str='line2018', # Folder of the log and the checkpoint
):
    "Train with the line of 2018."
    if lr == 0.01: shape,schedule = 'constant',Constant(10, 13.68)
    else:          shape,schedule = 'cycle',(10, 13.68, 0.95, 0.8)
    name = f'resnet{depth}conv_{shape}_{lr:g}_95epochs'
    set_seed(0, reproducible=True)
    dls = cifar10_dls(data, bs=512, augment=False)
    model = cifar_resnet(depth, shortcut='conv')
    learn = Learner(dls, model, opt_func=sgd, metrics=accuracy, cbs=ChannelsLast(), path=out, model_dir='.')
    learn.to_precision('bf16')
    with plain_rows(learn):
        learn.fit_clr_beta(lr, 1, cycle_len=95, wds=1e-4, use_clr_beta=schedule, checkpoint=name, resume=True,
                           cbs=EpochCSV(Path(out)/f'{name}.csv'))

"""Several processes, on as many GPUs or, without one, on the CPU.

    torchrun --nproc_per_node 2 --max-restarts 3 examples/several_processes.py
    accelerate launch --num_processes 2 examples/several_processes.py

If a process dies, torchrun starts all of them again, and the run resumes from its checkpoint.
"""
from fastai_clrbeta.all import *
from fastai.distributed import *
from fastcore.script import call_parse

@call_parse
def main(
    epochs:int=3, # Epochs of the cycle
    out:str='.',  # Folder of the checkpoint and the exported Learner
):
    "Train on handwritten digits. Each process trains on its share of the images."
    set_seed(0)
    dls = digits_dls(size=8, seed=0)
    learn = Learner(dls, cifar_resnet(8), opt_func=sgd, metrics=accuracy, path=out)
    with learn.distrib_ctx(sync_bn=False):
        learn.fit_clr_beta(0.2, cycle_len=epochs, wd=1e-4, checkpoint='digits', resume=True)
    if rank_distrib() == 0: learn.export('digits.pkl')

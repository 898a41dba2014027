"""A schedule of your own: warm up, stay at the peak, then fall in a straight line.

    python examples/custom_schedule.py
"""
from fastai_clrbeta.all import *
from fastcore.script import call_parse

class Trapezoid(CLRBeta):
    "Warm up during the first tenth of the steps, fall during the last `pct` percent"
    def lr_at(self, i, nb):
        "Return the learning rate of step `i` of `nb`, as a fraction of the peak."
        warm_up,fall = nb*0.1,nb*self.pct/100
        return min(1., (i+1)/warm_up, (nb-i)/fall)

    def mom_at(self, i, nb):
        "Return the momentum of step `i`: low while the learning rate is high."
        return self.mom_max - (self.mom_max-self.mom_min)*self.lr_at(i, nb)

@call_parse
def main(
    epochs:int=3, # Epochs of the cycle
):
    "Train on handwritten digits with this schedule. Started again after a kill, it resumes."
    schedule = Trapezoid(pct=40, mom_max=0.95, mom_min=0.85)
    learn = Learner(digits_dls(size=8), cifar_resnet(8), opt_func=sgd, metrics=accuracy)
    cycle = dict(lrs=0.2, cycle_len=epochs, wd=1e-4, use_clr_beta=schedule)
    learn.fit_clr_beta(**cycle, checkpoint='trapezoid', resume=True)
    learn.plot_clr_beta(**cycle)
    plt.savefig('trapezoid.png')

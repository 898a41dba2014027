"""What other tools answer: torch-lr-finder and Lightning, and optimisers that need no learning rate.

They are packages of their own: pip install torch-lr-finder lightning prodigyopt schedulefree
"""
from tasks import *
from fastai.callback.tracker import TerminateOnNaNCallback
import logging

def torch_optimiser(learn, lr):
    "Return torch's optimiser of the kind that `learn` uses, on the parameters that are not frozen."
    learn.create_opt()
    groups = [dict(params=[p for p in group if p.requires_grad]) for group in learn.opt.param_lists]
    groups = [group for group in groups if group['params']]
    if isinstance(learn.opt, OptimWrapper):
        cls,options = type(learn.opt.opt),learn.opt.opt.defaults
        known = inspect.signature(cls).parameters
        return cls(groups, **{**{k:v for k,v in options.items() if k in known}, 'lr':lr})
    if learn.opt_func is rmsprop: return torch.optim.RMSprop(groups, lr=lr, momentum=0.9)
    return torch.optim.AdamW(groups, lr=lr)

# Range tests of other packages, with their own default ranges

def torch_lr_finder(learn):
    "Return the steepest point of torch-lr-finder, and the number of steps."
    from torch_lr_finder import LRFinder, TrainDataLoaderIter
    class Batches(TrainDataLoaderIter):
        def inputs_labels_from_batch(self, batch): return batch[:-1],batch[-1]
    class Model(nn.Module):
        def __init__(self): super().__init__(); self.model = learn.model
        def forward(self, inputs): return self.model(*inputs)
    finder = LRFinder(Model(), torch_optimiser(learn, 1e-7), learn.loss_func)
    finder.range_test(Batches(learn.dls.train), end_lr=10, num_iter=100)
    plt.figure()
    suggested = finder.plot(log_lr=True)[1]
    plt.close('all')
    return suggested,len(finder.history['lr'])

def lightning(learn):
    "Return the suggestion of Lightning's tuner, and the number of steps."
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.tuner import Tuner
    logging.getLogger('lightning.pytorch').setLevel(logging.ERROR)
    class Module(LightningModule):
        def __init__(self): super().__init__(); self.model,self.lr = learn.model,1e-3
        def training_step(self, batch, i): return learn.loss_func(self.model(*batch[:-1]), batch[-1])
        def configure_optimizers(self): return torch_optimiser(learn, self.lr)
    trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, max_epochs=100,
                      enable_model_summary=False, accelerator='cpu')
    finder = Tuner(trainer).lr_find(Module(), train_dataloaders=learn.dls.train, update_attr=False)
    return finder.suggestion(),len(finder.results['lr'])

finders = {'torch-lr-finder':torch_lr_finder, 'Lightning':lightning}

# Optimisers without a learning rate to choose

class TrainMode(Callback):
    "Tell a schedule-free optimiser whether the model is trained or evaluated."
    def before_train(self): self.opt.opt.train()
    def after_train(self): self.opt.opt.eval()

class Stop(Callback):
    "End the fit after `n_steps`."
    run_valid = False
    def __init__(self, n_steps): self.left = n_steps
    def after_batch(self):
        self.left -= 1
        if not self.left: raise CancelEpochException()
    def before_epoch(self):
        if self.left <= 0: raise CancelFitException()

def free_runs():
    "Return the optimisers by name: the class, its learning rate, and callbacks."
    from prodigyopt import Prodigy
    from schedulefree import AdamWScheduleFree
    return {'Prodigy at 1':(Prodigy, 1., []),
            'schedule-free AdamW':(AdamWScheduleFree, 0.0025, [TrainMode()])}

def score_of_free_run(task, name, seed, n_steps=300):
    "Train `n_steps` with the optimiser of this name, at its own default, and return the score."
    cls,lr,cbs = free_runs()[name]
    learn = tasks[task].learner(seed)
    learn.opt_func,learn.opt = partial(OptimWrapper, opt=cls),None
    n_epoch = math.ceil(n_steps/len(learn.dls.train))
    cbs = [*cbs, Stop(n_steps), NoValidation(), TerminateOnNaNCallback()]
    with learn.no_bar(), learn.no_logging(): learn.fit(n_epoch, lr, cbs=cbs)
    return points(learn)

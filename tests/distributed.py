"What test_distributed.py runs in two processes"
from fastai.vision.all import *
from fastai.distributed import *
from fastai_clrbeta.all import *
from fastai_clrbeta.learner import on_first

def weights(learn): return torch.cat([o.flatten().float() for o in learn.model.state_dict().values()])

def all_equal(learn, before): return torch.equal(weights(learn), before)

def new_learner():
    set_seed(0)
    dls = digits_dls(bs=32, size=8, seed=0, device='cpu')
    dls.train.n = 256
    convolution = nn.Conv2d(3,8,3,2,1), nn.BatchNorm2d(8), nn.ReLU()
    model = nn.Sequential(*convolution, nn.Flatten(), nn.Dropout(0.1), nn.Linear(8*16,10))
    return Learner(dls, model, opt_func=sgd, metrics=accuracy, path='.')

def range_test(learn, *args, **kwargs):
    "What both processes must find, and whether the weights are as before"
    before = weights(learn)
    r = learn.lr_find_val(*args, show_plot=False, **kwargs)
    return dict(steps=len(r.df), stopped=r.stopped, df=r.df.to_numpy().tolist(), found=repr(r.found),
                trials=r.trials.to_numpy().tolist(), why=r.why, same=all_equal(learn, before))

class Hypers(Callback):
    "Rate and momentum of each step"
    def before_fit(self): self.seen = []
    def before_step(self):
        last = self.opt.hypers[-1]
        self.seen.append((last['lr'], last['mom']))

class Explode(Callback):
    "On one process only, which is enough"
    order = -11
    def after_loss(self):
        if rank_distrib() == 1 and self.training and (self.epoch,self.iter) == (1,1):
            self.learn.loss = self.learn.loss*float('nan')

def end_of_run(learn, **kwargs):
    values = list(learn.recorder.values[-1])
    return dict(weights=[o.tolist() for o in learn.model.parameters()], values=values, **kwargs)

def interrupt(): raise KeyboardInterrupt

def error_of_first():
    "The error that an interrupt of the first process alone raises in this one"
    try: on_first(interrupt)
    except BaseException as e: return repr(e)

def search_and_train(learn):
    full = range_test(learn, 1e-4, 1, 100, stop_div=False, trials=False)
    diverging = range_test(learn, 1e-2, 1e3, 60, trials=[1e6,0.05])
    hypers,guard = Hypers(),DivergenceGuard()
    learn.fit_clr_beta(0.1, cycle_len=2, use_clr_beta=(10,10,0.95,0.8), cbs=hypers)
    fitted = end_of_run(learn, hypers=hypers.seen)
    before = weights(learn)
    with learn.no_trace(): learn.fit_clr_beta(0.1)
    no_trace = all_equal(learn, before)
    learn.fit_clr_beta(0.1, cycle_len=2, cbs=[guard, Explode()], on_diverge='stop', best_save_name='best',
                       checkpoint='run')
    stopped = end_of_run(learn, report=repr(guard.report))
    return dict(full=full, diverging=diverging, fit=fitted, no_trace=no_trace, stopped=stopped,
                interrupted=error_of_first())

def main():
    "Search and train, and write down what came of it"
    learn = new_learner()
    with learn.distrib_ctx(sync_bn=False, cpu=True):
        rank,n = rank_distrib(),num_distrib()
        res = dict(rank=rank, world=n, **search_and_train(learn))
        Path(f'rank{rank}.json').write_text(json.dumps(res), encoding='utf-8')

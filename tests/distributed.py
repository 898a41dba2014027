"Run by test_distributed.py as one of two processes: search and train, and print what came of it"
from fastai.vision.all import *
from fastai.distributed import *
from fastai_clrbeta.all import *

set_seed(0)
dls = digits_dls(bs=32, size=8, seed=0, device='cpu')
dls.train.n = 256
model = nn.Sequential(nn.Conv2d(3,8,3,2,1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(8*16,10))
learn = Learner(dls, model, opt_func=sgd, metrics=accuracy, path='.')
weights = lambda: torch.cat([o.flatten().float() for o in learn.model.state_dict().values()])

with learn.distrib_ctx(sync_bn=False):
    rank,n = rank_distrib(),num_distrib()
    before = weights()
    res = {}
    for name,args in dict(full=(1e-4, 1, 100), diverging=(1e-2, 1e3, 60)).items():
        r = learn.lr_find_val(*args, stop_div=name=='diverging', show_plot=False)
        res[name] = dict(steps=len(r.df), stopped=r.stopped, df=r.df.to_numpy().tolist(), found=repr(r.found),
                         same=torch.equal(before, weights()))
    watch = []
    class Watch(Callback):
        def before_step(self): watch.append((self.opt.hypers[-1]['lr'], self.opt.hypers[-1]['mom']))
    learn.fit_clr_beta(0.1, cycle_len=2, use_clr_beta=(10,10,0.95,0.8), cbs=Watch())
    def state(**kwargs): return dict(weights=[o.tolist() for o in learn.model.parameters()], values=list(learn.recorder.values[-1]), **kwargs)
    res['fit'] = state(hypers=watch)
    before = weights()
    with learn.no_trace(): learn.fit_clr_beta(0.1)
    res['no_trace'] = torch.equal(before, weights())
    guard = DivergenceGuard()
    class Explode(Callback):
        "On one process only, which is enough"
        order = -11
        def after_loss(self):
            if rank == 1 and self.training and (self.epoch,self.iter) == (1,1): self.learn.loss = self.learn.loss*float('nan')
    learn.fit_clr_beta(0.1, cycle_len=2, cbs=[guard, Explode()], on_diverge='stop', best_save_name='best', checkpoint='run')
    res['stopped'] = state(report=repr(guard.report))
Path(f'rank{rank}.json').write_text(json.dumps(dict(rank=rank, world=n, **res)))

"""What `.ci/oldest` tries: `range_test`; or `fit NAME [STEP]`, a run that resumes its checkpoint NAME,
writes its weights into NAME.weights, and is killed in training step STEP"""
import os, signal, sys
from fastai_clrbeta.all import *

class KillAt(Callback):
    "Kill this process in training step `kill_step`, after its checkpoint has been written."
    order = 2000
    def after_batch(self):
        if self.training and self.train_iter == kill_step: os.kill(os.getpid(), signal.SIGKILL)

def learner():
    set_seed(0, reproducible=True)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 10))
    return Learner(digits_dls(bs=128, size=8), model, opt_func=sgd, metrics=accuracy, path='.', cbs=KillAt())

def range_test():
    learn = learner()
    before = [o.clone() for o in learn.model.parameters()]
    with learn.no_bar(): print(learn.lr_find_val(num_it=40))
    assert all(map(torch.equal, before, learn.model.parameters()))

def fit(name):
    learn = learner()
    with learn.no_bar(): learn.fit_clr_beta(0.1, cycle_len=3, checkpoint=name, every_iter=1, resume=True)
    weights = [o.numpy().tobytes() for o in learn.model.state_dict().values()]
    Path(f'{name}.weights').write_bytes(b''.join(weights))

job,*args = sys.argv[1:]
kill_step = int(args.pop()) if len(args) > 1 else None
{'range_test':range_test, 'fit':fit}[job](*args)

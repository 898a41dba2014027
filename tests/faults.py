"""Runs that are really killed, for test_resume.py: `python faults.py kill N folder | disk_full folder | read_only folder`.
Everything is imported once, and each run is a fork of that, so that twenty of them take seconds"""
import json, os, random, resource, signal, sys, time, warnings
warnings.simplefilter('ignore', FutureWarning)
from contextlib import redirect_stdout
from fastai_clrbeta.all import *

torch.set_num_threads(1)
x,y = torch.linspace(-1, 1, 96*3*8*8).view(96,3,8,8),torch.arange(96)%4

class Noisy:
    "Items that are another at each look"
    def __len__(self): return len(x)
    def __getitem__(self, i): return x[i] + 0.1*torch.randn(3,8,8)*random.random() + np.random.rand(),y[i]

def learner(folder, cbs=None, **kwargs):
    set_seed(0, reproducible=True)
    dls = DataLoaders(DataLoader(Noisy(), bs=16, shuffle=True), DataLoader(Noisy(), bs=32))
    model = nn.Sequential(nn.Conv2d(3,8,3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(8*36,4))
    cbs = [SaveModelCallback(fname='best_loss'), EarlyStoppingCallback(patience=10), *L(cbs)]
    return Learner(dls, model, loss_func=CrossEntropyLossFlat(), opt_func=sgd, metrics=accuracy, path=folder, cbs=cbs, **kwargs)

def train(learn, **kwargs):
    kwargs = dict(checkpoint='run', every_iter=1, best_save_name='best', use_clr_beta=(10,13.68,0.95,0.8)) | kwargs
    with learn.no_bar(), learn.no_logging(), redirect_stdout(open(os.devnull, 'w')):
        learn.fit_clr_beta(0.1, 2, cycle_len=2, wds=1e-3, **kwargs)

def outcome(learn):
    "All that must be equal between two runs"
    rec = learn.recorder
    weights = [o.numpy().tobytes().hex() for o in learn.model.state_dict().values()]
    return weights,[list(o) for o in rec.values],list(map(float, rec.losses)),rec.lrs,rec.hps

def forked(f, kill_after=None):
    "Run `f` in a process of its own, killed after so many seconds; its exit code, or minus its signal"
    pid = os.fork()
    if not pid:
        try: f(); code = 0
        except BaseException as e: print(repr(e), file=sys.stderr); code = 1
        os._exit(code)
    if kill_after is not None: time.sleep(kill_after); os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def run(folder, seed=None, **kwargs):
    learn = learner(folder)
    if seed is not None: set_seed(seed)  # the new process has random numbers of its own
    train(learn, **kwargs)
    (Path(folder)/'outcome.json').write_text(json.dumps(outcome(learn)))

def read(folder): return (Path(folder)/'outcome.json').read_text()

def kill(n, folder):
    "Kill `n` runs at random moments, go on with each until it is through, and compare with a run in peace"
    peace,folder = Path(folder)/'peace',Path(folder)
    t = time.time()
    assert forked(partial(run, peace)) == 0
    t,rng,res,i = time.time()-t,random.Random(0),[],0
    while len(res) < int(n):
        f,i = folder/str(i),i+1
        code = forked(partial(run, f), kill_after=rng.uniform(0, t))
        if code == 0: continue  # it was through already
        left = sorted(o.name for o in (f/'models').glob('*.ckpt')) if (f/'models').exists() else []
        kept = {'run.ckpt','run.prev.ckpt'} & set(left)  # killed in its first write, a run starts over, and must have the seed it had
        again = forked(partial(run, f, seed=i if kept else None, resume=True))
        res.append(dict(killed=code==-signal.SIGKILL, left=left, resumed=again==0, same=again==0 and read(f)==read(peace)))
    print(json.dumps(res))

def disk_full(folder):
    "From the second epoch on no file can grow beyond a kilobyte, as if the disk were full"
    class Full(Callback):
        def before_epoch(self):
            if self.epoch==1: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    learn = learner(folder)
    learn.remove_cbs([SaveModelCallback])  # it would die of a full disk
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        train(learn, cbs=Full(), every_iter=None, best_save_name=None)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,)*2)
    end = outcome(learn)
    learn = learner(folder)
    learn.remove_cbs([SaveModelCallback])
    train(learn, resume=True, every_iter=None, best_save_name=None)
    print(json.dumps(dict(epochs=len(end[1]), warned=[str(o.message) for o in w if 'no checkpoint' in str(o.message)],
                          same=outcome(learn)==end, left=sorted(o.name for o in (Path(folder)/'models').iterdir()))))

def read_only(folder):
    "A folder that can't be written in, from the start and from the second epoch on"
    class ReadOnly(Callback):
        def before_epoch(self):
            if self.epoch==1: os.chmod(self.path/'models', 0o555)
    train(learner(Path(folder)/'first'))  # whoever runs this then may not be able to read what is imported late
    os.chmod(folder, 0o777)
    if os.getuid()==0: os.setgid(65534); os.setuid(65534)  # nothing is read-only to root
    (Path(folder)/'models').mkdir()
    os.chmod(Path(folder)/'models', 0o555)
    learn = learner(folder)
    learn.remove_cbs([SaveModelCallback])
    before = [o.clone() for o in learn.model.parameters()]
    try: train(learn, best_save_name=None); error = None
    except ValueError as e: error = str(e)
    untouched = all(a.equal(b) for a,b in zip(before, learn.model.parameters())) and learn.opt is None
    os.chmod(Path(folder)/'models', 0o755)
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        train(learn, cbs=ReadOnly(), every_iter=None, best_save_name=None)
    print(json.dumps(dict(error=error, untouched=untouched, epochs=len(learn.recorder.values),
                          warned=[str(o.message) for o in w if 'no checkpoint' in str(o.message)])))

if __name__ == '__main__': globals()[sys.argv[1]](*sys.argv[2:])

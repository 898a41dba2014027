"""Runs that are really killed: `python faults.py kill N folder [processes]`, or `lengthened`,
`interrupted_writing`, `disk_full`, `read_only` and a folder.
Everything is imported once, and each run is a fork of that, so that twenty of them take seconds"""
import json, multiprocessing, os, random, resource, signal, socket, sys, time, warnings
warnings.simplefilter('ignore', FutureWarning)
from contextlib import nullcontext, redirect_stdout, suppress
from fastai.distributed import *
from fastai_clrbeta.all import *
from fastai_clrbeta.checkpoint import checkpoint_paths, read_checkpoint, write_checkpoint

torch.set_num_threads(1)
x,y = torch.linspace(-1, 1, 96*3*8*8).view(96,3,8,8),torch.arange(96)%4

class Noisy:
    "Items that are another at each look"
    def __len__(self): return len(x)
    def __getitem__(self, i): return x[i] + 0.1*torch.randn(3,8,8)*random.random() + np.random.rand(),y[i]

class OwnNoise(Noisy):
    "With random numbers of its own, too"
    def __init__(self): self.rngs = torch.Generator().manual_seed(1),np.random.default_rng(2)
    def __getitem__(self, i):
        a,b = super().__getitem__(i)
        return a + 0.1*torch.randn(3,8,8, generator=self.rngs[0]) + self.rngs[1].random(dtype=np.float32),b

class Net(Module):
    "Its layers are made in another order than they are used in: so is their sum over several processes, in DDP's first pass"
    def __init__(self): self.head,self.bn,self.conv = nn.Linear(8*36,4),nn.BatchNorm2d(8),nn.Conv2d(3,8,3)
    def forward(self, x): return self.head(F.dropout(self.bn(self.conv(x)).relu(), 0.3, self.training).flatten(1))

def learner(folder, cbs=None, dls=None, **kwargs):
    set_seed(0, reproducible=True)
    dls = dls() if dls else DataLoaders(DataLoader(Noisy(), bs=16, shuffle=True), DataLoader(Noisy(), bs=32))
    model = Net()
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

HUNG = 75
def hung(*_):
    "A loader worker that is forked beside gloo's threads can hang before its first line: end its process then, as a kill would"
    for o in multiprocessing.active_children(): o.kill()
    os._exit(HUNG)

def forked(f, kill_after=None, n=1, one=None, limit=120):
    """Run `f` in `n` processes of their own, of which all, or only number `one`, are killed after so many seconds. Their exit
    codes, or minus their signals. What has not ended five seconds after a kill is sent SIGTERM, as torchrun does at once"""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    pids = []
    for rank in range(n):
        pids.append(os.fork())
        if pids[-1]: continue
        signal.signal(signal.SIGALRM, hung)
        signal.alarm(limit)
        if n > 1: os.environ.update({k:str(v) for k,v in dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=n, MASTER_ADDR='127.0.0.1',
                                                               MASTER_PORT=port).items()})
        try: f(); code = 0
        except BaseException as e: print(repr(e), file=sys.stderr); code = 1
        os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        for pid in pids if one is None else [pids[one]]: os.kill(pid, signal.SIGKILL)
        for _ in range(50):
            if all(os.waitid(os.P_PID, o, os.WEXITED|os.WNOHANG|os.WNOWAIT) for o in pids): break
            time.sleep(0.1)
        for pid in pids: os.kill(pid, signal.SIGTERM)  # which one that has ended, and is not waited for yet, does not hear
    return [os.waitstatus_to_exitcode(os.waitpid(o, 0)[1]) for o in pids]

def run(folder, seed=0, dls=None, **kwargs):
    learn,rank = learner(folder, dls=dls),rank_distrib()
    if rank or seed: set_seed(100*seed + rank)  # a new process has random numbers of its own
    with learn.distrib_ctx(sync_bn=False, cpu=True) if num_distrib() > 1 else nullcontext(): train(learn, **kwargs)
    (Path(folder)/f'outcome{rank}.json').write_text(json.dumps(outcome(learn)))

def read(folder): return [o.read_text() for o in sorted(Path(folder).glob('outcome*.json'))]

def kill(times, folder, n=1):
    """Kill so many runs in `n` processes at random moments, every other time only one of the processes; go on with each
    until it is through, and compare with a run in peace"""
    peace,folder,n = Path(folder)/'peace',Path(folder),int(n)
    t = time.time()
    assert forked(partial(run, peace), n=n) == [0]*n
    t,rng,res,i = time.time()-t,random.Random(0),[],0
    while len(res) < int(times):
        f,i = folder/str(i),i+1
        one = rng.randrange(n) if n > 1 and len(res)%2 else None
        codes = forked(partial(run, f), rng.uniform(0, t), n, one)
        if codes == [0]*n: continue  # it was through already
        left = sorted(o.name for o in (f/'models').glob('*.ckpt')) if (f/'models').exists() else []
        kept = {'run.ckpt','run.prev.ckpt'} & set(left)  # killed in its first write, a run starts over, and must have the seed it had
        again = forked(partial(run, f, seed=i if kept else 0, resume=True), n=n) == [0]*n
        res.append(dict(killed=-signal.SIGKILL in codes, left=left, resumed=again, same=again and read(f)==read(peace), codes=codes))
    print(json.dumps(res))

left = []  # steps until the kill: not in an attribute, which a checkpoint would hold
class Killed(Callback):
    order = 900  # before the checkpoint
    def __init__(self, n): left[:] = [n]
    def after_batch(self):
        left[0] -= self.training
        if left[0] == 0: os.kill(os.getpid(), signal.SIGKILL)

class Explode(Callback):
    "Diverge at the fifth step of a run of less than 8 epochs, on the last process alone"
    order = -11
    def after_loss(self):
        if rank_distrib() < num_distrib()-1 or not self.training or self.n_epoch > 7: return
        if self.epoch*self.n_iter+self.iter == 4: self.learn.loss = self.learn.loss*float('nan')

def lengthened(folder):
    "A run in two processes that is lengthened twice, and in which both processes or one of them are killed"
    def killed(n, one): return Killed(n) if one is None or rank_distrib() == one else None
    def go(f, n=0, one=None, **kwargs):
        run(f, on_diverge='lengthen', cbs=[Explode(), *L(killed(n, one))], **kwargs)
    peace,f = (Path(folder)/o for o in ('peace','killed'))
    codes = [forked(partial(go, peace), n=2)]
    for i,(n,one) in enumerate([(2,None),(4,1),(7,0)]):
        codes.append(forked(partial(go, f, n, one, seed=i, resume=i>0), n=2))
    codes.append(forked(partial(go, f, seed=9, resume=True), n=2))
    print(json.dumps(dict(codes=codes, same=read(f) == read(peace))))

def interrupted_writing(folder):
    "Ctrl-C at each Python function that writes a checkpoint. How many these are, and where no file was whole"
    train(learner(folder), every_iter=None)
    f,bad = Path(folder)/'models'/'run',[]
    content = read_checkpoint(checkpoint_paths(f)[0])
    for n in itertools.count(1):
        called = set()
        def interrupt(frame, event, arg):
            if event != 'call' or frame.f_code in called: return
            called.add(frame.f_code)
            if len(called) == n: raise KeyboardInterrupt
        with suppress(KeyboardInterrupt):
            sys.setprofile(interrupt)
            write_checkpoint(f, content)
        sys.setprofile(None)
        if not any(o.exists() and read_checkpoint(o) for o in checkpoint_paths(f)[:2]): bad.append(n)
        if len(called) < n: break
    print(json.dumps(dict(times=n, bad=bad)))

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
    print(json.dumps(dict(epochs=len(end[1]), warned=[str(o.message) for o in w if 'No checkpoint' in str(o.message)],
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
                          warned=[str(o.message) for o in w if 'No checkpoint' in str(o.message)])))

if __name__ == '__main__': globals()[sys.argv[1]](*sys.argv[2:])

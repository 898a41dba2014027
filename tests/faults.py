"""Runs that are really killed: `python faults.py kill N folder [processes]`, or `lengthened`, `readme`,
`interrupted_writing`, `disk_full`, `read_only` and a folder.
Each run is a fork of one process, which has imported everything, so that twenty of them take seconds"""
import json, multiprocessing, os, random, resource, shutil, signal, socket, sys, time, warnings
warnings.simplefilter('ignore', FutureWarning)
from contextlib import nullcontext, redirect_stdout, suppress
from fastai.distributed import *
from fastai_clrbeta.all import *
from fastai_clrbeta.learner import FitCallback
from fastai_clrbeta.checkpoint import checkpoint_paths, read_checkpoint, write_checkpoint
from conftest import recipe_of_readme
from helpers import CrashAt, Explode, images, nth, outcome, sigkill, weights

torch.set_num_threads(1)
labels = torch.arange(len(images))%4

class Noisy:
    "Items that are different at each look"
    def __len__(self): return len(images)
    def __getitem__(self, i):
        return images[i] + 0.1*torch.randn(3,8,8)*random.random() + np.random.rand(),labels[i]

class OwnNoise(Noisy):
    "The data set holds random numbers, too"
    def __init__(self): self.rngs = torch.Generator().manual_seed(1),np.random.default_rng(2)
    def __getitem__(self, i):
        x,y = super().__getitem__(i)
        of_torch,of_numpy = self.rngs
        return x + 0.1*torch.randn(3,8,8, generator=of_torch) + of_numpy.random(dtype=np.float32),y

class Net(Module):
    """Its layers are made in another order than they are used in. So is their sum over several processes,
    in DDP's first pass"""
    def __init__(self): self.head,self.bn,self.conv = nn.Linear(8*36,4),nn.BatchNorm2d(8),nn.Conv2d(3,8,3)
    def forward(self, x):
        x = self.bn(self.conv(x)).relu()
        return self.head(F.dropout(x, 0.3, self.training).flatten(1))

def noisy_dls(): return DataLoaders(DataLoader(Noisy(), bs=16, shuffle=True), DataLoader(Noisy(), bs=32))

def learner(folder, cbs=(), dls=noisy_dls, **kwargs):
    set_seed(0, reproducible=True)
    dls = dls()
    cbs = [SaveModelCallback(fname='best_loss'), EarlyStoppingCallback(patience=10), *L(cbs)]
    kwargs = dict(loss_func=CrossEntropyLossFlat(), opt_func=sgd, metrics=accuracy) | kwargs
    return Learner(dls, Net(), path=folder, cbs=cbs, **kwargs)

def train(learn, **kwargs):
    kwargs = dict(cycle_len=2, checkpoint='run', every_iter=1, best_save_name='best') | kwargs
    with (open(os.devnull, 'w', encoding='utf-8') as null, redirect_stdout(null), learn.no_bar(),
          learn.no_logging()):
        learn.fit_clr_beta(0.1, 2, wds=1e-3, use_clr_beta=(10,13.68,0.95,0.8), **kwargs)

# Processes
HUNG = 75
def hung(*_):
    """A loader worker that is forked beside gloo's threads can hang before its first line. End its process
    then, as a kill would"""
    for o in multiprocessing.active_children(): o.kill()
    os._exit(HUNG)

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def torchrun_env(rank, n, port):
    "The variables that torchrun sets"
    env = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=n, MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    return {k:str(v) for k,v in env.items()}

def in_fork(f, limit, env):
    "What a new fork does: call `f`, for at most `limit` seconds, and end"
    signal.signal(signal.SIGALRM, hung)
    signal.alarm(limit)
    os.environ.update(env)
    code = 0
    try: f()
    except BaseException as e:
        print(repr(e), file=sys.stderr)
        code = 1
    sys.stdout.flush()
    os._exit(code)

def kill_after_seconds(seconds, pids, struck):
    """Kill the processes `struck`. What has not ended five seconds after it is sent SIGTERM, as torchrun does
    at once"""
    time.sleep(seconds)
    for pid in struck: os.kill(pid, signal.SIGKILL)
    for _ in range(50):
        if all(os.waitid(os.P_PID, o, os.WEXITED|os.WNOHANG|os.WNOWAIT) for o in pids): break
        time.sleep(0.1)
    for pid in pids: os.kill(pid, signal.SIGTERM)  # this does nothing to a process that has ended

def forked(f, kill_after=None, n=1, one=None, limit=120):
    """Run `f` in `n` forks. Kill all, or only number `one`, after so many seconds, unless it is None. Return
    their exit codes, or minus their signals"""
    port = free_port()
    pids = []
    for rank in range(n):
        pids.append(os.fork())
        if pids[-1] == 0: in_fork(f, limit, torchrun_env(rank, n, port) if n > 1 else {})
    if kill_after is not None: kill_after_seconds(kill_after, pids, pids if one is None else [pids[one]])
    return [os.waitstatus_to_exitcode(os.waitpid(o, 0)[1]) for o in pids]

def run(folder, seed=0, **kwargs):
    "Train, or resume, and write down the outcome"
    learn,rank = learner(folder),rank_distrib()
    if rank or seed: set_seed(100*seed + rank)  # each new process has other random numbers
    together = learn.distrib_ctx(sync_bn=False, cpu=True) if num_distrib() > 1 else nullcontext()
    with together: train(learn, **kwargs)
    (Path(folder)/f'outcome{rank}.json').write_text(json.dumps(outcome(learn)), encoding='utf-8')

def read(folder): return [o.read_text(encoding='utf-8') for o in sorted(Path(folder).glob('outcome*.json'))]

# The faults
def kill_and_resume(folder, i, n, one, seconds, whole):
    """Kill run number `i` after so many seconds, and resume it. Return what came of it, or None if it was
    through already"""
    train_once = partial(run, folder, cycle_len=1)
    codes = forked(train_once, seconds, n, one)
    if codes == [0]*n: return
    models = folder/'models'
    left = sorted(o.name for o in models.glob('*.ckpt')) if models.exists() else []
    # a run that is killed in its first write starts over, and must have the seed it had
    seed = i if {'run.ckpt','run.prev.ckpt'} & set(left) else 0
    again = forked(partial(train_once, seed=seed, resume=True), n=n) == [0]*n
    same = again and read(folder) == read(whole)
    return dict(killed=-signal.SIGKILL in codes, left=left, resumed=again, same=same, codes=codes)

def kill(times, folder, n=1):
    """Kill so many runs in `n` processes at random moments, every other time only one of the processes.
    Resume each until it is through, and compare it with a run that is left alone"""
    times,folder,n = int(times),Path(folder),int(n)
    whole = folder/'whole'
    start = time.time()
    assert forked(partial(run, whole, cycle_len=1), n=n) == [0]*n
    seconds = time.time()-start
    rng,results = random.Random(0),[]
    for i in itertools.count(1):
        if len(results) == times: break
        one = rng.randrange(n) if n > 1 and len(results)%2 else None
        kill_at = rng.uniform(0, seconds if n == 1 else 0.7*seconds)  # later, one of them may have ended
        result = kill_and_resume(folder/str(i), i, n, one, kill_at, whole)
        if result: results.append(result)
    print(json.dumps(results))

def lengthened_run(folder, steps=None, one=None, **kwargs):
    "Kill the process, or number `one`, after so many batches, before the checkpoint"
    struck = steps and one in (None, rank_distrib())
    crash = CrashAt('after_batch', how=nth(steps, sigkill), order=900) if struck else None
    run(folder, cycle_len=1, on_diverge='lengthen', cbs=[Explode(fewer_than=5), *L(crash)], **kwargs)

def lengthened(folder):
    "A run in two processes that is lengthened twice, and in which both processes or one of them are killed"
    whole,struck = (Path(folder)/o for o in ('whole','struck'))
    def go(*args, **kwargs): return forked(partial(lengthened_run, *args, **kwargs), n=2)
    codes = [go(whole)]
    for i,(steps,one) in enumerate([(2,None),(4,1),(7,0)]):
        codes.append(go(struck, steps, one, seed=i, resume=i>0))
    codes.append(go(struck, seed=9, resume=True))
    print(json.dumps(dict(codes=codes, same=read(struck) == read(whole))))

class InterruptCall:
    "As a profiler, press Ctrl-C when Python enters the `n`th function"
    def __init__(self, n): self.n,self.called = n,set()
    def __call__(self, frame, event, arg):
        if event != 'call' or frame.f_code in self.called: return
        self.called.add(frame.f_code)
        if len(self.called) == self.n: raise KeyboardInterrupt

class KilledInEpoch3(FitCallback):
    "SIGKILL in the middle of epoch 3 of a fit, and not in a range test"
    order,keeps_state = 900,False
    def after_batch(self):
        if self.training and (self.epoch, self.iter) == (3, 5): os.kill(os.getpid(), signal.SIGKILL)

def run_readme(folder, seed, kill=False):
    "Run the script of README.md in `folder`, with a seed and a checkpoint. Keep what it prints"
    script = recipe_of_readme(4, ", checkpoint='run', resume=True")
    assert 'fit_clr_beta(found, ' in script
    Path(folder).mkdir(exist_ok=True)
    os.chdir(folder)
    if kill: defaults.callbacks.append(KilledInEpoch3)
    sys.modules['fastai_clrbeta.lr_find'].trial_steps = 12  # short trials
    names = {}
    with open(f'told_{seed}.txt', 'w', encoding='utf-8') as told, redirect_stdout(told):
        exec(script.replace('import *\n', f'import *\nset_seed({seed})\n', 1), names)
    Path('outcome0.json').write_text(json.dumps(outcome(names['learn'])), encoding='utf-8')

def readme(folder):
    "The script of README.md in peace, killed, and started again with the same seed and with another one"
    folder = Path(folder)
    peace,struck,other = (folder/o for o in ('peace','same_seed','other_seed'))
    codes = dict(peace=forked(partial(run_readme, peace, 0)))
    codes['killed'] = forked(partial(run_readme, struck, 0, True))
    shutil.copytree(struck, other)
    for seed,f in enumerate((struck, other)): codes[f.name] = forked(partial(run_readme, f, seed))
    printed = {f.name:f/f'told_{seed}.txt' for seed,f in enumerate((struck, other))}
    told = {name:file.read_text(encoding='utf-8') for name,file in printed.items()}
    same = {f.name:read(f) == read(peace) for f in (struck, other)}
    print(json.dumps(dict(codes={k:code for k,[code] in codes.items()}, told=told, same=same)))

def interrupted_writing(folder):
    "Ctrl-C at each Python function that writes a checkpoint. How many these are, and where no file was whole"
    train(learner(folder), every_iter=None, cycle_len=1)
    path,bad = Path(folder)/'models'/'run',[]
    content = read_checkpoint(checkpoint_paths(path)[0])
    for n in itertools.count(1):
        interrupt = InterruptCall(n)
        with suppress(KeyboardInterrupt):
            sys.setprofile(interrupt)
            write_checkpoint(path, content)
        sys.setprofile(None)
        if not any(o.exists() and read_checkpoint(o) for o in checkpoint_paths(path)[:2]): bad.append(n)
        if len(interrupt.called) < n: break
    print(json.dumps(dict(times=n, bad=bad)))

def without_best(folder):
    "A Learner without the callback that would die of a full disk"
    learn = learner(folder)
    learn.remove_cbs([SaveModelCallback])
    return learn

def warned_of(f):
    "Return the warnings of the call `f()` that say that there is no checkpoint."
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        f()
    return [str(o.message) for o in w if 'No checkpoint' in str(o.message)]

class Full(Callback):
    def before_epoch(self):
        if self.epoch == 1: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))

def disk_full(folder):
    "From the second epoch on no file can grow beyond a kilobyte, as if the disk were full"
    each_epoch = dict(every_iter=None, best_save_name=None)
    learn = without_best(folder)
    warned = warned_of(lambda: train(learn, cbs=Full(), **each_epoch))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,)*2)
    again = without_best(folder)
    train(again, resume=True, **each_epoch)
    left = sorted(o.name for o in (Path(folder)/'models').iterdir())
    print(json.dumps(dict(epochs=len(learn.recorder.values), warned=warned,
                          same=outcome(again) == outcome(learn), left=left)))

class ReadOnly(Callback):
    def before_epoch(self):
        if self.epoch == 1: os.chmod(self.path/'models', 0o555)

def read_only(folder):
    "A folder that can't be written in, from the start and from the second epoch on"
    folder = Path(folder)
    each_epoch = dict(every_iter=None, best_save_name=None)
    train(learner(folder/'first'))  # whoever runs this then may not be able to read what is imported late
    os.chmod(folder, 0o777)
    if os.getuid() == 0:  # nothing is read-only to root
        os.setgid(65534)
        os.setuid(65534)
    (folder/'models').mkdir()
    os.chmod(folder/'models', 0o555)
    learn = without_best(folder)
    before = weights(learn)
    error = None
    try: train(learn, best_save_name=None)
    except ValueError as e: error = str(e)
    untouched = weights(learn) == before and learn.opt is None
    os.chmod(folder/'models', 0o755)
    warned = warned_of(lambda: train(learn, cbs=ReadOnly(), **each_epoch))
    epochs = len(learn.recorder.values)
    print(json.dumps(dict(error=error, untouched=untouched, epochs=epochs, warned=warned)))

if __name__ == '__main__': globals()[sys.argv[1]](*sys.argv[2:])

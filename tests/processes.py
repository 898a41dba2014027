"Run functions in new processes that are forked from one process, which has imported fastai already"
import json, multiprocessing, os, runpy, sys, tempfile, warnings
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

forks = 'forkserver' in multiprocessing.get_all_start_methods()
context = multiprocessing.get_context('forkserver' if forks else 'spawn')
imported = 'fastai.vision.all', 'fastai.tabular.all', 'fastai.text.all', 'fastai_clrbeta.all', 'nbdev.test'
if forks: context.set_forkserver_preload([*imported])

def prepare_torch():
    "Let torch lose no time"
    import torch
    # the seconds that it waits for a loader worker that does not end by itself
    torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.5
    if torch.cuda.is_available(): return
    torch.cuda.manual_seed_all = lambda seed: None  # it would only note the calls that led to it
    os.environ['CUDA_VISIBLE_DEVICES'] = ''  # or torch looks for a driver when random numbers are saved

def call(f, args, folder, output, start_method):
    "Call `f(*args)` in this new process, in `folder`, and write what it prints to `output`"
    fd = output.fileno() if hasattr(output, 'fileno') else os.open(output, os.O_WRONLY|os.O_CREAT)
    for standard in 1,2: os.dup2(fd, standard)
    sys.stdout,sys.stderr = (open(o, 'w', buffering=1, encoding='utf-8', closefd=False) for o in (1,2))
    if folder: os.chdir(folder)
    multiprocessing.set_start_method(start_method, force=True)  # that of loader workers
    os.fsync = lambda fd: None  # as in conftest.py
    prepare_torch()
    warnings.simplefilter('ignore')
    f(*args)

def start(f, args, folder, output):
    process = context.Process(target=call, args=(f, args, folder, output, multiprocessing.get_start_method()))
    process.start()
    return process

def ends(terminal):
    "The two ends of a pipe, or of a terminal: the one to read from and the one to write to"
    if not terminal: return context.Pipe(duplex=False)
    import pty
    return map(Connection, pty.openpty())

def read_all(connection):
    "Return all that is written at the other end until it is closed."
    text = b''
    while True:
        try: new = os.read(connection.fileno(), 65536)
        except OSError: break  # the other end of a terminal is closed
        if not new: break
        text += new
    return text.decode(errors='replace')

def run_to_file(f, args, folder):
    "As `run`, on Windows, where a new process can't be given a pipe to print to"
    with tempfile.TemporaryDirectory() as tmp:
        output = Path(tmp)/'output'
        process = start(f, args, folder, output)
        process.join()
        return process.exitcode,output.read_text(encoding='utf-8', errors='replace')

def run(f, *args, folder=None, terminal=False):
    "Call `f(*args)` in a new process, in a terminal or a pipe. Return its exit code and what it wrote."
    if not forks: return run_to_file(f, args, folder)
    reader,writer = ends(terminal)
    process = start(f, args, folder, writer)
    writer.close()
    text = read_all(reader)
    reader.close()
    process.join()
    return process.exitcode,text

# What the new processes do
def run_script(file, *args):
    "Run a script with these arguments."
    sys.argv = [*map(str, (file, *args))]
    runpy.run_path(sys.argv[0], run_name='__main__')

def in_two(f, *args):
    "Call `f(*args)` in two processes, connected as torchrun connects them."
    import faults  # it needs fork
    os.environ['ACCELERATE_USE_CPU'] = '1'
    sys.exit(any(faults.forked(partial(f, *args), n=2, limit=300)))

def call_fault(name, args):
    import faults
    getattr(faults, name)(*args)

def fault(name, *args):
    "Return what a function of faults.py prints, in a process of its own."
    code,output = run(call_fault, name, args)
    assert code == 0, output[-3000:]
    return json.loads(output.splitlines()[-1])

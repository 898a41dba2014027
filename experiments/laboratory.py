"""What a run is, and the laboratory that trains it and keeps its log.

A run is known by a hash of its whole configuration, the images included. The laboratory keeps two working
files for each run, whose names end in the hash: a CSV with a row per epoch (of a range test, per step), and a
JSON with the configuration and the package versions at each start. `log_tables.py` merges them into tables. A
run that is in the tables is not run again.
"""
from fastai_clrbeta.all import *
from fastai_clrbeta.cli import EpochCSV, versions
from dataclasses import asdict, dataclass, fields, replace
from filelock import FileLock, Timeout
from log_tables import LogTables, committed, hash_of, working_files
import hashlib, json

precisions = 'fp32','bf16','fp16'

# Schedules. `fit_clr_beta` runs and resumes all of them

class Constant(CLRBeta):
    "The same learning rate at every step"
    def lr_at(self, i, nb): return 1.

class Steps(CLRBeta):
    "A tenth of the learning rate after half of the steps, a hundredth after three quarters"
    def lr_at(self, i, nb):
        if i < nb/2:   return 1.
        if i < nb*3/4: return 0.1
        return 0.01

schedules = dict(cycle=CLRBeta, constant=Constant, steps=Steps)

# Configurations. The names of these classes and of their fields are part of the hash

@dataclass(frozen=True)
class Setup:
    "Network and data"
    depth:int=20
    shortcut:str='pool'
    preact:bool=False
    bs:int=128
    wd:float=1e-4
    augment:bool=False
    n_train:int|None=10_000 # Training images. None: all of them
    valid:str|float='test'  # Folder to validate on, or the fraction of the training images to hold out for it
    seed:int=0              # Seed for the images drawn, the first weights and the order of batches

    @property
    def network(self):
        preact,augment = ('_preact' if self.preact else ''),('_augment' if self.augment else '')
        return f'resnet{self.depth}{self.shortcut}{preact}{augment}'

    @property
    def label(self):
        return f"{self.network}_{f'{self.n_train//1000}k' if self.n_train else 'all'}"

    @property
    def ending(self):
        return f"{'' if self.valid == 'test' else '_heldout'}_seed{self.seed}"

@dataclass(frozen=True)
class Run(Setup):
    "One training run"
    schedule:str='cycle'
    lr:float=0.8
    epochs:int=15
    mom:tuple=(0.95,0.8) # Highest and lowest momentum; the same twice is constant
    div:float=10
    pct:float=13.68

    @property
    def name(self):
        return f'{self.label}_{self.schedule}_{self.lr:g}_{self.epochs}epochs{self.ending}'

    @property
    def n_rows(self): return self.epochs

    def use_clr_beta(self):
        "Return the schedule as `fit_clr_beta` takes it."
        return schedules[self.schedule](self.div, self.pct, *self.mom)

@dataclass(frozen=True)
class RangeTest(Setup):
    "One range test"
    n_train:int|None=None
    start_lr:float=1e-4
    end_lr:float=10
    num_it:int=200
    linear:bool=False

    @property
    def name(self):
        kind = 'linear' if self.linear else 'exponential'
        return f'{self.label}_range_{kind}_{self.end_lr:g}_{self.num_it}steps_wd{self.wd:g}{self.ending}'

    @property
    def n_rows(self): return self.num_it

settings_of_a_run = {field.name for kind in (Run,RangeTest) for field in fields(kind)}

# Reading logs

class Archive:
    "Reads the logs that were made in one setting, such as precision='bf16', from tables; it trains nothing"
    def __init__(self, tables, **setting):
        self.tables = LogTables(tables)
        config = first(o for o in self.tables.configs.values() if setting.items() <= o.items())
        if config is None: raise FileNotFoundError(f'{tables} has no log with {setting}.')
        self.setting = {k:v for k,v in config.items() if k not in {'kind', 'sittings', *settings_of_a_run}}

    def trim(self, run): return run

    def config(self, run):
        "Return the whole configuration of `run`."
        run = self.trim(run)
        return dict(kind=type(run).__name__, **asdict(run), **self.setting)

    def stem(self, run):
        "Return the name of the log of `run`, which no other configuration has."
        return f'{self.trim(run).name}_{hash_of(self.config(run))}'

    def df(self, run):
        "Return the log of `run` as far as it got, or None if there is none."
        return self.tables.df(hash_of(self.config(run)))

    def n_rows(self, run):
        df = self.df(run)
        return 0 if df is None else len(df)

    def done(self, run): return self.n_rows(run) == self.trim(run).n_rows

    def all(self, runs):
        "Raise `FileNotFoundError` if one of `runs` is not there, or not to its end."
        for run in runs:
            if not self.done(run):
                raise FileNotFoundError(f'{self.tables.folder} does not have {self.stem(run)} to its end.')

# Training

def fingerprint(dls):
    "Return a hash of all images and their classes, in order."
    images = hashlib.sha256()
    for dl in dls.loaders:
        for rows in dl.mem:
            images.update(f'{tuple(rows.shape)} {rows.dtype}'.encode())
            images.update(rows.numpy().tobytes())
    return images.hexdigest()[:16]

def write_json(file, content):
    "Write `content` so that a kill leaves the old file or the new one."
    tmp = file.with_suffix('.tmp')
    tmp.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
    os.replace(tmp, file)

def print_row(cells):
    print('  ', *[f'{cell:.4f}' if isinstance(cell, float) else cell for cell in cells], flush=True)

class WholeCSV(EpochCSV):
    "An `EpochCSV` that is written beside the log and then takes its place: a kill leaves a whole log"
    def write(self):
        super().write()
        os.replace(self.fname, self.fname.with_suffix('.csv'))

class Laboratory(Archive):
    "Trains the runs that are not done yet, and reads those that are"
    def __init__(self,
        data,                # Folder of CIFAR-10. None: fastai's own copy
        working=None,        # Folder of working files and checkpoints. None: working/protocol2 beside this
        tables=None,         # Folder of tables: what they have is not run again. None: results/protocol2
        device=None,         # None: fastai's default device
        precision='fp32',    # One of `precisions`
        compiled=False,      # Compile the network?
        **overrides          # Settings that replace those of every run, for a trial
    ):
        if precision not in precisions:
            raise ValueError(f"precision={precision!r}: must be one of {', '.join(precisions)}.")
        self.data,self.overrides,self.tables = data,overrides,LogTables(tables or committed)
        self.device = str(default_device() if device is None else device)
        images = fingerprint(cifar10_dls(data, bs=1, device='cpu'))
        self.setting = dict(data=images, optimiser='SGD with momentum, L2 on all parameters',
                            memory='channels last', precision=precision,
                            device=torch.device(self.device).type, compiled=compiled)
        self.working = Path(working or working_files)
        self.checkpoints = self.working/'checkpoints'
        self.checkpoints.mkdir(parents=True, exist_ok=True)

    def trim(self, run):
        "Return `run` with the overrides of this laboratory."
        return replace(run, **{k:v for k,v in self.overrides.items() if hasattr(run, k)})

    def file(self, run): return self.working/f'{self.stem(run)}.csv'

    def df(self, run):
        "Return the working file or, if that has more rows, what the tables have."
        merged,file = super().df(run),self.file(run)
        if not file.exists(): return merged
        df = pd.read_csv(file)
        return df if merged is None or len(df) >= len(merged) else merged

    def checkpoint_files(self, run): return list(self.checkpoints.glob(f'{self.stem(run)}.*ckpt'))

    def learner(self, run):
        "Return a new Learner. The same seed gives the same images, first weights and order of batches."
        set_seed(run.seed, reproducible=True)
        dls = cifar10_dls(self.data, run.bs, run.valid, run.augment, self.device, run.seed, run.n_train)
        model = cifar_resnet(run.depth, len(dls.vocab), shortcut=run.shortcut, preact=run.preact)
        if self.setting['compiled']:
            torch.compiler.reset()  # torch stops compiling after a number of networks
            model.compile()
        learn = Learner(dls, model, opt_func=sgd, metrics=accuracy, cbs=ChannelsLast(),
                        path=self.working, model_dir='checkpoints')
        learn.to_precision(self.setting['precision'])
        learn.logger = print_row
        return learn

    def all(self, runs):
        "Run what no other process is running, then wait for the others. Then name the runs that failed."
        for wait in (False,True):
            failed = {}
            for run in runs:
                try: self.run(run, wait)
                except (RuntimeError,ValueError) as e: failed[self.stem(run)] = e
        if failed:
            hint = f'To start a run over, move its checkpoint out of {self.checkpoints}.'
            raise SystemExit('\n'.join([*[f'{stem}: {e}' for stem,e in failed.items()], hint]))

    def run(self, run, wait=False):
        "Finish `run`, unless another process is running it. If `wait`, wait for that process first."
        lock = FileLock(self.checkpoints/f'{self.stem(run)}.lock', timeout=-1 if wait else 0)
        try:
            with lock: self._finish(run)
        except Timeout: pass

    def _finish(self, run):
        if not self.done(run): self._start(self.trim(run))
        if not self.done(run):
            raise RuntimeError(f'{self.file(run)} lacks some of its rows. Its checkpoint is kept.')
        for file in self.checkpoint_files(run): file.unlink(missing_ok=True)

    def _start(self, run):
        learn = self.learner(run)
        print(self.stem(run), flush=True)
        self._record_start(run)
        with learn.no_bar():
            if isinstance(run, RangeTest): self._search(learn, run)
            else: self._train(learn, run)

    def _record_start(self, run):
        file = self.file(run).with_suffix('.json')
        sittings = json.loads(file.read_text(encoding='utf-8'))['sittings'] if file.exists() else []
        gpu = torch.cuda.get_device_name(self.device) if self.device.startswith('cuda') else None
        write_json(file, self.config(run) | dict(sittings=[*sittings, versions() | dict(gpu=gpu)]))

    def _search(self, learn, run):
        "Run a range test. It is short: if it is cut off, it starts over."
        learn.lr_find_val(start_lr=run.start_lr, end_lr=run.end_lr, num_it=run.num_it, linear=run.linear,
                          wd=run.wd, stop_div=False, show_plot=False, bn='both')
        file = self.file(run)
        learn.lr_find_result.to_csv(file.with_suffix('.tmp'))
        os.replace(file.with_suffix('.tmp'), file)

    def _train(self, learn, run):
        file = self.file(run)
        if file.exists() and not self.checkpoint_files(run): self._set_aside(file)
        learn.fit_clr_beta(run.lr, cycle_len=run.epochs, wds=run.wd, use_clr_beta=run.use_clr_beta(),
                           cbs=WholeCSV(file.with_suffix('.tmp')), checkpoint=file.stem, every_iter=50,
                           resume=True)

    def _set_aside(self, file):
        "Keep a log that cannot be continued, since its checkpoint is gone: as `.partial1`, `.partial2`, …"
        names = (file.with_suffix(f'.partial{k}') for k in itertools.count(1))
        os.replace(file, first(o for o in names if not o.exists()))

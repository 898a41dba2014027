"""Leslie Smith's own range test, at its own scale: ResNet-56 on CIFAR-10, batches of 512.

    python experiments/range_test.py                 # 14 tests, of about ten minutes each on two cores
    python experiments/range_test.py --only conv     # those whose names begin so
    python experiments/range_test.py --trial         # all at a small size, to see that it works

Stop it whenever you like: the same command goes on with the test that was stopped. It ends with a table of
where each curve turns, without lag, and of where the training loss explodes.
"""
from fastai.basics import *
from fastai_clrbeta.peak import read_curve
from fastcore.script import call_parse
from laboratory import Laboratory, working_files
from superconvergence import tests_of_2018

curves = dict(train_loss='training loss', valid_loss='validation loss', accuracy='accuracy',
              valid_loss_batch='validation loss, own statistics', accuracy_batch='accuracy, own statistics')

def turns(df):
    "Return the learning rate at which each curve of a test turns, without lag, and where the loss explodes."
    rates = {}
    for column,name in curves.items():
        curve = df[f'{column}_centred']
        rates[name] = df.lr[curve.idxmin() if 'loss' in column else curve.idxmax()]
    return rates | {'explodes from': read_curve(df.lr, df.train_loss, len(df)).explodes}

def between(rates):
    "Return the median and, of several, the lowest and the highest, in words."
    rates = rates.dropna()
    if not len(rates): return 'none'
    text = f'{rates.median():.2g}'
    return text if len(rates) == 1 else f'{text} ({rates.min():.2g} to {rates.max():.2g})'

def turning_points(tests):
    "Return a row for each of `tests`, lists of logs by name."
    rows = []
    for name,logs in tests.items():
        rates = pd.DataFrame([turns(df) for df in logs], dtype=float)
        rows.append({'test':name, 'n':len(logs)} | {curve:between(rates[curve]) for curve in rates})
    return pd.DataFrame(rows)

@call_parse
def main(
    data:str=None,        # Folder of CIFAR-10. None: fastai's own copy, which is downloaded
    working:str=None,     # Folder of working files. None: working/protocol2 beside this, or working/trial
    tables:str=None,      # Folder of tables: what they have is not run again. None: results/protocol2
    only:str='',          # How the names of the tests begin
    trial:bool=False,     # A small size: ResNet-8, ten steps
    device:str=None,      # cpu, cuda, cuda:1, … None: fastai's default
    precision:str='fp32', # fp32, bf16, or fp16 on CUDA
    compile:bool=False,   # Compile the network with torch.compile
):
    "Run the range tests that are not done yet, and show where their curves turn."
    tests = {name:runs for name,runs in tests_of_2018().items() if name.startswith(only)}
    if not tests:
        raise SystemExit(f"--only {only!r}: no test begins so. There is {', '.join(tests_of_2018())}.")
    small = dict(depth=8, bs=16, num_it=10) if trial else {}
    if trial: working = working or working_files.with_name('trial')
    lab = Laboratory(data, working, tables, device, precision, compile, **small)
    lab.all([run for runs in tests.values() for run in runs])
    logs = {name:[lab.df(run) for run in runs] for name,runs in tests.items()}
    print(turning_points(logs).to_string(index=False))

"""Leslie Smith's own range test, at its own scale: ResNet-56 on CIFAR-10, batches of 512.

    python examples/range_test.py                 # 14 tests, of about ten minutes each on two cores
    python examples/range_test.py --only conv     # those whose names begin so
    python examples/range_test.py --trial         # all in little, to see that it works

Stop it whenever you like: the same command goes on with the test where it was. The logs lie beside those of
`superconvergence.py`, with the whole configuration in a JSON. It ends with a table: where each curve turns, without lag.
"""
from superconvergence import *
from fastai_clrbeta.peak import peak_and_why

names = dict(train_loss='training loss', valid_loss='validation loss', accuracy='accuracy',
             valid_loss_batch='validation loss, own statistics', accuracy_batch='accuracy, own statistics')

def turns(df):
    "Where each curve of a test turns, without lag, and the peak"
    lows = {name:df[f'{k}_centred'].idxmin() if 'loss' in k else df[f'{k}_centred'].idxmax() for k,name in names.items()}
    return {name:df.lr[i] for name,i in lows.items()} | dict(peak=peak_and_why(df.lr, df.train_loss, len(df))[0])

def between(os):
    "The median and, of several, the lowest and the highest"
    os = os.dropna()
    if not len(os): return 'none'
    return f'{os.median():.2g}' + (f' ({os.min():.2g} to {os.max():.2g})' if len(os) > 1 else '')

def turning_points(tests):
    "A row for each of `tests`, the logs of their seeds by name"
    rows = {name:pd.DataFrame(map(turns, dfs), dtype=float) for name,dfs in tests.items()}
    return pd.DataFrame([{'test':name, 'n':len(o)} | {k:between(o[k]) for k in o} for name,o in rows.items()])

@call_parse
def main(
    data:str=None,        # Folder of CIFAR-10. None: fastai's own copy, downloaded where there is none
    out:str=None,         # Folder for the logs. None: results/protocol2 beside this script, or ./trial
    only:str='',          # How the names of the tests begin
    trial:bool=False,     # All in little: ResNet-8, ten steps
    device:str=None,      # cpu, cuda, cuda:1, … None: fastai's default
    precision:str='fp32', # One of `precisions`
    compile:bool=False,   # Compile the network with torch.compile
):
    little = dict(depth=8, bs=16, num_it=10) if trial else {}
    lab = Lab(data, out or ('trial' if trial else Path(__file__).parent/'results/protocol2'), device, precision, compile, **little)
    tests = {name:tests for name,tests in tests_of_2018().items() if name.startswith(only)}
    if not tests: raise SystemExit(f"--only {only!r}: no test begins so. There is {', '.join(tests_of_2018())}.")
    lab.all([o for os in tests.values() for o in os])
    print(turning_points({name:[lab.df(o) for o in os] for name,os in tests.items()}).to_string(index=False))

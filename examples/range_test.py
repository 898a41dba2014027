"""Leslie Smith's own range test, at its own scale: ResNet-56 on CIFAR-10, batches of 512.

    python examples/range_test.py                 # 14 tests, of about ten minutes each on two idle cores
    python examples/range_test.py --only conv     # those whose names begin so
    python examples/range_test.py --trial         # all in little, to see that it works

Stop it whenever you like: the same command goes on with the test where it was. The logs lie beside those of
`superconvergence.py`, with the whole configuration in a JSON. It ends with a table: where each curve turns, without lag.
"""
from superconvergence import *
from fastai_clrbeta.found import peak_and_why

def turns(df):
    "Where each curve of a test turns, and the peak"
    cols = [o for o in df if o.endswith('_centred')]
    at = {o:df[o].idxmin() if 'loss' in o else df[o].idxmax() for o in cols}
    best,why,_ = peak_and_why(df.lr, df.train_loss, len(df))
    return {o.removesuffix('_centred').replace('_',' '):df.lr[i] for o,i in at.items()} | dict(peak=best)

@call_parse
def main(
    data:str=None,        # Folder of CIFAR-10. None: fastai's own copy, downloaded where there is none
    out:str=None,         # Folder for the logs. None: results/protocol2 beside this script, or ./trial
    only:str='',          # How the names of the tests begin
    trial:bool=False,     # All in little: ResNet-8, ten steps
    device:str=None,      # cpu, cuda, cuda:1, … None: fastai's default
    precision:str='fp32', # One of `precisions`
):
    little = dict(depth=8, bs=16, num_it=10) if trial else {}
    lab = Lab(data, out or ('trial' if trial else Path(__file__).parent/'results/protocol2'), device, precision, **little)
    rows = []
    for name,tests in tests_of_2018().items():
        if not name.startswith(only): continue
        lab.all(tests)
        rows += [dict(test=name, seed=o.seed) | turns(lab.df(o)) for o in tests]
    print(pd.DataFrame(rows).to_string(index=False, float_format='{:.2g}'.format))

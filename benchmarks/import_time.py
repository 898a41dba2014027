"""Time of importing the package: `python benchmarks/import_time.py [--rounds 9]`, alone on the machine.

Each round is a new process that imports `fastai.vision.all`, then `fastai_clrbeta.all`: how long does the
second take on top of the first? One round before those that count leaves compiled modules (`__pycache__`) and
a warm disk cache.
"""
from statistics import median
from fastcore.script import call_parse
import os, subprocess, sys

code = '''
import sys
from time import perf_counter
start = perf_counter()
import fastai.vision.all
fastai = perf_counter()-start
loaded = set(sys.modules)
start = perf_counter()
import fastai_clrbeta.all
print(fastai, perf_counter()-start, *sorted(set(sys.modules) - loaded))
'''

def one_process():
    "Return the seconds of importing fastai, those of importing this package, and the modules that it adds."
    env = dict(os.environ)
    env.pop('PYTHONDONTWRITEBYTECODE', None)  # an installed package is compiled
    command = [sys.executable, '-W', 'ignore', '-c', code]
    out = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split()
    return float(out[0]),float(out[1]),out[2:]

@call_parse
def main(
    rounds:int=9, # Number of processes that are timed
):
    "Print the median time of `import fastai_clrbeta.all` on top of `import fastai.vision.all`."
    one_process()
    fastai,ours,modules = zip(*[one_process() for _ in range(rounds)])
    share = median(our/their for our,their in zip(ours, fastai))
    print(f'fastai_clrbeta.all: {median(ours)*1e3:.1f} ms '
          f'(from {min(ours)*1e3:.1f} to {max(ours)*1e3:.1f}) '
          f'on top of {median(fastai):.2f} s of fastai.vision.all: {share:.2%}; '
          f'medians of {rounds} processes')
    others = [name for name in modules[0] if name.split('.')[0] != 'fastai_clrbeta']
    names = ', '.join(others[:8]) + (' …' if len(others) > 8 else '')
    print(f'other modules that it imports: {len(others)}' + (f' ({names})' if others else ''))

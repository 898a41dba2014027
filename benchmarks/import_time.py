"""Time of importing the package: `python benchmarks/import_time.py [--rounds 9]`, alone on the machine.

Each round is a new process that imports `fastai.vision.all`, then `fastai_clrbeta.all`: how long the second takes on top of the first.
One round before those that count leaves compiled modules (`__pycache__`) and a warm disk cache.
"""
from statistics import median
from fastcore.script import call_parse
import os, subprocess, sys

code = '''
import sys
from time import perf_counter
t = [perf_counter()]
import fastai.vision.all; t.append(perf_counter())
theirs = set(sys.modules)
t.append(perf_counter())
import fastai_clrbeta.all; t.append(perf_counter())
print(t[1]-t[0], t[3]-t[2], *sorted(set(sys.modules) - theirs))
'''

def one():
    env = {k:v for k,v in os.environ.items() if k != 'PYTHONDONTWRITEBYTECODE'}  # an installed package is compiled
    out = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], env=env, capture_output=True, text=True, check=True).stdout.split()
    return float(out[0]),float(out[1]),out[2:]

@call_parse
def main(
    rounds:int=9, # Number of processes that are timed
):
    "Print the median time of `import fastai_clrbeta.all` on top of `import fastai.vision.all`, its ratio to that, and what it imports"
    one()
    fastai,ours,modules = zip(*[one() for _ in range(rounds)])
    others = [o for o in modules[0] if o.split('.')[0] != 'fastai_clrbeta']
    print(f"fastai_clrbeta.all: {median(ours)*1e3:.1f} ms (from {min(ours)*1e3:.1f} to {max(ours)*1e3:.1f}) "
          f"on top of {median(fastai):.2f} s of fastai.vision.all: {median(o/f for o,f in zip(ours, fastai)):.2%}; medians of {rounds} processes")
    print(f"other modules that it imports: {len(others)}" + (f" ({', '.join(others[:8])}{' …' if len(others) > 8 else ''})" if others else ''))

"""The rule of version 0.2.0 for the peak: a share of the middle of the training loss's floor."""
from fastai.basics import *
from fastai_clrbeta.peak import centred

factors = dict(sgd=0.35, adaptive=0.17)

def peak_of_020(lrs, losses, num_it, kind, diverged):
    "Return the peak, or None if the loss does not fall clearly or has not risen again."
    lrs,losses = np.asarray(lrs, dtype=float),pd.Series(np.asarray(losses, dtype=float))
    if np.isfinite(losses).sum() < 10: return None
    line = centred(losses, num_it)
    noise = (losses-line).abs().median()
    start = line[:max(3, num_it//10)].median()

    gained = max(start-line.min(), 5*noise)
    exploded = (line-start > gained) & (line > line.cummin())
    before = line[:exploded.idxmax()] if exploded.any() else line
    if not before.notna().any(): return None
    lowest = before.idxmin()
    fall = min(start, line[:lowest+1].max()) - line[lowest]
    if fall <= max(3*noise/math.sqrt(max(50, num_it)/100), 1e-3*abs(start)): return None

    begin = (line[:lowest+1] <= line[lowest]+fall/50).idxmax()
    rise = line[lowest:]-line[lowest]
    is_over = (rise > max(fall/2, 3*noise)) | losses[lowest:].isna()
    is_over.iloc[-1] |= diverged
    if is_over.any(): end = is_over.idxmax()
    elif rise.iloc[-1] > max(fall/10, 3*noise): end = len(losses)-1
    else: return None
    return factors[kind]*math.sqrt(lrs[begin]*lrs[end])

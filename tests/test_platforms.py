"What other systems need: files are closed before they are replaced, and checkpoints name no class of paths"
import os, signal, tempfile, warnings
import pytest
from fastai.callback.all import *
from fastai_clrbeta.all import *
from fastai_clrbeta.cli import clrbeta
from helpers import fit, learner

def open_files():
    "The files that this process has open"
    links = Path('/proc/self/fd')
    return {o.resolve() for o in links.iterdir() if o.exists()}

def only_if_closed(replace, *paths, **kwargs):
    "Call `replace`, but fail if one of the files is open: Windows would raise an error."
    still_open = open_files() & {Path(o).resolve() for o in paths}
    still_open = [o for o in still_open if 'lock' not in o.name]  # filelock does otherwise on Windows
    if still_open: pytest.fail(f'{still_open} is still open')
    return replace(*paths, **kwargs)

def open_file(real_open, path, *args, **kwargs):
    if Path(path).is_dir(): raise PermissionError(13, 'Permission denied', str(path))
    return real_open(path, *args, **kwargs)

@pytest.fixture
def as_on_windows(monkeypatch):
    "Open files cannot be replaced or removed, folders cannot be opened, and many names are missing"
    if not Path('/proc/self/fd').exists(): pytest.skip('needs /proc')
    monkeypatch.setattr(tempfile, 'TemporaryFile', tempfile.NamedTemporaryFile)
    for o in 'replace','rename','unlink','remove':
        monkeypatch.setattr(os, o, partial(only_if_closed, getattr(os, o)))
    monkeypatch.setattr(os, 'open', partial(open_file, os.open))
    for o in 'SIGKILL','SIGALRM','SIGHUP','setitimer','alarm': monkeypatch.delattr(signal, o)
    for o in 'fork','killpg','getuid','setuid','getpgrp','setpgrp','waitid': monkeypatch.delattr(os, o)

def test_a_checkpoint_as_on_windows(tmp_path, as_on_windows):
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)  # one would say that no checkpoint was written
        whole = fit(learner(tmp_path), checkpoint='run', every_iter=4)
    with pytest.warns(UserWarning, match='It is now run.old.ckpt'): fit(learner(tmp_path), checkpoint='run')
    files = sorted(o.name for o in (tmp_path/'models').iterdir())
    assert files == ['run.ckpt','run.old.ckpt','run.prev.ckpt']
    assert len(whole.recorder.values) == 3

def test_a_damaged_checkpoint_as_on_windows(tmp_path, as_on_windows):
    "The one before it takes its place"
    fit(learner(tmp_path), checkpoint='run')
    (tmp_path/'models/run.ckpt').write_bytes(b'damaged')
    with pytest.warns(UserWarning, match='Resuming from the one before it'):
        fit(learner(tmp_path), checkpoint='run', resume=True)

def test_the_command_as_on_windows(tmp_path, as_on_windows):
    clrbeta(depth=8, cycle_len=1, checkpoint=True, out=tmp_path/'run')
    clrbeta(depth=8, cycle_len=1, force=True, out=tmp_path/'run')
    assert (tmp_path/'run/model.pth').exists()

def test_a_cache_as_on_windows(tmp_path, as_on_windows):
    from PIL import Image
    for split in 'train','test':
        for name in 'cat','dog':
            folder = tmp_path/'images'/split/name
            folder.mkdir(parents=True)
            for i in range(3): Image.new('RGB', (8,8), (50*i,0,0)).save(folder/f'{i}.png')
    for _ in range(2): cifar10_dls(tmp_path/'images', bs=2)
    assert (tmp_path/'images.clrbeta.npz').exists()

class Paths(Callback):
    "Paths wherever an attribute can hold them"
    def __init__(self):
        self.here,self.many,self.by_name = Path('a/b'),[Path('c/d')],{Path('e/f'):Path('g')}
        self.table = pd.DataFrame(dict(file=[Path('h/i')]))
    def after_epoch(self): self.here = self.here/'x'

def test_paths_are_saved_as_text(tmp_path):
    kwargs = dict(checkpoint='run', cycle_len=2)
    learn = fit(learner(tmp_path, Paths()), **kwargs)
    assert learn.paths.here == Path('a/b/x/x')
    data = (tmp_path/'models/run.ckpt').read_bytes()
    assert b'a/b/x/x' in data and b'e/f' in data
    assert not [o for o in (b'PosixPath', b'WindowsPath', b'pathlib') if o in data]
    learn = fit(learner(tmp_path, Paths()), resume=True, **kwargs)
    assert learn.paths.here == Path('a/b/x/x') and learn.paths.by_name == {Path('e/f'):Path('g')}


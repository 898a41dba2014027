"The folder of images: its cache, and what can be wrong with it"
import hashlib, subprocess, sys
import pytest
from fastai_clrbeta.all import *

@pytest.fixture
def folder(tmp_path):
    "12 training and 4 validation images of two classes, 8×8 pixels"
    rng = np.random.default_rng(0)
    for split,n in ('train',6),('test',2):
        for c in 'cat','dog':
            d = tmp_path/'imgs'/split/c
            d.mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 256, (8,8,3), dtype=np.uint8)
                Image.fromarray(pixels).save(d/f'{i}.png')
    return tmp_path/'imgs'

@pytest.fixture
def decoded(monkeypatch):
    "The files that are decoded; fastai itself looks at one, to set up its transforms"
    seen,read = [],Image.open
    monkeypatch.setattr(Image, 'open', lambda f, *args, **kwargs: seen.append(f) or read(f, *args, **kwargs))
    return seen

def pixels(dls): return [x.clone() for dl in dls.loaders for x in dl.mem]
def dls(path, **kwargs): return cifar10_dls(path, **{'bs':4, **kwargs})
def same(a, b): return len(a)==len(b) and all(torch.equal(x, y) for x,y in zip(a, b))

def test_content(folder):
    d = dls(folder)
    assert (list(d.vocab), len(d.train_ds), len(d.valid_ds), d.path) == (['cat','dog'], 12, 4, folder)
    for k,(f,img) in enumerate(zip(d.train_ds.items, d.train.mem[0])):
        assert np.array_equal(np.asarray(Image.open(f)).transpose(2,0,1), img)
        assert d.vocab[d.train.mem[1][k]] == Path(f).parent.name
    assert d.train.mem[0].dtype == torch.uint8
    for (x1,y1),(x2,y2) in zip(d.valid, d.test_dl(d.valid_ds.items, with_labels=True)):
        torch.testing.assert_close(x1, x2); assert torch.equal(y1, y2)
    assert d.valid.mem[1].tolist() == [1,0,0,1]  # mixed, and always in the same way
    x,y = d.one_batch()
    assert (type(x), type(y), x.shape) == (TensorImage, TensorCategory, (4,3,8,8))

def test_cache_is_used(folder, decoded):
    first = pixels(dls(folder))
    assert set(decoded) == set(map(str, folder.glob('*/*/*')))
    assert [o.name for o in folder.parent.iterdir() if o.is_file()] == ['imgs.clrbeta.npz']
    decoded.clear()
    assert same(pixels(dls(folder)), first) and len(decoded) < 2

@pytest.mark.parametrize('terminal', [True, False])
def test_only_a_terminal_gets_a_bar_of_the_decoding(terminal, folder, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: terminal)
    dls(folder)
    out,_ = capsys.readouterr()
    assert '[12/12' in out if terminal else out == ''

def spoil(how, folder, cache):
    raw = bytearray(cache.read_bytes())
    if how=='truncated': cache.write_bytes(raw[:len(raw)//2])
    if how=='empty':     cache.write_bytes(b'')
    if how=='foreign':   np.save(cache.open('wb'), np.zeros(3))
    if how=='flipped':   raw[300] ^= 1; cache.write_bytes(raw)
    if how=='other':     np.savez(cache, train=np.zeros((12,3,8,8), np.uint8))
    if how=='new image': PILImage.create(np.zeros((8,8,3), np.uint8)).save(folder/'train/cat/9.png')
    if how=='changed':
        f = folder/'train/cat/0.png'
        size = f.stat().st_size
        PILImage.create(np.zeros((8,8,3), np.uint8)).save(f)
        with f.open('ab') as o: o.write(b'\0'*(size-f.stat().st_size))
    if how=='swapped':
        a,b,c = (folder/'train/cat'/o for o in ('0.png','1.png','x'))
        a.rename(c); b.rename(a); c.rename(b)
    if how=='removed':   (folder/'train/dog/0.png').unlink()
    if how=='moved':     (folder/'train/dog/0.png').rename(folder/'train/cat/7.png')

ways = 'truncated empty foreign flipped other changed swapped removed moved'.split()
@pytest.mark.parametrize('how', [*ways, 'new image'])
def test_a_bad_or_stale_cache_is_rebuilt(folder, decoded, how):
    dls(folder)
    spoil(how, folder, folder.parent/'imgs.clrbeta.npz')
    decoded.clear()
    got = pixels(dls(folder))
    assert len(decoded) > 2
    (folder.parent/'imgs.clrbeta.npz').unlink()
    assert same(got, pixels(dls(folder)))

def test_folder_that_cannot_be_written(folder, monkeypatch):
    def full(*args, **kwargs): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(np, 'savez', full)
    with pytest.warns(UserWarning, match='No space left'): assert len(dls(folder).train_ds) == 12
    assert not list(folder.parent.glob('*.npz'))

def black(h, w): return PILImage.create(np.zeros((h,w,3), np.uint8))
def cut(f): f.write_bytes(f.read_bytes()[:100])

# What is done to the folder, how it is asked for, and the error; its dots stand for separators of paths, too
faults = {
    'no folder':   (lambda d: d.rename(d.parent/'gone'), {}, FileNotFoundError, 'imgs.train'),
    'no valid':    (noop, dict(valid='val'), FileNotFoundError, 'imgs.val'),
    'bs type':     (noop, dict(bs=True), ValueError, 'bs=True'),
    'empty class': (lambda d: (d/'train/emu').mkdir(), {}, ValueError, 'train.emu holds no images'),
    'no classes':  (lambda d: (d/'flat').mkdir(), dict(valid='flat'), ValueError,
                    'flat has no class folders'),
    'broken':      (lambda d: (d/'train/cat/0.png').write_bytes(b'junk'), {}, ValueError,
                    'cannot read image .*train.cat.0.png'),
    'truncated':   (lambda d: cut(d/'test/dog/1.png'), {}, ValueError, 'cannot read image .*test.dog.1.png'),
    'size':        (lambda d: black(9,8).save(d/'train/dog/3.png'), {}, ValueError,
                    'train.dog.3.png has 8×9 pixels'),
    'valid size':  (lambda d: [black(9,8).save(o) for o in (d/'test').glob('*/*')], {}, ValueError,
                    'imgs.test have 8×9 pixels'),
    'new class':   (lambda d: (d/'test/cat').rename(d/'test/emu'), {}, ValueError, 'emu'),
    'n_train':     (noop, dict(n_train=13), ValueError, 'n_train=13.*from 1 to 12'),
    'bs':          (noop, dict(bs=13), ValueError, 'bs=13.*from 1 to 12'),
    'fraction':    (noop, dict(valid=1.5), ValueError, 'valid=1.5'),
    'too little':  (noop, dict(valid=0.01), ValueError, 'valid=0.01')}

@pytest.mark.parametrize('do,kw,exc,msg', faults.values(), ids=faults)
def test_errors_name_what_is_wrong(folder, do, kw, exc, msg):
    do(folder)
    with pytest.raises(exc, match=msg): dls(folder, **kw)

ramp = np.linspace(0, 255, 64).round().astype(np.uint8).reshape(8,8)
rgb = np.random.default_rng(0).integers(0, 256, (8,8,3), dtype=np.uint8)

def turned(f):
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera held upright: to be seen, the image must be turned by 90°
    Image.fromarray(np.rot90(rgb).copy()).save(f, exif=exif)

ramp16 = ramp.astype(np.uint16)*257
big_endian = (ramp.astype('>u2')*257).astype('>u2')
cmyk = Image.merge('CMYK', Image.fromarray(np.dstack([255-rgb, 0*ramp])).split())

kinds = {  # how an image is written, and what is to be seen in it
    'grey':       (lambda f: Image.fromarray(ramp).save(f), ramp),
    '16 bits':    (lambda f: Image.fromarray(ramp16).save(f), ramp),
    '16 bits, transparent': (lambda f: Image.fromarray(ramp16).save(f, transparency=257), ramp),
    '16 bits, big-endian':  (lambda f: Image.fromarray(big_endian).save(f, format='TIFF'), ramp),
    'two colours': (lambda f: Image.fromarray(ramp > 99).save(f), np.where(ramp > 99, 255, 0)),
    'grey, transparent':   (lambda f: Image.fromarray(np.stack([ramp, 255-ramp], -1)).save(f), ramp),
    'colour, transparent': (lambda f: Image.fromarray(np.dstack([rgb, ramp])).save(f), rgb),
    'palette':    (lambda f: Image.fromarray(rgb//64*64).quantize(64).save(f), rgb//64*64),
    'CMYK':       (lambda f: cmyk.save(f, format='TIFF'), rgb),
    'EXIF':       (turned, rgb),
    'damaged EXIF': (lambda f: Image.fromarray(rgb).save(f, exif=b'Exif\0\0junk'), rgb)}

@pytest.mark.parametrize('save,want', kinds.values(), ids=kinds)
def test_an_image_is_read_as_it_is_seen(folder, save, want):
    f = folder/'train/cat/0.png'
    save(f)
    want = np.broadcast_to(want[...,None] if want.ndim==2 else want, (8,8,3)).transpose(2,0,1)
    d = dls(folder)
    assert d.train.mem[0][0].tolist() == want.tolist()
    normalised = d.valid.after_batch((TensorImage(want.copy())[None],))[0]
    for o in f, f.read_bytes(): torch.testing.assert_close(d.test_dl([o]).one_batch()[0], normalised)

@pytest.mark.parametrize('mode', ['I','F'])
def test_numbers_without_a_white_are_refused(folder, mode):
    Image.fromarray(ramp).convert(mode).save(folder/'train/cat/0.png', format='TIFF')
    message = f'cannot read image .*train.cat.0.png.*32 bits .mode {mode}'
    with pytest.raises(ValueError, match=message): dls(folder)

def test_a_cache_from_before_16_bits_were_read_is_not_used(folder):
    Image.fromarray(ramp.astype(np.uint16)*257).save(folder/'train/cat/0.png')
    stamps,x = {},{'train':np.zeros((12,3,8,8), np.uint8), 'test':np.zeros((4,3,8,8), np.uint8)}
    for s in x:
        h = hashlib.sha256()  # the stamp of 0.1.0
        for d in sorted((folder/s).iterdir()):
            for o in sorted(d.iterdir()):
                st = o.stat()
                h.update(f'{d.name}/{o.name} {st.st_size} {st.st_mtime_ns} {st.st_ctime_ns}\n'.encode())
        stamps[f'{s}_stamp'] = h.hexdigest()
    np.savez(folder.parent/'imgs.clrbeta.npz', **x, **stamps)
    assert dls(folder).train.mem[0][0,0].tolist() == ramp.tolist()

def test_no_data_and_no_network(tmp_path, monkeypatch):
    import fastai_clrbeta.data as data
    def fail(*args): raise OSError('no route')
    monkeypatch.setattr(data, 'untar_data', fail)
    with pytest.raises(FileNotFoundError, match='could not be downloaded.*no route'): cifar10_dls()

def test_hidden_files_and_others_files_are_left_alone(folder):
    (folder/'train/.ipynb_checkpoints').mkdir()
    (folder/'train/cat/._0.png').write_bytes(b'junk')
    (folder.parent/'imgs.npz').write_text('mine', encoding='utf-8')
    assert len(dls(folder, bs=np.int64(4)).train_ds) == 12
    assert (folder.parent/'imgs.npz').read_text(encoding='utf-8') == 'mine'

def test_hold_out_and_n_train(folder):
    d = dls(folder, valid=1/3, n_train=6, seed=1)
    assert (len(d.train_ds), len(d.valid_ds)) == (6, 4)
    assert not set(d.train_ds.items) & set(d.valid_ds.items)
    assert [d.train.mem[1].tolist().count(i) for i in (0,1)] == [3,3]
    for dl in d.loaders:
        for f,y in zip(dl.dataset.items, dl.mem[1]): assert Path(f).parent.name == d.vocab[y]
    assert d.train_ds.items == dls(folder, valid=1/3, n_train=6, seed=1).train_ds.items
    order = lambda s: [y.tolist() for _,y in dls(folder, bs=2, seed=s).train]
    assert order(1) == order(1)

def test_augment_only_in_training(folder):
    plain,aug = dls(folder, bs=12), dls(folder, bs=12, augment=True)
    assert same([b[0] for b in plain.valid], [b[0] for b in aug.valid])
    def rows(d): return sorted(x.flatten().tolist() for x in next(iter(d.train))[0])  # in any order
    assert rows(plain) == rows(plain) and rows(aug) != rows(aug) != rows(plain)

def test_learner(folder, tmp_path):
    learn = Learner(dls(folder), cifar_resnet(8, 2), metrics=accuracy, path=tmp_path)
    with learn.no_bar(), learn.no_logging():
        learn.fit_clr_beta(0.1, cycle_len=2, use_clr_beta=(10,10))
        f = learn.dls.valid_ds.items[0]
        want = learn.predict(f)
        image = PILImage.create(f)
        for o in Path(f), image, np.asarray(image): torch.testing.assert_close(learn.predict(o)[2], want[2])
        preds,targs = learn.get_preds()
        torch.testing.assert_close(preds[0], want[2])
        assert targs.tolist() == [1,0,0,1]
        learn.export()
        got = load_learner(tmp_path/'export.pkl')
    with got.no_bar(): torch.testing.assert_close(got.predict(f)[2], want[2])
    assert (tmp_path/'export.pkl').stat().st_size < 2e6
    learn.dls.show_batch(); learn.show_results()

spawned = """
import multiprocessing, sys
from fastai_clrbeta.all import *

if __name__ == '__main__':
    multiprocessing.set_start_method('spawn')
    dls = digits_dls(bs=500, size=8, seed=0)
    here = [o.clone() for o in dls.valid.one_batch()]
    there = dls.valid.new(num_workers=1).one_batch()
    assert type(there[0]) is type(here[0]) and all(torch.equal(a, b) for a,b in zip(here, there))
"""

@pytest.mark.slow
def test_workers_may_be_spawned(tmp_path):
    "As on Windows and macOS: a loader goes to its workers by pickle"
    (tmp_path/'script.py').write_text(spawned, encoding='utf-8')
    cmd = [sys.executable, '-W', 'ignore', 'script.py']
    p = subprocess.run(cmd, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert p.returncode == 0, p.stderr

def test_digits():
    d = digits_dls(bs=9)
    assert (len(d.train_ds), len(d.valid_ds), list(d.vocab)) == (1437, 360, [str(i) for i in range(10)])
    x,y = d.one_batch()
    assert (x.shape, x.dtype, y.shape) == ((9,3,16,16), torch.float32, (9,))
    x = torch.cat([b[0] for b in digits_dls(bs=1437)[0]])
    assert abs(x.mean()) < 1e-3 and abs(x.std()-1) < 1e-3

def test_memory_serves_what_the_transforms_give():
    d = digits_dls()
    slow = d.test_dl(d.valid_ds.items, with_labels=True)
    assert slow.mem is None and d.valid.new(shuffle=True).mem is d.valid.mem
    for (x1,y1),(x2,y2) in zip(slow, d.valid):
        torch.testing.assert_close(x1, x2, atol=1e-6, rtol=0)
        assert y1.tolist() == y2.tolist()

def test_seeds_and_arguments_of_digits():
    first_y = lambda s: digits_dls(seed=s).one_batch()[1].tolist()
    assert first_y(1) == first_y(1) != first_y(2)
    for name,v in ('bs',0),('bs',1438),('bs','9'),('size',0):
        with pytest.raises(ValueError, match=f'{name}={v!r}'): digits_dls(**{name:v})

def test_one_digit_in_many_forms(tmp_path):
    learn = Learner(digits_dls(), cifar_resnet(8), path=tmp_path)
    image,_ = learn.dls.valid_ds.items[0]
    learn.export()
    assert (tmp_path/'export.pkl').stat().st_size < 2e6  # no images in it
    got,f = load_learner(tmp_path/'export.pkl'),tmp_path/'a.png'
    image.save(f)
    with learn.no_bar(), got.no_bar():
        want = learn.predict(image)[2]
        arrays = image,np.asarray(image),TensorImage(image2tensor(image)),image.convert('L'),Image.open(f)
        for o in *arrays,f,str(f),f.read_bytes(): torch.testing.assert_close(got.predict(o)[2], want)
        assert got.predict(image.resize((50,40)))[2].shape == (10,)

def test_images_move_to_a_gpu_if_they_fit(monkeypatch):
    "With a stand-in for a GPU; tests/test_cuda.py has a real one"
    moved = []
    class There(Tensor):
        def to(self, device, **kwargs):
            moved.append(device)
            return self
    images,targets = torch.arange(8*12, dtype=torch.uint8).reshape(8,3,2,2),torch.arange(8)
    dl,gpu = MemoryDL(list(range(8)), mem=(images,targets), bs=4, device='cpu'),torch.device('cuda:0')
    dl.to('cpu')
    assert dl.mem[0] is images and dl.new().mem[0] is images  # nothing is copied on the CPU
    for room,where in (2*(96+64),[gpu]*2),(2*(96+64)-1,[]),(0,[]):
        moved.clear()
        monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda device: (room,None))
        dl.mem = images.as_subclass(There),targets.as_subclass(There)
        dl.to(gpu)
        assert moved == where

def test_flip_crop_gives_all_views_and_no_other():
    x = TensorImage(torch.arange(8*8, dtype=torch.uint8).reshape(1,1,8,8).expand(3000,3,8,8))
    y = FlipCrop(2)(x, split_idx=0)
    assert (type(y), y.shape, y.dtype) == (TensorImage, x.shape, x.dtype)
    assert FlipCrop(2)(x, split_idx=1) is x
    padded = F.pad(x[:1].float(), (2,2,2,2), mode='reflect')
    crops = [padded[0,0,i:i+8,j:j+8] for i in range(5) for j in range(5)]
    views = {tuple(o.flatten().int().tolist()) for c in crops for o in (c, c.flip(-1))}
    assert {tuple(o[0].flatten().tolist()) for o in y} == views

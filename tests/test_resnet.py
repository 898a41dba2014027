"The networks: their shapes, their sizes, and their blocks written in torch's own words"
import math, pickle
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai_clrbeta.resnet import *

def n_params(m): return sum(p.numel() for p in m.parameters())
def conv(layers, x): return layers[1](layers[0](x))

def test_numbers_of_parameters():
    assert n_params(leslie_resnet56()) == 806_746
    assert [n_params(cifar_resnet(o)) for o in (20,110)] == [223_450,1_681_690]
    assert [n_params(cifar_resnet(o, shortcut='pad')) for o in (20,56)] == [269_722,853_018]
    assert n_params(cifar_resnet(np.int64(20))) == 223_450

@pytest.mark.parametrize('depth', [0, 2, 9, 57, 56., '56', None])
def test_a_depth_that_is_not_6n_plus_2_is_refused(depth):
    with pytest.raises(ValueError, match=r'6n\+2'): cifar_resnet(depth)

def test_other_arguments_are_checked():
    with pytest.raises(ValueError, match="n_out='conv'"): cifar_resnet(8, 'conv')
    with pytest.raises(ValueError, match="'pool', 'pad' or 'conv'"): cifar_resnet(shortcut='id')

@pytest.mark.parametrize('preact', [False, True])
@pytest.mark.parametrize('shortcut', ['pool', 'pad', 'conv'])
def test_sizes_and_memory_formats(shortcut, preact):
    m = cifar_resnet(8, n_out=7, c_in=1, shortcut=shortcut, preact=preact).eval()
    for h,w in (32,32),(64,48),(28,28):
        x = torch.randn(2,1,h,w)
        y = m(x)
        assert y.shape == (2,7)
        last = m.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(last, y, atol=1e-4, rtol=1e-4)

@pytest.mark.parametrize('shortcut', ['pool', 'pad', 'conv'])
def test_a_block_in_words_of_torch(shortcut):
    x = torch.randn(2,16,8,8)
    b = CifarBlock(16, 32, shortcut).eval()
    res = conv(b.convs[1], F.relu(conv(b.convs[0], x)))
    if shortcut == 'pool': want = F.pad(F.relu(res + F.avg_pool2d(x, 3, 2, ceil_mode=True)), (0,0,0,0,0,16))
    if shortcut == 'pad':  want = F.relu(res + F.pad(x[:,:,::2,::2], (0,0,0,0,8,8)))
    if shortcut == 'conv': want = F.relu(res + conv(b.shortcut, x))
    torch.testing.assert_close(b(x), want)

def test_a_block_with_pre_activation():
    x = torch.randn(2,16,8,8)
    b = CifarBlock(16, 16, preact=True).eval()
    c1,c2 = b.convs
    torch.testing.assert_close(b(x), x + c2[2](F.relu(c2[0](c1[2](F.relu(c1[0](x)))))))

def test_initial_weights_and_order_of_parameters():
    m = cifar_resnet(56)
    std = m.stage3[4].convs[0][0].weight.std().item()
    assert std == pytest.approx(math.sqrt(2/(64*9)), abs=1e-3)
    shapes = [tuple(p.shape) for p in m.parameters()]
    assert shapes[:5] == [(16,3,3,3),(16,),(16,),(16,16,3,3),(16,)] and shapes[-2] == (10,64)
    pickle.loads(pickle.dumps(m))

"Everything of `fastai_clrbeta`, on top of everything of `fastai.vision`"
from fastai.vision.all import *

from .schedule import *
from .finder import *
from .resnet import *
from .data import *
from .resume import *
from .guard import *

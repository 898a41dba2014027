from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup
import re

root = Path(__file__).parent
cfg = ConfigParser(delimiters=['='])
cfg.read(root/'settings.ini', encoding='utf-8')
cfg = cfg['DEFAULT']
init = (root/'fastai_clrbeta/__init__.py').read_text(encoding='utf-8')

extras = {o: cfg[f'{o}_requirements'].split() for o in ('dist','docs','dev')}
extras['dev'] += extras['docs']  # the tests build the site

setup(
    version = re.search(r'__version__ = "(.+)"', init)[1],
    author = cfg['author'],
    license = cfg['license'],
    keywords = cfg['keywords'].split(),
    classifiers = cfg['classifiers'].strip().splitlines(),
    python_requires = '>=' + cfg['min_python'],
    install_requires = cfg['requirements'].split(),
    extras_require = extras,
    packages = find_packages(include=['fastai_clrbeta*']),
    package_data = {'fastai_clrbeta': ['py.typed']},
    entry_points = {
        'console_scripts': cfg['console_scripts'].split(),
        'nbdev': ['fastai_clrbeta=fastai_clrbeta._modidx:d']},
    long_description = (root/'README.md').read_text(encoding='utf-8'),
    long_description_content_type = 'text/markdown',
)

"""Where the project is on the web. Only `[project.urls]` of pyproject.toml says it, under the names below.
What needs an address is shown once the address is there."""
import re
from pathlib import Path
try: import tomllib
except ImportError: import tomli as tomllib  # Python 3.10

names = 'Repository Issues PyPI'.split()

def addresses(folder):
    "Return the addresses in the `pyproject.toml` of `folder`, by name."
    project = tomllib.loads((Path(folder)/'pyproject.toml').read_text(encoding='utf-8'))['project']
    urls = project.get('urls', {})
    return {o:urls[o] for o in names if urls.get(o)}

def colab(urls, file):
    "Return the address of the notebook `file` in Colab, or None. Colab reads GitHub and installs from PyPI."
    repo = re.match(r'https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?$', urls.get('Repository', ''))
    if repo and 'PyPI' in urls: return f'https://colab.research.google.com/github/{repo[1]}/blob/main/nbs/{file}'

def with_pip(urls, text):
    "Return `text`, whose section on installing begins with the line for pip if the package is on PyPI."
    if 'PyPI' not in urls: return text
    return re.sub(r'^(## Install.*\n\n)', r'\1```sh\npip install fastai_clrbeta\n```\n\n', text, flags=re.M)

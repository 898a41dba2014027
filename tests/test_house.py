"How the modules depend on each other"
import ast, re
import pytest
from conftest import root

package = root/'fastai_clrbeta'
modules = {o.stem:o for o in sorted(package.glob('*.py')) if o.stem not in ('__init__','_modidx')}
scripts = [o for d in ('examples','experiments','benchmarks') for o in sorted((root/d).glob('*.py'))]

def of_package(o): return o.level or (o.module or '').split('.')[0] == 'fastai_clrbeta'

def imports(f):
    "The modules of ours that `f` imports, anywhere in it, each with the names that it takes"
    for o in ast.walk(ast.parse(f.read_text(encoding='utf-8'))):
        if isinstance(o, ast.Import):
            for a in o.names:
                if a.name.startswith('fastai_clrbeta.'): yield a.name.split('.')[1],[]
        elif isinstance(o, ast.ImportFrom) and of_package(o):
            module = (o.module or '').removeprefix('fastai_clrbeta').lstrip('.')
            names = [a.name for a in o.names]
            if module: yield module,names
            else: yield from ((n,[]) for n in names)  # from . import x

def test_imports_have_no_cycle():
    needs = {k:{m for m,_ in imports(f) if m in modules} for k,f in modules.items()}
    while needs:
        free = [k for k,o in needs.items() if not o & needs.keys()]
        assert free, f'these modules import each other: {needs}'
        for k in free: del needs[k]

@pytest.mark.parametrize('f', [*modules.values(), *scripts], ids=lambda o: o.stem)
def test_private_names_stay_in_their_module(f):
    for module,names in imports(f):
        private = [o for o in (module, *names) if re.match('_[^_]', o)]
        assert not private, f'{f.name} imports {private} from {module}'
    text = f.read_text(encoding='utf-8')
    reached = [o for o in modules if o != f.stem and re.search(rf'\b(?:clrbeta\.)?{o}\._[a-z]', text)]
    assert not reached or f.stem == 'all', f'{f.name} reaches into {reached}'

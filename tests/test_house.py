"The house: a notebook is a module, its number is its floor, and what a module imports lies below it"
import ast, re
import pytest
from conftest import root

package = root/'fastai_clrbeta'
floors = [o.stem for o in sorted((root/'nbs').glob('[0-9]*.ipynb'))]  # such as '05_schedule'
order = [o.split('_', 1)[1] for o in floors]
modules = {o.stem:o for o in sorted(package.glob('*.py')) if o.stem not in ('__init__','_modidx')}

def imports(f):
    "Of each import of ours in `f`: the module, the names, and whether it stands at the top"
    tree = ast.parse(f.read_text(encoding='utf-8'))
    inner = {id(o) for d in ast.walk(tree) if isinstance(d, (ast.FunctionDef,ast.AsyncFunctionDef,ast.Lambda,ast.ClassDef))
             for o in ast.walk(d) if o is not d}
    for o in ast.walk(tree):
        top = id(o) not in inner
        if isinstance(o, ast.ImportFrom) and (o.level or (o.module or '').split('.')[0]=='fastai_clrbeta'):
            name = (o.module or '').removeprefix('fastai_clrbeta').lstrip('.')
            names = [a.name for a in o.names]
            if name: yield name,names,top
            else: yield from ((n,[],top) for n in names)  # from . import x
        if isinstance(o, ast.Import):
            for a in o.names:
                if a.name.startswith('fastai_clrbeta.'): yield a.name.split('.')[1],[],top

def hidden(name): return name.startswith('_') and not name.startswith('__')

def test_the_numbers_of_notebooks_are_their_order():
    assert [int(o[:2]) for o in floors] == list(range(len(floors)))
    assert {*order,'all'} == set(modules)
    for o in floors: assert f'#| default_exp {o[3:]}\\n' in (root/f'nbs/{o}.ipynb').read_text(encoding='utf-8') or \
                            f'#| default_exp {o[3:]}"' in (root/f'nbs/{o}.ipynb').read_text(encoding='utf-8')

@pytest.mark.parametrize('name', order)
def test_imports_point_downward(name):
    for other,names,top in imports(modules[name]):
        assert other in order[:order.index(name)], f'{name} imports {other}, which is not below it'
        assert top, f'{name} imports {other} within a function or a class'
        assert not any(map(hidden, names)), f'{name} imports {names} from {other}'

@pytest.mark.parametrize('f', [modules['all'], *sorted(root.glob('examples/*.py')), *sorted(root.glob('benchmarks/*.py'))], ids=lambda o: o.stem)
def test_private_names_stay_at_home(f):
    text = f.read_text(encoding='utf-8')
    for other,names,_ in imports(f):
        if f.stem != 'all': assert not hidden(other)
        assert not any(map(hidden, names)), f'{f.name} imports {names} from {other}'
        for o in order: assert not re.search(rf'\b{o}\._[a-z]', text), f'{f.name} reaches into {o}'

@pytest.mark.parametrize('name', modules)
def test_lines_are_short(name):
    long = [i for i,o in enumerate(modules[name].read_text(encoding='utf-8').splitlines(), 1) if len(o) > 130]
    assert not long, f'lines {long} of {name}.py are longer than 130 characters'

def test_the_house_does_not_grow_unnoticed():
    lines = {k:len(o.read_text(encoding='utf-8').splitlines()) for k,o in modules.items()}
    assert sum(lines.values()) < 3970, lines
    assert sum(len(o.read_text(encoding='utf-8').splitlines()) for o in (root/'docs').glob('*.py')) < 217, 'what builds the docs'

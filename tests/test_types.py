"Type hints, as a user's checker sees them"
import ast, inspect, json, re, shutil, subprocess, sys
import pytest
from conftest import root
from fastai_clrbeta.all import *

user = root/'tests/typed_user.py'

@pytest.fixture(scope='module')
def report(tmp_path_factory):
    """Of pyright on `typed_user.py`: (line, rule) of the errors, with their messages, and by line the types
    that it reveals"""
    d = tmp_path_factory.mktemp('types')
    shutil.copy(user, d)
    # it can't follow the finder of an editable install
    (d/'pyrightconfig.json').write_text(json.dumps({'extraPaths': [str(root)]}), encoding='utf-8')
    cmd = [sys.executable, '-m', 'pyright', '--outputjson', '--pythonpath', sys.executable, user.name]
    p = subprocess.run(cmd, cwd=d, capture_output=True, text=True)
    errs,types = {},{}
    for o in json.loads(p.stdout)['generalDiagnostics']:
        line = o['range']['start']['line']
        if o['severity']=='error': errs[line,o.get('rule')] = o['message']
        elif m := re.match('Type of ".*" is "(.*)"$', o['message'], re.S): types[line] = m[1]
    return errs,types

def marked(pat):
    lines = enumerate(user.read_text(encoding='utf-8').splitlines())
    return {(i,m[1]) for i,o in lines if (m := re.search(pat, o))}

@pytest.mark.slow
def test_good_calls_pass_and_bad_ones_are_reported(report):
    want = marked(r'# error: (\w+)$')
    assert len(want) > 10
    errors = report[0]
    assert errors.keys() == want, {k:v for k,v in errors.items() if k not in want} or want - errors.keys()

@pytest.mark.slow
def test_types_are_known(report):
    want = marked(r'reveal_type\(.*\)\s+# (.+)$')
    assert len(want) > 10 and set(report[1].items()) == want

def test_checkers_see_every_method_of_ours():
    "The `Learner` that `all.py` shows to checkers has the methods that it really has, with their parameters"
    tree = ast.parse((root/'fastai_clrbeta/all.py').read_text(encoding='utf-8'))
    cls = first(o for o in ast.walk(tree) if isinstance(o, ast.ClassDef) and o.name=='Learner')
    defs = {o.name:o.args for o in cls.body if isinstance(o, ast.FunctionDef) and o.name != '__init__'}
    seen = defs.keys() | {o.targets[0].id for o in cls.body if isinstance(o, ast.Assign)}
    real = {k:getattr(v, 'fget', v) for k,v in vars(Learner).items()}  # a property is told by its function
    ours = {k for k,v in real.items() if inspect.isfunction(v) and v.__module__.startswith('fastai_clrbeta.')}
    # another test may have imported `fastai_clrbeta.legacy`, which is no part of `all`
    assert seen == ours - {'lr_find2'}
    for k,v in defs.items(): assert [o.arg for o in v.args] == list(inspect.signature(real[k]).parameters)

def test_none_is_in_the_hint_where_it_is_the_default():
    n = 0
    for f in (root/'fastai_clrbeta').glob('*.py'):
        for o in ast.walk(ast.parse(f.read_text(encoding='utf-8'))):
            if not isinstance(o, ast.FunctionDef): continue
            args = [*o.args.posonlyargs, *o.args.args]
            for a,d in [*zip(args[::-1], o.args.defaults[::-1]), *zip(o.args.kwonlyargs, o.args.kw_defaults)]:
                if a.annotation is None or not isinstance(d, ast.Constant) or d.value is not None: continue
                n += 1
                assert ast.unparse(a.annotation).endswith('| None'), f'{f.name}:{a.lineno} {o.name}({a.arg})'
    assert n > 20

"""Chat templates that want out of the sandbox, or all of the time or the memory.

`{N}` stands for a number in names only. ESCAPES have to be refused; BOMBS have to end soon, by
an error or with an output that is bounded; BROKEN are no templates at all.
"""

_HOLES = (
    "''", "messages", "messages[0]", "messages[0].content", "loop", "self", "cycler", "joiner",
    "namespace", "namespace()", "dict", "range", "range(3)", "raise_exception", "strftime_now",
    "bos_token", "1", "1.5", "none", "[]", "{}", "().index", "''.format", "m", "joiner()",
    "cycler(1)", "''.join", "missing", "true",
)  # fmt: skip
_INTERNALS = (
    "__class__", "__init__", "__globals__", "__mro__", "__subclasses__", "__builtins__",
    "__getattribute__", "__reduce_ex__", "__dict__", "__code__", "__func__", "__self__",
    "__module__", "_environment", "_context", "__wrapped__", "__kwdefaults__", "__defaults__",
    "gi_frame", "gi_code", "f_globals", "func_globals", "co_code", "mro", "tb_frame",
)  # fmt: skip

ESCAPES: dict[str, str] = {
    **{
        f"attribute {name} of {hole}": f"{{% macro m() %}}{{% endmacro %}}{{{{ {hole}.{name}.x }}}}"
        for hole in _HOLES
        for name in ("__class__", "__init__", "__globals__")
    },
    **{f"attribute {name}": f"{{{{ raise_exception.{name}.x }}}}" for name in _INTERNALS},
    **{f"item {name}": f"{{{{ ''['{name}'].x }}}}" for name in _INTERNALS},
    **{f"by format {name}": f"{{{{ '{{0.{name}.x}}'.format('') }}}}" for name in _INTERNALS},
    **{
        f"by map {name}": f"{{{{ [''] | map(attribute='{name}.x') | list }}}}"
        for name in _INTERNALS
    },
    "by attr": "{{ '' | attr('__class__') }}",
    "by format_map": "{{ '{a.__class__.x}'.format_map({'a': 1}) }}",
    "by an indirect format": "{{ ''.format.__call__('{0.__class__.x}', 1) }}",
    "by map of format": "{{ ['{0.__class__.x}'] | map('format', 1) | map('attr', '__class__') | list }}",
    "by a stored format": "{% set f = '{0.__class__.x}'.format %}{{ f(1) }}",
    "by format of markup": "{{ ('{0.__class__.x}' | safe).format(1) }}",
    "by an argument called self": "{{ dict(self=1, __context=2).__class__.x }}",
    "by sort": "{{ [[1]] | sort(attribute='__class__.x') }}",
    "by groupby": "{{ [''] | groupby('__class__.x') }}",
    "by selectattr": "{{ [''] | selectattr('__class__.x') | list }}",
    "by join": "{{ [''] | join(attribute='__class__.x') }}",
    "by sum": "{{ [''] | sum(attribute='__class__.x') }}",
    "by unique": "{{ [''] | unique(attribute='__class__.x') | list }}",
    "by max": "{{ [''] | max(attribute='__class__.x') }}",
    "lipsum": "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "config": "{{ config.items() }}",
    "request": "{{ request.application.__globals__ }}",
    "import": "{% import 'os' as os %}{{ os.x() }}",
    "from": "{% from 'os' import system %}",
    "include": "{% include '/etc/passwd' %}",
    "extends": "{% extends '/etc/passwd' %}",
    "include a variable": "{% include messages[0].content %}",
    "change the messages": "{{ messages.append({}) }}",
    "clear the messages": "{{ messages.clear() }}",
    "change a message": "{{ messages[0].update({'role': 'system'}) }}",
    "pop of a message": "{{ messages[0].pop('role') }}",
    "setdefault": "{{ messages[0].setdefault('x', 1) }}",
    "sort in place": "{{ messages.sort() }}",
    "a hidden step": "{{ 1 | __step__ | attr('x') }}",
    "a method of a type": "{{ dict.fromkeys([1]) }}",
    "int.to_bytes": "{{ (1).to_bytes(10, 'big') }}",
    "encode": "{{ 'a'.encode() }}",
    "translate": "{{ 'a'.translate({97: 'b'}) }}",
    "unescape": "{{ ('&lt;' | safe).unescape() }}",
    "pprint": "{{ messages | pprint }}",
    "random": "{{ messages | random }}",
    "urlize": "{{ 'http://a' | urlize }}",
    "debug": "{% debug %}",
    "do": "{% do messages.append(1) %}",
    "autoescape": "{% autoescape true %}{{ x.__class__ }}{% endautoescape %}",
    "trans": "{% trans %}x{% endtrans %}",
    "a namespace is written": "{{ namespace(a=1) }}",
    "a generator is written": "{{ messages | map('length') }}",
    "a namespace in a list": "{% set n = namespace() %}{{ [n] }}",
}

_BIG = "{% set s = 'a' * 1000000 %}"
_LOOP = "{% for i in range(99999) %}"
_DOUBLE = "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = "

BOMBS: dict[str, str] = {
    "loops in loops": (_LOOP * 4) + "{% endfor %}" * 4,
    "loops with text": (_LOOP * 3) + "x" + "{% endfor %}" * 3,
    "sums in a loop": _LOOP + "{{ range(99999) | sum }}{% endfor %}",
    "sorts in a loop": _LOOP + "{{ range(99999) | sort | length }}{% endfor %}",
    "lists in a loop": _LOOP + "{% set x = range(99999) | list %}{% endfor %}",
    "maps in a loop": _LOOP + "{% set x = range(99999) | map('string') | list %}{% endfor %}",
    "search in a loop": _BIG + _LOOP + "{% set x = 'b' in s %}{% endfor %}",
    "search for the half": _BIG + _LOOP + "{% set x = (s[:500000] ~ 'b') in s %}{% endfor %}",
    "count in a loop": _BIG + _LOOP + "{% set x = s.count('ab') %}{% endfor %}",
    "compare in a loop": _BIG + "{% set t = s ~ 'a' %}" + _LOOP + "{% set x = s < t %}{% endfor %}",
    "slices in a loop": _BIG + _LOOP + "{% set x = s[1:] %}{% endfor %}",
    "reversed in a loop": _BIG + _LOOP + "{% set x = s[::-1] %}{% endfor %}",
    "upper in a loop": _BIG + _LOOP + "{% set x = s | upper %}{% endfor %}",
    "title in a loop": _BIG + _LOOP + "{% set x = s | title %}{% endfor %}",
    "wordcount in a loop": _BIG + _LOOP + "{% set x = s | wordcount %}{% endfor %}",
    "split in a loop": "{% set s = 'a ' * 500000 %}"
    + _LOOP
    + "{% set x = s.split() %}{% endfor %}",
    "splitlines": "{% set s = '\n' * 1000000 %}"
    + _LOOP
    + "{% set x = s.splitlines() %}{% endfor %}",
    "keeps all slices": _BIG
    + "{% set ns = namespace(x=[]) %}"
    + _LOOP
    + "{% set ns.x = ns.x + [s[i:]] %}{% endfor %}",
    "a macro that calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a macro that calls itself twice": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}",
    "two macros": "{% macro f(n) %}{{ g(n) }}{{ g(n) }}{% endmacro %}"
    "{% macro g(n) %}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}",
    "a macro that gives itself": "{% macro f(g, n) %}{% if n %}{{ g(g, n - 1) }}{{ g(g, n - 1) }}"
    "{% endif %}{% endmacro %}{{ f(f, 90) }}",
    "callers": "{% macro f(n) %}{% if n %}{% call f(n - 1) %}{{ caller() }}{{ caller() }}{% endcall %}"
    "{% endif %}{{ caller() if caller }}{% endmacro %}{{ f(90) }}",
    "a block in itself": "{% block b %}{{ self.b() }}{{ self.b() }}{% endblock %}",
    "a recursive loop": "{% for i in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "a recursive loop over much": "{% for i in [1] recursive %}{{ loop(range(99999)) if loop.depth < 5 }}{% endfor %}",
    "concatenation": _DOUBLE + "ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "addition": _DOUBLE + "ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    "multiplication": _DOUBLE + "ns.x * 2 %}{% endfor %}{{ ns.x }}",
    "replace": _DOUBLE + "ns.x | replace('a', 'aa') %}{% endfor %}{{ ns.x }}",
    "str.replace": _DOUBLE + "ns.x.replace('a', 'aa') %}{% endfor %}{{ ns.x }}",
    "replace of nothing": _DOUBLE + "ns.x.replace('', ns.x) %}{% endfor %}{{ ns.x }}",
    "join": _DOUBLE + "[ns.x, ns.x] | join %}{% endfor %}{{ ns.x }}",
    "join by": _DOUBLE + "ns.x | join(ns.x) %}{% endfor %}{{ ns.x }}",
    "str.join": _DOUBLE + "ns.x.join(ns.x) %}{% endfor %}{{ ns.x }}",
    "format": _DOUBLE + "'%s%s' | format(ns.x, ns.x) %}{% endfor %}{{ ns.x }}",
    "str.format": _DOUBLE + "'{0}{0}'.format(ns.x) %}{% endfor %}{{ ns.x }}",
    "str.format_map": _DOUBLE + "'{a}{a}'.format_map({'a': ns.x}) %}{% endfor %}{{ ns.x }}",
    "percent": _DOUBLE + "'%s%s' % (ns.x, ns.x) %}{% endfor %}{{ ns.x }}",
    "a set block": "{% set x = 'ab' %}{% for i in range(60) %}{% set x %}{{ x }}{{ x }}{% endset %}"
    "{% endfor %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60 + "{{ x }}",
    "a filter block": "{% set x = 'ab' %}"
    + "{% set x %}{% filter upper %}{{ x }}{{ x }}{% endfilter %}{% endset %}" * 60,
    "escapes": _DOUBLE + "('<' ~ ns.x) | e | e %}{% endfor %}{{ ns.x }}",
    "escapes of much": _BIG + "{{ ('<' * 1000000) | e | e | e | e | e | e }}",
    "json of much": _DOUBLE + "[ns.x, ns.x] | tojson %}{% endfor %}{{ ns.x }}",
    "json in json": _DOUBLE + "ns.x | tojson %}{% endfor %}{{ ns.x }}",
    "lists in lists": _DOUBLE + "[ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "tuples in tuples": _DOUBLE + "(ns.x, ns.x) %}{% endfor %}{{ ns.x == ns.x }}",
    "dicts in dicts": _DOUBLE + "{'a': ns.x, 'b': ns.x} %}{% endfor %}{{ ns.x | tojson }}",
    "dict of dicts": _DOUBLE + "dict(a=ns.x, b=ns.x) %}{% endfor %}{{ ns.x | string }}",
    "deep lists": "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}"
    "{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
    "lists of a text": _BIG + "{{ [s] * 1000000 }}",
    "lists of a text, joined": _BIG + "{{ ([s] * 1000000) | join }}",
    "lists of a text, by itself": _BIG + "{{ ([s] * 1000) | join(s) }}",
    "lists of lists, summed": "{{ ([range(99999) | list] * 10000) | sum(start=[]) | length }}",
    "texts, summed": "{{ ['a'] | sum(start='') }}",
    "a list of letters": _BIG + "{{ (s * 9) | list | length }}",
    "namespaces in namespaces": "{% set a = namespace() %}"
    + "".join("{% set a = namespace(l=a, r=a) %}" for _ in range(60))
    + "{{ a }}{{ [a] }}",
    "big numbers": "{% set ns = namespace(x=2) %}{% for i in range(999) %}{% set ns.x = ns.x * ns.x %}"
    "{% endfor %}{{ ns.x }}",
    "big sums": "{% set ns = namespace(x=2) %}{% for i in range(99999) %}{% set ns.x = ns.x + ns.x %}"
    "{% endfor %}{{ ns.x }}",
    "big differences": "{% set ns = namespace(x=2) %}{% for i in range(99999) %}"
    "{% set ns.x = ns.x - (-ns.x) %}{% endfor %}{{ ns.x }}",
    "powers": "{{ 9 ** 9 ** 9 }}",
    "powers of floats": "{{ 9.0 ** 999999 }}",
    "shifts": "{{ 1 << 99999999 }}",
    "numbers of digits": "{{ ('9' * 1000000) | int }}",
    "numbers of hex": "{{ ('f' * 1000000) | int(0, 16) }}",
    "a long literal": "{{ " + "9" * 5000 + " }}",
    "range": "{{ range(10 ** 9) | list }}",
    "range backwards": "{{ range(0, -10 ** 9, -1) | list }}",
    "center": "{{ 'a' | center(1000000000) }}",
    "str.center": "{{ 'a'.center(1000000000) }}",
    "str.ljust": "{{ 'a'.ljust(1000000000) }}",
    "str.zfill": "{{ 'a'.zfill(width=1000000000) }}",
    "str.expandtabs": "{{ '\t'.expandtabs(1000000000) }}",
    "expandtabs of many": "{{ ('\t' * 1000000).expandtabs(9999) }}",
    "indent": "{{ 'a\nb' | indent(1000000000) }}",
    "indent by a text": _BIG + "{{ ('\n' * 1000) | indent(s) }}",
    "indent of many": "{{ ('\n' * 1000000) | indent(9999) }}",
    "batch": "{{ [1] | batch(1000000000, 'x') | list }}",
    "slice": "{{ [1] | slice(1000000000) | list }}",
    "json indent": "{{ [1] | tojson(indent=1000000000) }}",
    "json indent of many": "{{ range(99999) | list | tojson(indent=16) | length }}",
    "json of a range": "{{ range(9) | tojson }}",
    "format width": "{{ '%1000000000d' | format(1) }}",
    "format star": "{{ '%*d' | format(1000000000, 1) }}",
    "format precision": "{{ '%.1000000000f' | format(1.5) }}",
    "percent width": "{{ '%1000000000d' % 1 }}",
    "str.format width": "{{ '{:1000000000}'.format(1) }}",
    "str.format inner": "{{ '{:{}}'.format(1, 1000000000) }}",
    "str.format inner by name": "{{ '{a:>{b}}'.format(a=1, b=1000000000) }}",
    "str.format escaped": "{{ '{{{:1000000000}}}'.format(1) }}",
    "round": "{{ 1.5 | round(1000000000) }}",
    "truncate": "{{ ('a ' * 1000000) | truncate(1000000000) | length }}",
    "strftime": "{{ strftime_now('%1000000000Y') }}",
    "strftime of much": "{{ strftime_now('%c' * 1000000) }}",
    "messages times messages": "{% for a in messages * 1000 %}{% for b in messages * 1000 %}"
    "{{ a.content }}{% endfor %}{% endfor %}",
    "a refusal of much": _BIG + "{{ raise_exception(s * 9) }}",
    "an error of much": _BIG + "{{ messages[s] }}{{ s.x.y }}",
    "an attribute of much": _BIG + "{{ messages[0][s * 9].x }}",
    "sorted by": "{{ ([messages] * 1000) | sort(attribute='0.content') | length }}",
    "unique": "{{ (range(99999) | list) | unique | list | length }}",
    "groups": "{{ (messages * 99999) | groupby('role') | length }}",
    "a loop over a text": _BIG + "{% for c in s %}{{ c }}{% endfor %}",
    "a loop over its own list": "{% set ns = namespace(x=[1]) %}{% for i in ns.x %}"
    "{% set ns.x = ns.x + [1] %}{% endfor %}",
    "cycles": "{% set c = cycler(1, 2) %}" + _LOOP * 2 + "{{ c.next() }}" + "{% endfor %}" * 2,
    "joiners": "{% set j = joiner('ab') %}" + _LOOP * 2 + "{{ j() }}" + "{% endfor %}" * 2,
    "loop.cycle": _LOOP * 2 + "{{ loop.cycle('a', 'b') }}" + "{% endfor %}" * 2,
    "many comparisons": _BIG
    + "{% set t = s ~ 'b' %}{% set r = "
    + " and ".join(["(t == s ~ 'b')"] * 2000)
    + " %}",
    "many outputs": _BIG + "{{ s }}" * 9000,
    "many slices": _BIG + "{% set x = s[1:] %}" * 5000,
    "many ifs": "{% if x %}{% endif %}" * 6000,
    "whitespace": " " * 100_000 + "{%- if x -%}" + " " * 10_000 + "{%- endif -%}" + "\n" * 10_000,
    "tabs before blocks": ("\t" * 500 + "{% if x %}{% endif %}\n") * 200,
    "comments": "{# #}" * 20_000,
    "raw": "{% raw %}{{ x }}{% endraw %}" * 3000,
    "regular expression": "{{ ('a' * 99999 ~ '!') | wordcount }}{{ ('-' * 999999) | title | length }}",
}

BROKEN: dict[str, str] = {
    "an open block": "{% if x %}",
    "an open variable": "{{ x",
    "an open comment": "{# x",
    "an open raw": "{% raw %}x",
    "an open text": "{{ 'x }}",
    "no name": "{{ 1.2.3.4 }}",
    "an unknown tag": "{% unknown %}",
    "an unknown filter": "{{ x | unknown }}",
    "an unknown test": "{{ x is unknown }}",
    "an unknown escape": r"{{ '\x' }}",
    "a wrong name": r"{{ '\N{no such}' }}",
    "a wrong surrogate": r"{{ '\ud800' }}",
    "a surrogate": "{{ '\ud800' }}",
    "nul": "{{ '\0' }}\0{% \0 %}",
    "deep parentheses": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "deep lists": "{{ " + "[" * 3000 + "]" * 3000 + " }}",
    "deep attributes": "{{ x" + ".a" * 20_000 + " }}",
    "deep nots": "{{ " + "not " * 5000 + "1 }}",
    "deep minuses": "{{ " + "-" * 5000 + "1 }}",
    "deep filters": "{{ 1" + " | int" * 5000 + " }}",
    "deep ifs": "{% if 1 %}" * 200 + "x" + "{% endif %}" * 200,
    "deep loops": "{% for i in [1] %}" * 100 + "x" + "{% endfor %}" * 100,
    "deep macros": "".join(f"{{% macro m{i}() %}}" for i in range(200)) + "{% endmacro %}" * 200,
    "deep conditions": "{{ " + "1 if 1 else " * 2000 + "1 }}",
    "a long sum": "{{ " + " + ".join(["1"] * 5000) + " }}",
    "a long concatenation": "{{ " + " ~ ".join(["1"] * 5000) + " }}",
    "many arguments": "{{ dict(" + ", ".join(f"a{i}=1" for i in range(5000)) + ") }}",
    "the same argument twice": "{{ dict(a=1, a=2) }}",
    "a block twice": "{% block a %}{% endblock %}{% block a %}{% endblock %}",
    "a break outside": "{% break %}",
    "a keyword for a name": "{% set class = 1 %}{% set None = 1 %}",
    "an empty block": "{% %}",
    "an empty variable": "{{ }}",
    "an else too many": "{% if 1 %}{% else %}{% else %}{% endif %}",
    "not even Jinja": "}}{{{%{{%}}",
    "binary": "".join(map(chr, range(256))),
}


def everything() -> dict[str, str]:
    """All of them, by kind and name."""
    kinds = {"escape": ESCAPES, "bomb": BOMBS, "broken": BROKEN}
    return {f"{kind}: {name}": text for kind, of in kinds.items() for name, text in of.items()}

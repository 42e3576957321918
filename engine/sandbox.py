"""Jinja for programs of strangers: what a rendering may take is bounded, and what it may do.

Jinja's own sandbox keeps a template from Python's internals, but not from taking all memory or
time: with `~`, `|center`, `str.replace` or a macro that calls itself twice. So here

    steps    every turn of a loop, call, filter, comparison and operation is counted; processor
             time, too, because a step may be slow
    bytes    what operations make is added up, whether it is kept or not
    sizes    what would become large is refused before it is made
    names    filters, methods and globals are those that templates use; no others are there

Owns: that. Leaves to chat.py: what a template is given, and what its failing means.
"""

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import wraps
from typing import Any, Final

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MAX_STEPS: Final = 1_000_000
"""Of one rendering; a real template takes a few per message."""
MAX_CPU_S: Final = 2.0
"""Processor time of one rendering; a real template takes milliseconds."""
MAX_BYTES: Final = 1 << 27
"""Of all that one rendering makes."""
MAX_TEXT: Final = 1 << 24
"""Characters of a text."""
MAX_ITEMS: Final = 1 << 20
"""Of a list, with those of the lists in it."""
MAX_DEPTH: Final = 64
"""Of lists in lists."""
MAX_NUMBER: Final = 1 << 62
MAX_WIDTH: Final = 9999
"""That a text may be padded or indented to."""
MAX_JSON_INDENT: Final = 16

_FILTERS: Final = [
    "abs",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "sum",
    "title",
    "trim",
    "truncate",
    "unique",
    "upper",
    "wordcount",
]
_GLOBALS: Final = ("range", "cycler", "joiner", "namespace")
_METHODS: Final[tuple[tuple[type | tuple[type, ...], frozenset[str]], ...]] = (
    (
        str,
        frozenset(
            [
                "capitalize",
                "casefold",
                "center",
                "count",
                "endswith",
                "expandtabs",
                "find",
                "format",
                "format_map",
                "index",
                "isalnum",
                "isalpha",
                "isascii",
                "isdecimal",
                "isdigit",
                "isidentifier",
                "islower",
                "isnumeric",
                "isprintable",
                "isspace",
                "istitle",
                "isupper",
                "join",
                "ljust",
                "lower",
                "lstrip",
                "partition",
                "removeprefix",
                "removesuffix",
                "replace",
                "rfind",
                "rindex",
                "rjust",
                "rpartition",
                "rsplit",
                "rstrip",
                "split",
                "splitlines",
                "startswith",
                "strip",
                "swapcase",
                "title",
                "upper",
                "zfill",
            ]
        ),
    ),
    (dict, frozenset(("copy", "get", "items", "keys", "values"))),
    ((list, tuple), frozenset(("copy", "count", "index"))),
    (range, frozenset(("count", "index"))),
    ((int, float), frozenset(("bit_length", "is_integer"))),
)
_PADDING: Final = ("center", "ljust", "rjust", "zfill", "expandtabs")
_STEP: Final = "__step__"
_COUNTED: Final = "__counted__"
_CONCAT: Final = "__concat__"
_MADE: Final = "__made__"


class RefusedError(jinja2.TemplateError):
    """The template called raise_exception."""


class Environment(ImmutableSandboxedEnvironment):
    """Jinja as Hugging Face sets it up for chat templates, bounded. For one thread."""

    intercepted_binops = frozenset(["*", "**", "+", "-", "%"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=self._finalize,
            extensions=["jinja2.ext.loopcontrols", _GenerationTag],
        )
        self.begin()
        filters = {**self.filters, "tojson": _to_json}
        self.filters = {name: self._bounded(name, filters[name]) for name in (*_FILTERS, "tojson")}
        self.filters[_STEP] = self._step
        self.filters[_COUNTED] = self._counted
        self.filters[_CONCAT] = self._concat
        self.filters[_MADE] = self._made
        self.globals = {name: self.globals[name] for name in _GLOBALS}
        self.globals["dict"] = _dict
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now

    def begin(self) -> None:
        """To be called before each rendering, and before compiling, which computes constants."""
        self._steps_left, self._bytes_left = MAX_STEPS, MAX_BYTES
        self._until = time.thread_time() + MAX_CPU_S

    # --- what is counted ---

    def _take(self, n: int = 1) -> None:
        self._steps_left -= n
        if self._steps_left < 0:
            raise SecurityError(f"it takes more than {MAX_STEPS} steps")
        if (n > 1 or self._steps_left % 16 == 0) and time.thread_time() > self._until:
            raise SecurityError(f"it takes more than {MAX_CPU_S:.0f} s")

    def _step(self, value: Any) -> Any:
        self._take()
        return value

    def _counted(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self._take()
            yield item

    def _made(self, value: Any) -> Any:
        """Count what was made: its bytes, and all that a list leads to.

        Lists that hold the same list again and again are small themselves, but not when they are
        written, compared or sorted; so items count as often as they would be seen.
        """
        if isinstance(value, str | bytes):
            if len(value) > MAX_TEXT:
                raise SecurityError(f"a text of it is longer than {MAX_TEXT} characters")
            self._charge(sys.getsizeof(value))
        elif isinstance(value, int):
            if abs(value) > MAX_NUMBER:
                raise SecurityError("a number of it is too large")
        elif isinstance(value, list | tuple | dict | set | frozenset):
            n_items, n_chars = self._weigh(value)
            self._charge(64 * min(n_items, 2 * len(value) + 1) + 64)
            if n_chars > MAX_TEXT:
                raise SecurityError(f"a list of it holds more than {MAX_TEXT} characters")
        return value

    def _charge(self, n_bytes: int) -> None:
        self._bytes_left -= n_bytes
        if self._bytes_left < 0:
            raise SecurityError(f"it makes more than {MAX_BYTES} bytes")

    def _weigh(self, value: Any) -> tuple[int, int]:
        """Items and characters of a container and of those in it."""
        n_items, n_chars, depth, level = 0, 0, 0, [value]
        while level:  # all of one depth at a time
            inner: list[Any] = []
            for each in level:
                if isinstance(each, str | bytes):
                    n_chars += len(each)
                elif isinstance(each, Mapping | list | tuple | set | frozenset):
                    n_items += len(each)
                    if n_items > MAX_ITEMS:
                        raise SecurityError(f"a list of it has more than {MAX_ITEMS} items")
                    inner += each
                    if isinstance(each, Mapping):
                        inner += each.values()
                elif isinstance(each, Namespace):
                    raise SecurityError("a list of it holds a namespace")
            level, depth = inner, depth + 1
            if depth > MAX_DEPTH:
                raise SecurityError(f"its lists are deeper than {MAX_DEPTH}")
        self._take(n_items // 64)
        return n_items, n_chars

    def _finalize(self, value: Any) -> Any:
        """What is written."""
        self._take()
        text = value if isinstance(value, str) else self._text(value)
        self._charge(len(text))
        return text

    def _text(self, value: Any) -> str:
        if isinstance(value, str | int | float | None | jinja2.Undefined):
            return str(value)
        if isinstance(value, list | tuple | dict | set | frozenset):
            self._weigh(value)  # written, it may be six times as long: \U0010ffff
            return str(self._made(str(value)))
        if isinstance(value, range | Macro):
            return str(value)
        raise SecurityError(f"a {type(value).__name__} is not to be written")

    # --- operations ---

    def _concat(self, items: list[Any]) -> str:
        texts = [self._text(item) for item in items]
        self._expect(sum(map(len, texts)))
        return str(self._made("".join(texts)))

    def _expect(self, n_chars: int) -> None:
        """Refuse a text before it is made."""
        if n_chars > MAX_TEXT:
            raise SecurityError(f"a text of it is longer than {MAX_TEXT} characters")

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any
    ) -> Any:
        """Arithmetic, as long as the result is small."""
        self._take()
        numbers = [x for x in (left, right) if isinstance(x, int)]
        sizes = [len(x) for x in (left, right) if isinstance(x, str | bytes | list | tuple)]
        too_large = any(abs(x) > MAX_NUMBER for x in numbers)
        if operator == "**":
            too_large = too_large or any(abs(x) > 62 for x in numbers)
        elif operator == "*" and sizes and numbers:
            too_large = too_large or sizes[0] * numbers[0] > MAX_ITEMS
        elif operator == "+":
            too_large = too_large or sum(sizes) > MAX_TEXT
        elif operator == "%" and isinstance(left, str):
            _check_format(left)
        if too_large:
            raise SecurityError(f"the result of {operator} is too large")
        return self._made(super().call_binop(context, operator, left, right))

    def call(
        __self,  # noqa: N805  as Jinja has it: a template may name an argument `self`
        __context: jinja2.runtime.Context,
        __obj: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Call a macro, a global, or a method that templates may use."""
        self = __self
        self._take()
        if isinstance(__obj, LoopContext):  # of a recursive loop, whose turns nobody else counts
            args = (self._counted(args[0]), *args[1:]) if args else args
            return self._made(super().call(__context, __obj, *args, **kwargs))
        owner = getattr(__obj, "__self__", None)
        name = getattr(__obj, "__name__", "")
        for kind, names in _METHODS:
            if isinstance(owner, kind) or (isinstance(owner, type) and issubclass(owner, kind)):
                if name not in names or isinstance(owner, type):
                    raise SecurityError(f"it may not call the method {name!r}")
                if isinstance(owner, str):
                    args = self._check_method(owner, name, args, kwargs)
                break
        return self._made(super().call(__context, __obj, *args, **kwargs))

    def _check_method(
        self, text: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, ...]:
        """Refuse what would become too large. Returns the arguments to use."""
        given = [*args, *kwargs.values()]
        if name in _PADDING:
            _check_width(given)
            if name == "expandtabs":
                self._expect(len(text) + text.count("\t") * MAX_WIDTH)
        elif name == "replace" and len(given) >= 2:
            self._check_replace(text, str(given[0]), str(given[1]))
        elif name == "join" and args:
            items = [self._text(item) for item in self._counted(args[0])]
            self._expect(sum(map(len, items)) + len(text) * len(items))
            return (items,)
        elif name in ("split", "rsplit") and len(args) < 2 and "maxsplit" not in kwargs:
            kwargs["maxsplit"] = MAX_ITEMS
        elif name == "splitlines" and text.count("\n") + text.count("\r") > MAX_ITEMS:
            raise SecurityError(f"a list of it has more than {MAX_ITEMS} items")
        return args

    def _check_replace(self, text: str, old: str, new: str) -> None:
        n_places = text.count(old) if old else len(text) + 1
        self._expect(len(text) + n_places * len(new))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """str.format, without fields that make texts long."""
        sandboxed = super().wrap_str_format(value)
        if sandboxed is None:
            return None
        text = str(getattr(value, "__self__", ""))

        @wraps(sandboxed)
        def bounded(*args: Any, **kwargs: Any) -> str:
            _check_format(text)
            self._check_values((args, kwargs), text.count("{"))
            return str(self._made(sandboxed(*args, **kwargs)))

        return bounded

    def _check_values(self, values: Any, n_fields: int) -> None:
        """Refuse what would become too long if each field were all of the values."""
        _n_items, n_chars = self._weigh(values)
        self._expect((n_chars + 64) * max(1, n_fields))

    def unsafe_undefined(self, obj: Any, attribute: str) -> jinja2.Undefined:
        """Jinja would print nothing; a template that reaches for internals is not run at all."""
        raise SecurityError(f"it may not use the attribute {attribute!r} of {type(obj).__name__}")

    # --- filters ---

    def _bounded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that is counted, and refused where it would make much."""
        # Jinja gives some a context first, and then what is filtered
        place = 1 if hasattr(function, "jinja_pass_arg") else 0

        @wraps(function)
        def bounded(*args: Any, **kwargs: Any) -> Any:
            self._take()
            value, others = args[place], [*args[place + 1 :], *kwargs.values()]
            self._check_filter(name, value, others)
            if not isinstance(value, str) and isinstance(value, Iterable):
                counted = isinstance(value, Iterator)
                args = (
                    (*args[:place], self._counted(value), *args[place + 1 :]) if counted else args
                )
            if name in ("string", "join", "e", "escape", "safe", "trim", "replace", "indent"):
                if name == "join":
                    items = [self._text(item) for item in self._counted(value)]
                    separator = str(others[0]) if others else ""
                    if not kwargs and len(others) < 2:
                        self._expect(sum(map(len, items)) + len(separator) * len(items))
                        args = (*args[:place], items, *args[place + 1 :])
                elif not isinstance(value, str):
                    args = (*args[:place], self._text(value), *args[place + 1 :])
            return self._made(function(*args, **kwargs))

        return bounded

    def _check_filter(self, name: str, value: Any, others: list[Any]) -> None:
        if name in ("center", "batch", "slice", "indent"):
            _check_width(others)
        if name == "indent":
            text = self._text(value)
            pads = [len(x) if isinstance(x, str) else int(x) for x in others[:1]] or [4]
            self._expect(len(text) + (text.count("\n") + 1) * pads[0])
        elif name == "replace" and len(others) >= 2:
            self._check_replace(self._text(value), str(others[0]), str(others[1]))
        elif name == "format":
            _check_format(str(value))
            self._check_values(others, str(value).count("%"))
        elif name == "sum" and any(not isinstance(x, int | float | str | None) for x in others):
            raise SecurityError("sums are of numbers")
        elif name == "list" and isinstance(value, str) and len(value) > MAX_ITEMS:
            raise SecurityError(f"a list of it has more than {MAX_ITEMS} items")
        elif name in ("e", "escape"):
            self._expect(6 * len(self._text(value)))
        elif name == "tojson":
            n_items, n_chars = self._weigh([value])
            if any((x if isinstance(x, int) else len(x)) > MAX_JSON_INDENT for x in others if x):
                raise SecurityError("an indent is too wide")
            per_item = 24 + (MAX_JSON_INDENT * MAX_DEPTH if others else 0)
            self._expect(6 * n_chars + per_item * n_items)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Loops count their turns; what else Jinja does by itself is counted by filters."""
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.iter = _filtered(loop.iter, _COUNTED)
        for comparison in tree.find_all(nodes.Compare):
            comparison.expr = _filtered(comparison.expr, _STEP)
        return _Rewriter().visit(tree)  # type: ignore[no-any-return]


class _Rewriter(jinja2.visitor.NodeTransformer):
    """Puts filters around what Jinja's sandbox does not let us see: `~`, lists and dicts."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), _CONCAT)

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, _MADE)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, _MADE)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, _MADE) if isinstance(node.arg, nodes.Slice) else node

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, _MADE) if node.ctx == "load" else node


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _GenerationTag(Extension):
    """`{% generation %}`: marks answers for training, and means nothing here."""

    tags = {"generation"}  # noqa: RUF012 - the type is Jinja's

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _check_width(given: Iterable[Any]) -> None:
    for width in given:
        if (isinstance(width, int) and abs(width) > MAX_WIDTH) or (
            isinstance(width, str) and len(width) > MAX_WIDTH
        ):
            raise SecurityError(f"a width is above {MAX_WIDTH}")


def _check_format(text: str) -> None:
    """Refuse fields that are wide, or whose width is another field."""
    if re.search(r"[0-9]{5}|%[^a-zA-Z%]*\*|\{[^{}]*\{", text.replace("{{", "")):
        raise SecurityError("a field to be filled in is too wide")


def _dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    """Not the type itself, which has methods and can be subscripted."""
    return dict(*args, **kwargs)


def _raise_exception(message: object = "no reason given") -> None:
    raise RefusedError(str(message)[:1000] if isinstance(message, str | int) else "")


def _strftime_now(pattern: str) -> str:
    if len(pattern) > 200 or re.search(r"[0-9]{3}", pattern):
        raise SecurityError("a date's format is too long")
    return datetime.now().strftime(pattern)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own would escape for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )

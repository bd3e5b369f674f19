"""The sandbox a chat template is compiled and run in (D-09).

Jinja's own sandbox keeps a list of what is dangerous, and every few years something is missing on it. This one keeps
a list of what is allowed, at three levels:

1. *Grammar* (`check_and_rewrite`, at load): only the listed kinds of syntax nodes, filters, tests and names; no
   attribute that begins with an underscore; no import, include, extends, block or recursive loop. A template that
   needs more is refused when the model is loaded, with line and reason.
2. *Objects* (`TemplateEnvironment`, at run time): an attribute is a member of a mapping, or one of the listed methods
   of str, dict and loop; only those methods, macros and our globals can be called.
3. *Work* (`template_limits`): the rewriting puts a charge on every loop, comparison, concatenation and print.

Tuples in expressions become lists and dictionary keys become strings, so that hashing costs nothing; recursion is
bounded by Python's own limit.
"""

from __future__ import annotations

from types import BuiltinMethodType, MethodType
from typing import Any

from jinja2 import Template, Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from argosy.text.template_filters import bounded_replace, template_filters, template_globals, template_tests
from argosy.text.template_limits import Meter
from argosy.text.template_operators import BINARY_OPERATORS

_ALLOWED_NODES = frozenset(
    {
        "Template", "Output", "TemplateData", "If", "For", "Assign", "AssignBlock", "Macro", "CallBlock",
        "FilterBlock", "With", "Scope", "Const", "Name", "NSRef", "List", "Tuple", "Dict", "Pair", "Keyword",
        "CondExpr", "Getattr", "Getitem", "Slice", "Call", "Filter", "Test", "Compare", "Operand", "Concat",
        "And", "Or", "Not", "Neg", "Pos", "Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow", "Break",
        "Continue",
    }
)  # fmt: skip
_DICT_METHODS = frozenset({"get", "items", "keys", "values"})
_STRING_METHODS = frozenset(
    {
        "strip", "lstrip", "rstrip", "split", "rsplit", "splitlines", "startswith", "endswith", "lower",
        "upper", "title", "capitalize", "replace", "find", "rfind", "index", "rindex", "count", "isdigit",
        "isalpha", "isalnum", "isspace", "isupper", "islower", "removeprefix", "removesuffix", "join",
        "partition", "rpartition",
    }
)  # fmt: skip
_LOOP_ATTRIBUTES = frozenset(
    {"index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem", "cycle", "depth"}
)
_SCOPES = ("_loop_vars", "_block_vars")  # what Jinja's compiler passes along with calls inside loops and blocks
NODES_PER_STEP = 8
# None of a list's: `index` and `count` compare, which nothing bounds; the others change it.
_METHODS: dict[type, frozenset[str]] = {dict: _DICT_METHODS, str: _STRING_METHODS}


class GenerationTag(Extension):
    """`{% generation %}…{% endgeneration %}` marks what the assistant says, for training; rendering just shows it."""

    tags = {"generation"}  # noqa: RUF012  # Jinja's own declaration of this attribute

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements inside the tag."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Jinja with an allow-list for objects and a meter for work. Whitespace rules as in transformers."""

    intercepted_binops = frozenset(BINARY_OPERATORS)

    def __init__(self) -> None:
        self.meter = Meter()
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[LoopControlExtension, GenerationTag],
            finalize=self.meter.text,
            cache_size=0,
        )
        self.filters = template_filters(self.meter)
        self.tests = dict(template_tests(self.meter))
        self.globals = dict(template_globals(self.meter))
        self.concat = self.meter.joined  # type: ignore[method-assign]  # same signature, with a bound
        self._safe_functions = set(map(id, self.globals.values()))

    def compile_checked(self, source: str) -> tuple[Template, frozenset[str]]:
        """The compiled template, and the names it reads. Raises: SecurityError, TemplateSyntaxError."""
        tree = self.parse(source)
        names = check_and_rewrite(tree, self)
        return Template.from_code(self, self.compile(tree), self.make_globals(None)), names

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`obj.attribute`: a listed method, else a member of a mapping. Raises: SecurityError for "_…"."""
        if attribute.startswith("_"):
            raise SecurityError(f"attribute {attribute!r} is not allowed")
        if attribute in _METHODS.get(type(obj), ()):
            return getattr(obj, attribute)
        if isinstance(obj, Undefined | Namespace) or (isinstance(obj, LoopContext) and attribute in _LOOP_ATTRIBUTES):
            return getattr(obj, attribute, None) if isinstance(obj, LoopContext) else self._field(obj, attribute)
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """`obj[argument]`, with `obj.argument` for strings that are no key."""
        if isinstance(obj, dict | list | tuple | str | Undefined):
            try:
                return obj[argument]
            except (TypeError, LookupError):
                pass
        return self.getattr(obj, argument) if isinstance(argument, str) else self.undefined(obj=obj, name=argument)

    def is_safe_callable(self, obj: Any) -> bool:
        """Only macros, our globals, and the listed methods of plain values and loops."""
        if isinstance(obj, BuiltinMethodType):
            return obj.__name__ in _METHODS.get(type(obj.__self__), ())
        if isinstance(obj, MethodType):
            return isinstance(obj.__self__, LoopContext) and obj.__name__ == "cycle"
        return isinstance(obj, Macro) or id(obj) in self._safe_functions

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805  # as in Jinja
        """Call what is safe to call; string methods that make text pay for it."""
        __self.meter.charge()
        if isinstance(__obj, BuiltinMethodType) and type(__obj.__self__) is str and __self.is_safe_callable(__obj):
            kwargs = {name: value for name, value in kwargs.items() if name not in _SCOPES}
            return __self._call_string_method(__obj.__self__, __obj.__name__, *args, **kwargs)
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """`left operator right`, within bounds. Raises: TemplateLimit, SecurityError."""
        return BINARY_OPERATORS[operator](self.meter, left, right)

    def _field(self, obj: Any, attribute: str) -> Any:
        try:
            return getattr(obj, attribute)
        except AttributeError:
            return self.undefined(obj=obj, name=attribute)

    def _call_string_method(self, text: str, name: str, *args: Any, **kwargs: Any) -> Any:
        meter = self.meter
        if name == "replace":
            return bounded_replace(meter, text, *args, **kwargs)
        if name == "join":
            parts = [meter.text(part) for part in meter.each(*args)]
            meter.produce(sum(map(len, parts)) + len(parts) * len(text))
            return text.join(parts)
        meter.produce(len(text))
        if name in ("split", "rsplit"):
            meter.charge(min(text.count(args[0]) if args and args[0] else len(text) // 2, meter.steps + 1) // 16)
        return getattr(text, name)(*args, **kwargs)


def check_and_rewrite(tree: nodes.Template, environment: TemplateEnvironment) -> frozenset[str]:
    """Refuse what is not allowed, put charges on what is, in place. Returns the names the template reads.

    Raises: SecurityError with line and reason.
    """
    names: set[str] = set()
    for node in [tree, *tree.find_all(nodes.Node)]:
        _check(node, environment)
        if isinstance(node, nodes.Name) and node.ctx == "load":
            names.add(node.name)
    _rewrite(tree)
    tree.set_environment(environment)
    return frozenset(names)


def _check(node: nodes.Node, environment: TemplateEnvironment) -> None:
    kind = type(node).__name__
    if kind not in _ALLOWED_NODES:
        raise _refused(node, f"{kind} is not allowed")
    if isinstance(node, nodes.Filter) and (node.name.startswith("_") or node.name not in environment.filters):
        raise _refused(node, f"filter {node.name!r} is not allowed")
    if isinstance(node, nodes.Test) and node.name not in environment.tests:
        raise _refused(node, f"test {node.name!r} is not allowed")
    if isinstance(node, nodes.For) and node.recursive:
        raise _refused(node, "recursive loops are not allowed")
    name = _named(node)
    if name is not None and name.startswith("_"):
        raise _refused(node, f"the name {name!r} begins with an underscore")


def _named(node: nodes.Node) -> str | None:
    """The name a node reads or writes, when it stands in the source."""
    if isinstance(node, nodes.Getattr | nodes.NSRef):
        return node.attr
    if isinstance(node, nodes.Name | nodes.Macro):
        return node.name
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
        return node.arg.value
    return None


def _refused(node: nodes.Node, reason: str) -> SecurityError:
    return SecurityError(f"line {getattr(node, 'lineno', 0)}: {reason}")


def _rewrite(node: nodes.Node) -> None:
    """Replace the children of `node`, deepest first, by their charged forms."""
    for field, value in node.iter_fields():
        if isinstance(value, list):
            setattr(node, field, [_rewritten(item) for item in value])
        else:
            setattr(node, field, _rewritten(value))
    if isinstance(node, nodes.For):
        weight = 1 + sum(1 for part in node.body for _ in part.find_all(nodes.Node)) // NODES_PER_STEP
        node.iter = _filtered(node.iter, "_each", nodes.Const(weight))
    elif isinstance(node, nodes.Pair):
        node.key = node.key if isinstance(node.key, nodes.Const) else _filtered(node.key, "string")
    elif isinstance(node, nodes.Compare):
        node.expr = _compared(node.expr)
        for operand in node.ops:
            operand.expr = _compared(operand.expr)


def _rewritten(value: Any) -> Any:
    if not isinstance(value, nodes.Node):
        return value
    _rewrite(value)
    if isinstance(value, nodes.Tuple) and value.ctx == "load":
        return nodes.List(value.items, lineno=value.lineno)
    if isinstance(value, nodes.Concat):
        return _filtered(nodes.List(value.nodes, lineno=value.lineno), "_concat")
    return value


def _compared(expression: nodes.Expr) -> nodes.Expr:
    return expression if isinstance(expression, nodes.Const) else _filtered(expression, "_flat")


def _filtered(expression: nodes.Node, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(expression, name, list(args), [], None, None, lineno=expression.lineno)

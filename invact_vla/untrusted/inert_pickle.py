"""Pickles read as data. Nothing is imported, called or built: the few opcodes that make numbers, texts
and containers are followed, and what a pickle would call stands in the result as a Call.

pickletools of the standard library takes the opcodes apart; what they mean is decided here.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

MAX_STEPS = 1_000_000  # opcodes; a checkpoint of 10,000 tensors has some 400,000
_BIGGEST_KEY = 1 << 60  # larger integers can be chosen to collide in a dictionary
_MARK = object()


@dataclass(eq=False, repr=False)
class Call:
    """What a pickle would call, or only names. name: "module.name"; state: what it would set
    afterwards."""

    name: str
    args: tuple[Any, ...] = ()
    state: Any = None
    called: bool = True


def read_pickle(
    stream: IO[bytes],
    resolve: Callable[[Call], Any] = lambda call: call,
    persistent: Callable[[Any], Any] = lambda key: Call("persistent", (key,)),
) -> Any:
    """The value of the pickle at the stream's position, which is left behind it.

    resolve: what stands for a call; by default the Call itself. persistent: the same for a persistent
    id. Raises ValueError, or one of LookupError, TypeError, AttributeError, RecursionError and
    MemoryError, for what is no such pickle.
    """
    machine = _Machine(resolve, persistent)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count > MAX_STEPS:
            raise ValueError(f"more than {MAX_STEPS} steps")
        if opcode.name == "STOP":
            return machine.pop()
        machine.step(opcode.name, argument)
    raise ValueError("it has no end")


class _Machine:
    """The stack and the memory of a pickle."""

    def __init__(self, resolve: Callable[[Call], Any], persistent: Callable[[Any], Any]) -> None:
        self.resolve, self.persistent = resolve, persistent
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value was expected")
        return value

    def above_mark(self) -> list[Any]:
        """Takes what lies above the last mark."""
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise ValueError("no mark")
        found = self.stack[place + 1 :]
        del self.stack[place:]
        return found

    def step(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _VALUES:
            self.stack.append(argument)
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _PUTS:
            self.memory[len(self.memory) if argument is None else argument] = self.stack[-1]
        elif name in _GETS:
            self.stack.append(self.memory[argument])
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"opcode {name} is not read")

    def call(self, what: Any, args: Any, new: bool = False) -> None:
        """Puts what stands for a call."""
        name = what.name if isinstance(what, Call) and not what.called else "?"
        found = Call(name, args if isinstance(args, tuple) else ())
        self.stack.append(found if new else self.resolve(found))

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            pairs = zip(items[::2], items[1::2], strict=True)
            target.update((k, v) for k, v in pairs if _is_key(k))

    def extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def build(self) -> None:
        state = self.pop()
        if isinstance(self.stack[-1], Call):
            self.stack[-1].state = state

    def call_top(self, new: bool = False) -> None:
        """What lies under its arguments is called."""
        args, what = self.pop(), self.pop()
        self.call(what, args, new)

    def object_of(self, what: Any, *args: Any) -> None:
        self.call(what, args, new=True)

    def name(self, module: Any, name: Any) -> None:
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("a name that is no text")
        self.stack.append(Call(f"{module}.{name}", called=False))

    def table(self, items: list[Any]) -> None:
        self.stack.append({})
        self.set_items(items)

    def take(self, count: int) -> list[Any]:
        """The last values, in their order."""
        if count > len(self.stack):
            raise ValueError("too few values")
        found = self.stack[-count:]
        del self.stack[-count:]
        return found


def _is_key(key: Any) -> bool:
    """Whether a dictionary may have this key: nothing whose hash is dear, or can be made to collide."""
    if isinstance(key, int):
        return abs(key) < _BIGGEST_KEY
    return key is None or isinstance(key, str | bytes)


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "MARK": _MARK}
_VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING",
    "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": list,
}  # fmt: skip
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    "POP": lambda m, _: m.stack.pop(),
    "POP_MARK": lambda m, _: m.above_mark(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "LIST": lambda m, _: m.stack.append(m.above_mark()),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.above_mark())),
    "FROZENSET": lambda m, _: m.stack.append(tuple(m.above_mark())),
    "TUPLE1": lambda m, _: m.stack.append(tuple(m.take(1))),
    "TUPLE2": lambda m, _: m.stack.append(tuple(m.take(2))),
    "TUPLE3": lambda m, _: m.stack.append(tuple(m.take(3))),
    "DICT": lambda m, _: m.table(m.above_mark()),
    "APPEND": lambda m, _: m.extend([m.pop()]),
    "APPENDS": lambda m, _: m.extend(m.above_mark()),
    "ADDITEMS": lambda m, _: m.extend(m.above_mark()),
    "SETITEM": lambda m, _: m.set_items([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, _: m.set_items(m.above_mark()),
    "GLOBAL": lambda m, name: m.stack.append(Call(name.replace(" ", "."), called=False)),
    "STACK_GLOBAL": lambda m, _: m.name(*[m.pop(), m.pop()][::-1]),
    "REDUCE": lambda m, _: m.call_top(),
    "NEWOBJ": lambda m, _: m.call_top(new=True),
    "NEWOBJ_EX": lambda m, _: (m.pop(), m.call_top(new=True)),
    "INST": lambda m, name: m.call(
        Call(name.replace(" ", "."), called=False), tuple(m.above_mark()), new=True
    ),
    "OBJ": lambda m, _: m.object_of(*m.above_mark()),
    "BUILD": lambda m, _: m.build(),
    "PERSID": lambda m, key: m.stack.append(m.persistent(key)),
    "BINPERSID": lambda m, _: m.stack.append(m.persistent(m.pop())),
}

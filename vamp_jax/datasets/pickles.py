"""Pickles from the internet: NumPy arrays and plain containers, and nothing else.

`pickle.Unpickler` with a strict `find_class` runs no foreign code, but thirty bytes can still
make it fill all memory (a huge memo index) or crash (the hash of a deeply nested key). So this is a
small interpreter of the pickle opcodes that data needs. It looks nothing up and imports nothing:
the only callables are the names in `_GLOBALS`, each written out below, and memory stays in
proportion to the file.
"""

import io
import re
import struct

import numpy as np

from vamp_jax.errors import UsageError

_GLOBALS = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",  # how protocol 2 of Python 3 writes bytes
    ("numpy.core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy._core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy.core.multiarray", "scalar"): "scalar",
    ("numpy._core.multiarray", "scalar"): "scalar",
    ("numpy.core.numeric", "_frombuffer"): "frombuffer",  # protocol 5
    ("numpy._core.numeric", "_frombuffer"): "frombuffer",
}

_CONSTANTS = {b"N": None, b"\x88": True, b"\x89": False}
_EMPTY = {b"]": list, b"}": dict, b")": tuple}
_FIXED = {b"K": "<B", b"M": "<H", b"J": "<i", b"G": ">d"}  # numbers of a fixed width
_COUNTED_BYTES = {b"C": "<B", b"B": "<I", b"\x8e": "<Q", b"\x96": "<Q"}
_COUNTED_TEXT = {b"\x8c": "<B", b"X": "<I", b"\x8d": "<Q"}
_COUNTED_LATIN1 = {b"U": "<B", b"T": "<I"}  # Python 2 strings, which hold bytes
_COUNTED_INT = {b"\x8a": "<B", b"\x8b": "<I"}
_TUPLES = {b"\x85": 1, b"\x86": 2, b"\x87": 3}
_PUT = {b"q": "<B", b"r": "<I"}
_GET = {b"h": "<B", b"j": "<I"}
_MARK = object()
_MAX_INT_BYTES = 16


class _Dtype:
    """Stands for a `numpy.dtype` that is being unpickled: plain numbers only."""

    def __init__(self, code: str):
        if not isinstance(code, str) or not re.fullmatch("b1|[iu][1248]|f[248]", code):
            raise ValueError("an array of something other than numbers")
        self.code = code
        self.order = "|"

    def numpy(self) -> np.dtype:
        return np.dtype(self.order + self.code)


class _Array:
    """Stands for an array between `_reconstruct` and the opcode that fills it."""

    def __init__(self):
        self.memo_keys = []


class _Machine:
    def __init__(self, data: bytes):
        self.file = io.BytesIO(data)
        self.copies_left = len(data)  # bytes that may still be copied out of text
        self.stack = []
        self.memo = {}

    def run(self):
        while (opcode := self.take(1)) != b".":
            self.step(opcode)
        return self.stack.pop()

    def take(self, count: int) -> bytes:
        data = self.file.read(count)
        if len(data) != count:
            raise ValueError("it ends too early")
        return data

    def number(self, code: str):
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def counted(self, code: str) -> bytes:
        return self.take(self.number(code))

    def line(self) -> str:
        line = self.file.readline()
        if not line.endswith(b"\n"):
            raise ValueError("it ends too early")
        return line[:-1].decode("latin1")

    def pop_to_mark(self) -> list:
        start = len(self.stack) - 1
        while self.stack[start] is not _MARK:  # an IndexError where there is none
            start -= 1
        items = self.stack[start + 1 :]
        del self.stack[start:]
        return items

    def put(self, key: int):
        value = self.stack[-1]
        if isinstance(value, _Array):
            value.memo_keys.append(key)
        self.memo[key] = value

    def step(self, opcode: bytes):
        if not (self.value(opcode) or self.text(opcode) or self.structure(opcode)):
            raise ValueError(f"opcode {opcode!r}, which data does not need")

    def value(self, opcode: bytes) -> bool:
        """Does an opcode whose value or memo key is in fixed bytes; whether it is one."""
        stack = self.stack
        if opcode in _CONSTANTS:
            stack.append(_CONSTANTS[opcode])
        elif opcode in _EMPTY:
            stack.append(_EMPTY[opcode]())
        elif opcode in _FIXED:
            stack.append(self.number(_FIXED[opcode]))
        elif opcode in _GET:
            stack.append(self.memo[self.number(_GET[opcode])])
        elif opcode in _PUT:
            self.put(self.number(_PUT[opcode]))
        elif opcode == b"\x94":  # memoize
            self.put(len(self.memo))
        elif opcode in _TUPLES:
            items = stack[-_TUPLES[opcode] :]
            if len(items) != _TUPLES[opcode]:
                raise IndexError
            stack[-len(items) :] = [tuple(items)]
        elif opcode in _COUNTED_BYTES:
            stack.append(self.counted(_COUNTED_BYTES[opcode]))
        elif opcode in _COUNTED_TEXT:
            stack.append(self.counted(_COUNTED_TEXT[opcode]).decode("utf-8"))
        elif opcode in _COUNTED_LATIN1:
            stack.append(self.counted(_COUNTED_LATIN1[opcode]).decode("latin1"))
        elif opcode in _COUNTED_INT:
            digits = self.counted(_COUNTED_INT[opcode])
            if len(digits) > _MAX_INT_BYTES:
                raise ValueError("an integer that is too long")
            stack.append(int.from_bytes(digits, "little", signed=True))
        else:
            return False
        return True

    def text(self, opcode: bytes) -> bool:
        """Does an opcode of protocol 0, whose value is a line of text; whether it is one."""
        stack = self.stack
        if opcode == b"I":
            text = self.line()
            stack.append({"00": False, "01": True}[text] if text in ("00", "01") else int(text))
        elif opcode == b"L":
            stack.append(int(self.line().rstrip("L")))
        elif opcode == b"F":
            stack.append(float(self.line()))
        elif opcode == b"S":
            stack.append(_unquote(self.line()))
        elif opcode == b"V":
            stack.append(self.line().encode("latin1").decode("raw_unicode_escape"))
        elif opcode == b"p":
            self.put(int(self.line()))
        elif opcode == b"g":
            stack.append(self.memo[int(self.line())])
        else:
            return False
        return True

    def structure(self, opcode: bytes) -> bool:
        """Does an opcode that works on the stack; whether it is one."""
        stack = self.stack
        if opcode == b"(":
            stack.append(_MARK)
        elif opcode == b"t":
            stack.append(tuple(self.pop_to_mark()))
        elif opcode == b"l":
            stack.append(self.pop_to_mark())
        elif opcode == b"a":
            value = stack.pop()
            self.container(list).append(value)
        elif opcode == b"e":
            items = self.pop_to_mark()
            self.container(list).extend(items)
        elif opcode == b"s":
            value, key = stack.pop(), stack.pop()
            self.fill([key, value])
        elif opcode == b"u":
            items = self.pop_to_mark()
            self.fill(items)
        elif opcode == b"d":
            items = self.pop_to_mark()
            stack.append({})
            self.fill(items)
        elif opcode == b"c":
            stack.append(self.known_global(self.line(), self.line()))
        elif opcode == b"\x93":
            name, module = stack.pop(), stack.pop()
            stack.append(self.known_global(module, name))
        elif opcode == b"R":
            arguments, function = stack.pop(), stack.pop()
            stack.append(self.call(function, arguments))
        elif opcode == b"b":
            state, target = stack.pop(), stack.pop()
            stack.append(self.build(target, state))
        elif opcode == b"0":
            stack.pop()
        elif opcode == b"1":
            self.pop_to_mark()
        elif opcode == b"\x80":  # protocol
            self.take(1)
        elif opcode == b"\x95":  # frame
            self.take(8)
        else:
            return False
        return True

    def container(self, kind: type):
        if type(self.stack[-1]) is not kind:
            raise ValueError(f"no {kind.__name__} where one is filled")
        return self.stack[-1]

    def fill(self, items: list):
        target = self.container(dict)
        if len(items) % 2 or any(type(key) not in (str, int) for key in items[::2]):
            raise ValueError("a dictionary whose keys are not strings")
        target.update(zip(items[::2], items[1::2], strict=True))

    def known_global(self, module: str, name: str) -> tuple[str]:
        if (module, name) not in _GLOBALS:
            raise ValueError(f"a reference to {str(module)[:80]}.{str(name)[:80]}")
        return (_GLOBALS[module, name],)

    def call(self, function: tuple[str], arguments: tuple):
        (name,) = function
        if type(arguments) is not tuple:
            raise ValueError("arguments that are not a tuple")
        if name == "dtype":
            return _Dtype(arguments[0])
        if name == "encode":
            text, encoding = arguments
            if encoding != "latin1":
                raise ValueError(f"the encoding {str(encoding)[:80]}")
            return self.raw(text)
        if name == "reconstruct":
            return _Array()
        if name == "scalar":
            dtype, raw = arguments
            return _array(self.raw(raw), dtype, (), "C").item()
        if name == "frombuffer":
            raw, dtype, shape, order = arguments
            return _array(self.raw(raw), dtype, shape, order)
        raise ValueError(f"a call of {name}")

    def build(self, target, state):
        if isinstance(target, _Dtype):
            if type(state[1]) is not str or state[1] not in ("<", ">", "|", "="):
                raise ValueError("an unknown byte order")
            target.order = state[1]
            return target
        if not isinstance(target, _Array):
            raise ValueError("a state for something other than an array")
        _, shape, dtype, fortran, raw = state
        array = _array(self.raw(raw), dtype, shape, "F" if fortran else "C")
        for key in target.memo_keys:
            self.memo[key] = array
        return array

    def raw(self, value: bytes | str) -> bytes:
        """The bytes of an array; Python 2 pickles hold them as text."""
        if type(value) is str:
            self.copies_left -= len(value)
            if self.copies_left < 0:
                raise ValueError("the same bytes again and again")
            return value.encode("latin1")
        if type(value) is not bytes:
            raise ValueError("an array without bytes")
        return value


def _array(raw: bytes, dtype: _Dtype, shape: tuple, order: str) -> np.ndarray:
    """A view of `raw`, without a copy; a shape that promises more than there is fails."""
    if not isinstance(dtype, _Dtype) or type(shape) is not tuple:
        raise ValueError("an array without type or shape")
    if any(type(size) is not int or size < 0 for size in shape) or order not in ("C", "F"):
        raise ValueError("an array with an impossible shape")
    return np.frombuffer(raw, dtype.numpy()).reshape(shape, order=order)


def _unquote(text: str) -> str:
    """What Python 2's repr() of a string of bytes stands for."""
    if len(text) < 2 or text[0] != text[-1] or text[0] not in "'\"":
        raise ValueError("a string without quotes")
    text = text[1:-1].encode("latin1").decode("unicode_escape")
    text.encode("latin1")
    return text


def loads(data: bytes, path: str):
    """Reads a pickle of arrays, numbers, strings, lists, tuples and dictionaries.

    Args:
      data: the whole pickle, of any protocol from 0 to 5.
      path: what the error calls it.

    Raises:
      UsageError: damaged, or holds anything else; nothing in it has been run.
    """
    try:
        return _Machine(data).run()
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        reason = str(error)[:120] if type(error) is ValueError else "it is damaged"
        raise UsageError(
            f"{path} is not a pickle of NumPy arrays ({reason}): replace it by the official file"
        ) from None

"""Devices, graphs, weights, sessions and named networks."""
import atexit
import ctypes
import dataclasses
import operator
import os
import sys
import weakref
from ctypes import byref, c_float, c_int, c_void_p
from typing import Any, Callable, Dict, Iterator, List, Mapping, NewType, Optional, Sequence, Tuple, TypeVar, Union

import numpy as np
from numpy.typing import NDArray

from . import _library as native
from ._library import lib

Value = NewType("Value", int)  # of a graph
Array = NDArray[Any]
_Self = TypeVar("_Self", bound="_Object")
_ACTIVATIONS = {None: 0, "relu": 1, "elu": 2}
_BRANCHES = {None: 0, "decorrelate": 1, "reweight": 2}
_TYPES = {"float32": 0, "float16": 1, "uint8": 2, "int32": 3}
_LAYOUTS = {"NCHW": 0, "NHWC": 1}
_PARTS = {"all": 0, "forward": 1, "backward": 2}
_LEVELS = {"error": 1, "warning": 2, "info": 3, "debug": 4}
_NUM_DIMS = 4


def _chosen(choices: Mapping[Any, int], value: Any, what: str) -> int:
    if value not in choices:
        raise ValueError("%s is %r, not one of %s" % (what, value, ", ".join(repr(choice) for choice in choices)))
    return choices[value]


def _array(values: Array, dtype: Any, shape: Optional[Sequence[int]], what: str) -> Array:
    """The array itself, or a copy where its elements do not lie one behind the other at addresses that C has for their type. Its type
    has to be right."""
    if not isinstance(values, np.ndarray):
        raise TypeError("%s: a NumPy array is wanted, not %s" % (what, type(values).__name__))
    if values.dtype != np.dtype(dtype):
        raise TypeError("%s: elements are %s, %s is wanted" % (what, values.dtype, np.dtype(dtype)))
    if shape is not None and values.shape != tuple(shape):
        raise ValueError("%s: the shape is %s, %s is wanted" % (what, values.shape, tuple(shape)))
    return np.require(values, requirements=["C_CONTIGUOUS", "ALIGNED", "ENSUREARRAY"])


def _int(value: Any, what: str, low: int = -2**31, high: int = 2**31 - 1) -> int:
    """An integer, NumPy's too. ctypes would cut what is outside of C's type to its lower bits."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError("%s: an integer is wanted, not %r" % (what, value)) from None
    if not low <= number <= high:
        raise ValueError("%s is %d, outside %d .. %d" % (what, number, low, high))
    return number


def _ints(**values: Any) -> Tuple[int, ...]:
    return tuple(_int(value, what) for what, value in values.items())


def _seed(seed: int) -> int:
    return _int(seed, "seed", 0, 2**64 - 1)


def _text(text: str, what: str = "name") -> bytes:
    """As C has it; it would end at a NUL."""
    if not isinstance(text, str):
        raise TypeError("%s: a str is wanted, not %r" % (what, text))
    if "\0" in text:
        raise ValueError("%s: %r has a NUL" % (what, text))
    return text.encode()


def _path(path: Union[str, "os.PathLike[str]"]) -> bytes:
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError("path: %r has a NUL" % (path,))
    return encoded


def _images(images: Array) -> Array:
    checked = _array(images, np.float32, None, "images")
    if checked.ndim != _NUM_DIMS or checked.shape[1] != 3 or checked.size == 0:
        raise ValueError("images: the shape is %s, (n, 3, h, w) is wanted" % (checked.shape,))
    return checked


def _pointer(array: Array) -> int:
    return array.ctypes.data


# ---- log

_log_fn = native.LogFn(0)  # the one that the library has


def set_log(function: Optional[Callable[[str, str], object]], level: str = "warning") -> None:
    """function(level, text) gets every line of the log up to `level`: "error", "warning", "info" or "debug". None, as at the start:
    silence. Call this before other threads use the library. The function may be called from any thread, one call at a time; it must not use the
    library. What it raises is printed by Python, and goes no further."""
    global _log_fn
    number = _chosen(_LEVELS, level, "level")
    names = {value: name for name, value in _LEVELS.items()}
    call = function  # mypy: not None in what follows

    def take(_: object, number: int, text: bytes) -> None:
        if call:
            call(names[number], text.decode("utf-8", "replace"))

    made = native.LogFn(take) if function else native.LogFn(0)
    lib.eq_log_set(made, None, number)
    _log_fn = made  # the one before goes when the library has it no more


atexit.register(set_log, None)  # threads of the library must not call an interpreter that is gone


# ---- handles

class _Handle:
    """A handle of the library's. It is destroyed after those that were made with it, whatever order it is closed or collected
    in: the collector finalises an unreachable group in any order and clears its weak references before, so users are counted as well."""

    def __init__(self, pointer: c_void_p, destroy: Any, owners: "Tuple[_Handle, ...]") -> None:
        self.pointer, self._destroy, self._owners = pointer, destroy, owners
        self.is_closed = False
        self._num_users = 0
        self._users: "weakref.WeakSet[_Handle]" = weakref.WeakSet()
        for owner in owners:
            owner._users.add(self)
            owner._num_users += 1

    def close(self) -> None:
        """Closes those that were made with it, then itself: now, or when a user goes that the collector has in hand."""
        for user in list(self._users):
            user.close()
        self.is_closed = True
        self._finish()

    __del__ = close

    @property
    def is_used(self) -> bool:
        return self._num_users > 0

    def _finish(self, byref: Any = byref) -> None:  # a default stays when the interpreter clears its modules
        if not self.is_closed or self._num_users > 0 or not self.pointer:
            return
        if self._destroy:
            self._destroy(byref(self.pointer))
        self.pointer.value = None
        owners, self._owners = self._owners, ()
        for owner in owners:
            owner._num_users -= 1
            owner._finish()


class _Object:
    """Something of the library's. It keeps what it needs alive, and goes when it is closed or collected."""

    _destroy: Optional[str] = None  # function of the library
    _held: _Handle

    def __init__(self, pointer: c_void_p, *owners: "_Object") -> None:
        destroy = getattr(lib, self._destroy) if self._destroy else None
        self._held = _Handle(pointer, destroy, tuple(owner._held for owner in owners))

    @property
    def handle(self) -> c_void_p:
        if self._held.is_closed:
            raise ValueError("this %s is closed" % type(self).__name__)
        return self._held.pointer

    def close(self) -> None:
        """Destroys it, and before it what was made with it. Closing twice does nothing."""
        self._held.close()

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _handle_of(thing: Any, kind: "type[_Object]", what: str) -> c_void_p:
    """Of an object of that class: the library takes any pointer for what it should be."""
    if not isinstance(thing, kind):
        raise TypeError("%s: a %s is wanted, not %s" % (what, kind.__name__, type(thing).__name__))
    return thing.handle


# ---- devices

@dataclasses.dataclass(frozen=True)
class DeviceInfo:
    """A device before it is opened; see eq_device_info in device.h."""
    index: int
    platform: str
    name: str
    vendor: str
    driver: str
    kind: str
    compute_units: int
    memory_bytes: int
    is_usable: bool
    is_chosen: bool
    reason: str


def devices(selector: Union[str, int, None] = None) -> List[DeviceInfo]:
    """Every device of every platform; is_chosen: what Device(selector) would open."""
    infos, num = ctypes.POINTER(native.DeviceInfo)(), c_int()
    lib.eq_device_list(_selector(selector), byref(infos), byref(num))

    def field(info: native.DeviceInfo, name: str) -> Any:
        value = getattr(info, name)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    found = [DeviceInfo(*(field(infos[i], name) for name in DeviceInfo.__annotations__)) for i in range(num.value)]
    lib.eq_device_list_free(byref(infos))
    return found


def _selector(selector: Union[str, int, None]) -> Optional[bytes]:
    return None if selector is None else _text(selector if isinstance(selector, str) else str(_int(selector, "selector", 0)), "selector")


def _opencl(thing: Any, kind: str, what: str) -> Optional[int]:
    """The OpenCL handle in an object of pyopencl's class `kind`, or a handle; None stays. The loader would crash on one of another kind."""
    if thing is None or isinstance(thing, int):
        return thing
    wanted = getattr(sys.modules.get("pyopencl"), kind, None)  # nobody can have an object of it without it
    if wanted is None or not isinstance(thing, wanted):
        raise TypeError("%s: a %s of pyopencl's, or its handle as an integer, is wanted, not %s" % (what, kind, type(thing).__name__))
    return int(thing.int_ptr)


class Device(_Object):
    """An opened device: "gpu", "cpu", an index of devices(), or a part of its name, vendor or platform; None: EQUIL_DEVICE, else the
    first GPU, else the first CPU."""

    _destroy = "eq_device_destroy"

    def __init__(self, selector: Union[str, int, None] = None) -> None:
        handle = c_void_p()
        lib.eq_device_open(_selector(selector), byref(handle))
        super().__init__(handle)

    @classmethod
    def adopt(cls, context: Any, queue: Any = None, device: Any = None) -> "Device":
        """From pyopencl's context, queue (None: one of Equil's own) and device (None: the context's only one), or their handles as
        integers. They are retained, and nothing of them is changed."""
        params = native.OpenclParams(_opencl(context, "Context", "context"), _opencl(device, "Device", "device"),
                                     _opencl(queue, "CommandQueue", "queue"))
        handle = c_void_p()
        lib.eq_device_adopt(byref(params), byref(handle))
        made = cls.__new__(cls)
        _Object.__init__(made, handle)
        return made

    @property
    def name(self) -> str:
        return str(lib.eq_device_name(self.handle).decode())

    @property
    def driver(self) -> str:
        return str(lib.eq_device_driver(self.handle).decode())

    @property
    def tuning(self) -> str:
        return str(lib.eq_device_tuning_text(self.handle).decode())

    @property
    def peak_bytes(self) -> int:
        """Largest number of bytes that were allocated at one time."""
        return int(lib.eq_device_peak_bytes(self.handle))

    @property
    def precision(self) -> str:
        return str(lib.eq_device_precision_text(self.handle).decode())

    def set_precision(self, name: str) -> None:
        """"fp32", "tf32", "fp16" or "bf16", of what will be made with the device."""
        value = c_int()
        lib.eq_precision_parse(_text(name, "precision"), byref(value))
        lib.eq_device_set_precision(self.handle, value)


# ---- graphs

class Graph(_Object):
    """A graph, built op by op for one batch size and image size; no device is needed. Ops return values, which other ops take. It cannot
    be changed while a session uses it. As in graph.h, 0 stands for the default of eps, momentum, group, iterations, reduction, stride."""

    _destroy = "eq_graph_destroy"

    def __init__(self) -> None:
        handle = c_void_p()
        lib.eq_graph_create(byref(handle))
        super().__init__(handle)

    @property
    def _open(self) -> c_void_p:
        """The handle, of a graph that may be changed."""
        if self._held.is_used:
            raise ValueError("a session uses this graph: it cannot be changed any more")
        return self.handle

    def _op(self, name: str, *arguments: Any) -> Value:
        value = c_int()
        getattr(lib, "eq_graph_" + name)(self._open, *arguments, byref(value))
        return Value(value.value)

    def shape(self, value: Value) -> Tuple[int, ...]:
        """[n, c, h, w] of activations, [n, c] of rows, [n] of labels and losses."""
        shape, rank = (c_int * _NUM_DIMS)(), c_int()
        lib.eq_graph_shape(self.handle, _int(value, "value"), shape, byref(rank))
        return tuple(shape)[:rank.value]

    def input(self, name: str, n: int, c: int, h: int, w: int) -> Value:
        """float32 [n, c, h, w]"""
        return self._op("input", _text(name), *_ints(n=n, c=c, h=h, w=w))

    def labels(self, name: str, n: int) -> Value:
        """int32 [n]"""
        return self._op("labels", _text(name), *_ints(n=n))

    def conv2d(self, x: Value, name: str, out_channels: int, kernel: int, stride: int = 1, pad: int = 0, groups: int = 1) -> Value:
        """Makes NAME.weight [out_channels, c / groups, kernel, kernel]; no bias."""
        k, s, p = _ints(kernel=kernel, stride=stride, pad=pad)
        params = native.Conv2dParams(_int(out_channels, "out_channels"), k, k, s, s, p, p, _int(groups, "groups"))
        return self._op("conv2d", _int(x, "x"), _text(name), byref(params))

    def batch_norm(self, x: Value, name: str, eps: float = 1e-5, momentum: float = 0.1) -> Value:
        return self._op("batch_norm", _int(x, "x"), _text(name), byref(native.BatchNormParams(eps, momentum)))

    def channel_equilibrium(self, x: Value, name: str, group: int = 16, iterations: int = 3, eps: float = 1e-5, momentum: float = 0.1,
                            branch: Optional[str] = None) -> Value:
        """Shao et al., ICML 2020; x: the result of batch_norm(). branch: "decorrelate" or "reweight" alone."""
        params = _equilibrium_params(group, iterations, eps, momentum, branch)
        return self._op("channel_equilibrium", _int(x, "x"), _text(name), byref(params))

    def squeeze_excite(self, x: Value, name: str, reduction: int = 16) -> Value:
        params = native.SqueezeExciteParams(*_ints(reduction=reduction))
        return self._op("squeeze_excite", _int(x, "x"), _text(name), byref(params))

    def add(self, a: Value, b: Value) -> Value:
        return self._op("add", *_ints(a=a, b=b))

    def activation(self, x: Value, name: str = "relu") -> Value:
        """"relu" or "elu\""""
        if name is None:
            raise ValueError("activation is None, not one of 'relu', 'elu'")
        return self._op("activation", _int(x, "x"), _chosen(_ACTIVATIONS, name, "activation"))

    def max_pool(self, x: Value, kernel: int, stride: int = 0, pad: int = 0) -> Value:
        """Square windows; stride 0 means kernel."""
        return self._op("max_pool", _int(x, "x"), byref(native.PoolParams(*_ints(kernel=kernel, stride=stride, pad=pad))))

    def mean_pool(self, x: Value) -> Value:
        """[n, c, h, w] -> [n, c]"""
        return self._op("mean_pool", _int(x, "x"))

    def linear(self, x: Value, name: str, features: int) -> Value:
        """[n, c] -> [n, features]"""
        return self._op("linear", _int(x, "x"), _text(name), _int(features, "features"))

    def cross_entropy(self, logits: Value, labels: Value, smoothing: float = 0) -> Value:
        """[n, k], [n] -> [n]"""
        return self._op("cross_entropy", *_ints(logits=logits, labels=labels), smoothing)

    def model(self, x: Value, arch: str, classes: int, small: bool = False, act: Optional[str] = None, recompute: bool = False) -> Value:
        """Appends a named network, "ce-resnet50": [n, 3, h, w] -> logits [n, classes]."""
        params, value = _model_params(arch, classes, small, act, recompute), c_int()
        lib.eq_model_build(self._open, byref(params), _int(x, "x"), byref(value))
        return Value(value.value)

    def label(self, value: Value, name: str) -> None:
        """Names the call that made the value, for find()."""
        lib.eq_graph_label(self._open, _int(value, "value"), _text(name))

    def find(self, name: str) -> Value:
        """The value that a call made: "layer1.0.conv1"; "layer1.0" and "layer1" stand for what comes out at their ends."""
        value = c_int()
        lib.eq_graph_find(self.handle, _text(name), byref(value))
        return Value(value.value)

    def output(self, value: Value, name: str) -> None:
        """Names a value, to be read after a run."""
        lib.eq_graph_output(self._open, _int(value, "value"), _text(name))


def _model_params(arch: str, classes: int, small: bool, act: Optional[str], recompute: bool) -> native.ModelParams:
    return native.ModelParams(_text(arch, "arch"), _int(classes, "classes"), small, _chosen(_ACTIVATIONS, act, "act"), recompute)


def _equilibrium_params(group: int, iterations: int, eps: float, momentum: float, branch: Optional[str]) -> native.EquilibriumParams:
    return native.EquilibriumParams(*_ints(group=group, iterations=iterations), eps, momentum, _chosen(_BRANCHES, branch, "branch"))


# ---- weights

class Weights(_Object):
    """The parameters and running statistics of a graph on a device, as a dict of PyTorch's names and float32 arrays: what is read is a
    copy, and what is assigned is copied to the device. Tensors can neither be added nor deleted."""

    _destroy: Optional[str] = "eq_weights_destroy"

    def __init__(self, device: Device, graph: Graph) -> None:
        handle = c_void_p()
        lib.eq_weights_create(_handle_of(device, Device, "device"), _handle_of(graph, Graph, "graph"), byref(handle))
        super().__init__(handle, device)
        self._read_list()

    @classmethod
    def _of(cls, network: "Network") -> "Weights":
        """Those of a network, which destroys them."""
        made = cls.__new__(cls)
        made._destroy = None
        _Object.__init__(made, c_void_p(lib.eq_network_weights(network.handle)), network)
        made._read_list()
        return made

    def _read_list(self) -> None:
        self._tensors: Dict[str, Tuple[Tuple[int, ...], bool]] = {}
        for i in range(lib.eq_weights_num(self.handle)):
            tensor = lib.eq_weights_at(self.handle, i)
            self._tensors[tensor.name.decode()] = tuple(tensor.shape)[:tensor.rank], tensor.is_parameter

    def __len__(self) -> int:
        return len(self._tensors)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def keys(self) -> List[str]:
        return list(self._tensors)

    def items(self) -> Iterator[Tuple[str, Array]]:
        """Copies, made one after the other."""
        return ((name, self[name]) for name in self._tensors)

    def parameters(self) -> List[str]:
        """Names of what is trained; the others are running statistics."""
        return [name for name, (_, is_parameter) in self._tensors.items() if is_parameter]

    def shape(self, name: str) -> Tuple[int, ...]:
        if name not in self._tensors:
            raise KeyError("no tensor %s" % name)
        return self._tensors[name][0]

    def __getitem__(self, name: str) -> Array:
        values = np.empty(self.shape(name), np.float32)
        lib.eq_weights_read(self.handle, name.encode(), _pointer(values))
        return values

    def __setitem__(self, name: str, values: Array) -> None:
        checked = _array(values, np.float32, self.shape(name), name)
        lib.eq_weights_write(self.handle, name.encode(), _pointer(checked))

    def gradient(self, name: str) -> Array:
        """Of a parameter, from the last run that was differentiated."""
        values = np.empty(self.shape(name), np.float32)
        lib.eq_weights_read_gradient(self.handle, name.encode(), _pointer(values))
        return values

    def initialise(self, seed: int = 0) -> None:
        lib.eq_weights_initialise(self.handle, _seed(seed))

    def load(self, source: Union[str, "os.PathLike[str]", bytes], new_head: bool = False, seed: int = 0) -> None:
        """A safetensors file: its path, or its bytes. new_head: a classifier of another shape starts anew, by the seed."""
        if not isinstance(source, bytes):
            lib.eq_weights_load(self.handle, _path(source), new_head, _seed(seed))
            return
        file = c_void_p()
        lib.eq_tensors_open_memory(b"memory", source, len(source), byref(file))
        try:
            lib.eq_weights_load_tensors(self.handle, file, new_head, _seed(seed))
        finally:
            lib.eq_tensors_close(byref(file))

    def save(self, path: Union[str, "os.PathLike[str]"], metadata: Optional[Mapping[str, str]] = None) -> None:
        """As safetensors, atomically."""
        texts = [(_text(key, "metadata"), _text(value, "metadata")) for key, value in (metadata or {}).items()]
        array = (native.TensorsText * max(len(texts), 1))(*(native.TensorsText(*text) for text in texts))
        lib.eq_weights_save(self.handle, _path(path), array, len(texts))


# ---- sessions

def _four(numbers: Sequence[int], what: str, low: int = -2**31) -> Tuple[int, ...]:
    """Of n, c, h, w."""
    if len(numbers) != _NUM_DIMS:
        raise ValueError("%s: %d numbers are wanted, not %s" % (what, _NUM_DIMS, tuple(numbers)))
    return tuple(_int(number, what, low) for number in numbers)


class Session(_Object):
    """A graph compiled for a device; inputs and outputs by name: session["images"] = array, session["logits"]."""

    _destroy = "eq_session_destroy"

    def __init__(self, weights: Weights, graph: Graph, training: bool = False, differentiate: Optional[Value] = None,
                 input_gradients: bool = False, recompute: bool = False) -> None:
        """differentiate: a named value of the graph, in training. Of a cross entropy it is the mean over the images; of any other value
        the gradient comes from an input "grad.NAME"."""
        params = native.SessionParams(training, _int(differentiate or 0, "differentiate"), input_gradients, recompute)
        handle = c_void_p()
        lib.eq_session_create(_handle_of(weights, Weights, "weights"), _handle_of(graph, Graph, "graph"), byref(params), byref(handle))
        super().__init__(handle, weights, graph)

    @classmethod
    def ce_block(cls, device: Device, shape: Sequence[int], training: bool = False, eps: float = 1e-5, momentum: float = 0.1,
                 group: int = 16, iterations: int = 3, ce_eps: float = 1e-5, ce_momentum: float = 0.1,
                 branch: Optional[str] = None) -> "Session":
        """Batch norm and Channel Equilibrium alone, for x [n, c, h, w]: every tensor is bound, parameters ("bn.weight", "ce.x_weight", ...)
        and "workspace" (workspace_bytes) too; see eq_session_create_ce_block() in opencl.h."""
        norm = native.BatchNormParams(eps, momentum)
        equilibrium = _equilibrium_params(group, iterations, ce_eps, ce_momentum, branch)
        params, handle = native.CeBlockParams(*_four(shape, "shape"), training, norm, equilibrium), c_void_p()
        lib.eq_session_create_ce_block(_handle_of(device, Device, "device"), byref(params), byref(handle))
        made = cls.__new__(cls)
        _Object.__init__(made, handle, device)
        return made

    @property
    def bytes(self) -> int:
        """On the device, without the weights."""
        return int(lib.eq_session_bytes(self.handle))

    @property
    def workspace_bytes(self) -> int:
        return int(lib.eq_session_workspace_bytes(self.handle))

    def _describe(self, name: str) -> Tuple[Tuple[int, ...], Any]:
        tensor = native.SessionTensor()
        lib.eq_session_describe(self.handle, _text(name), byref(tensor))
        return tuple(tensor.shape)[:tensor.rank], np.int32 if tensor.is_int32 else np.float32

    def shape(self, name: str) -> Tuple[int, ...]:
        return self._describe(name)[0]

    def __setitem__(self, name: str, values: Array) -> None:
        shape, dtype = self._describe(name)
        checked = _array(values, dtype, shape, name)
        lib.eq_session_write(self.handle, name.encode(), _pointer(checked))

    def __getitem__(self, name: str) -> Array:
        values = np.empty(*self._describe(name))
        lib.eq_session_read(self.handle, name.encode(), _pointer(values))
        return values

    def run(self) -> None:
        """Enqueues forward and, where it is differentiated, backward; reading a result waits."""
        lib.eq_session_run(self.handle)

    def forward(self) -> None:
        lib.eq_session_forward(self.handle)

    def backward(self) -> None:
        lib.eq_session_backward(self.handle)

    def update(self, rate: float, momentum: float = 0, weight_decay: float = 0) -> None:
        """SGD, PyTorch's rule, from the gradients of the last run."""
        lib.eq_session_update(self.handle, byref(native.SgdParams(rate, momentum, weight_decay)))

    def wait(self) -> None:
        lib.eq_session_wait(self.handle)

    # ---- with pyopencl

    def bind(self, name: str, buffer: Any, dtype: Optional[str] = None, offset: int = 0, layout: str = "NCHW",
             strides: Optional[Sequence[int]] = None, scale: Optional[Array] = None, shift: Optional[Array] = None) -> None:
        """An input is read from, or an output written to, pyopencl's buffer (or a cl_mem's handle) from the next run on; None: the
        session's own memory again. dtype: float32, float16, uint8 or int32; offset in bytes; strides [4] of n, c, y, x in elements (None:
        dense); scale, shift: float32 [c], of value * scale + shift."""
        memory = _opencl(buffer, "MemoryObjectHolder", name)
        view = native.OpenclView(memory, _TYPES[str(np.dtype(self._describe(name)[1]))], _int(offset, name + ": offset", 0, 2**63 - 1),
                                 _chosen(_LAYOUTS, layout, "layout"))
        if dtype is not None:
            view.type = _chosen(_TYPES, dtype, "dtype")
        if strides is not None:
            view.stride = (ctypes.c_size_t * _NUM_DIMS)(*_four(strides, name + ": strides", 0))
        kept = []
        for field, values in ("scale", scale), ("shift", shift):
            if values is not None:
                kept.append(_array(values, np.float32, self.shape(name)[1:2], "%s: %s" % (name, field)))
                setattr(view, field, kept[-1].ctypes.data_as(ctypes.POINTER(c_float)))
        lib.eq_session_bind(self.handle, _text(name), byref(view) if buffer is not None else None)

    def enqueue(self, part: str = "all", wait_for: Sequence[Any] = ()) -> Any:
        """Runs "all", "forward" or "backward" after pyopencl's events; returns an event of the end."""
        import pyopencl
        events = (c_void_p * max(len(wait_for), 1))(*(_opencl(event, "Event", "wait_for") for event in wait_for))
        event = c_void_p()
        lib.eq_session_enqueue(self.handle, _chosen(_PARTS, part, "part"), events, len(wait_for), byref(event))
        return pyopencl.Event.from_int_ptr(event.value, retain=False)


# ---- the block alone, over arrays

class CEBlock:
    """Batch norm and Channel Equilibrium alone (Shao et al., ICML 2020) over NumPy arrays, for x float32 [n, c, h, w] of one shape.
    `weights` has its parameters and running statistics, "bn.weight", "ce.x_weight", ..., and after backward() their gradients. Over
    pyopencl's buffers: Session.ce_block()."""

    def __init__(self, device: Device, shape: Sequence[int], eps: float = 1e-5, momentum: float = 0.1, group: int = 16, iterations: int = 3,
                 ce_eps: float = 1e-5, ce_momentum: float = 0.1, branch: Optional[str] = None) -> None:
        self._graph = Graph()
        n, c, h, w = _four(shape, "shape")
        x = self._graph.input("x", n, c, h, w)
        self._y = self._graph.channel_equilibrium(self._graph.batch_norm(x, "bn", eps, momentum), "ce", group, iterations, ce_eps,
                                                  ce_momentum, branch)
        self._graph.output(self._y, "y")
        self.weights = Weights(device, self._graph)
        self._training: Optional[Session] = None
        self._evaluation: Optional[Session] = None

    def forward(self, x: Array) -> Array:
        """Training: y from the batch's statistics, which move the running ones."""
        if self._training is None:
            self._training = Session(self.weights, self._graph, training=True, differentiate=self._y, input_gradients=True)
        self._training["x"] = x
        self._training.forward()
        return self._training["y"]

    def backward(self, grad_y: Array) -> Array:
        """The gradient of x, of the last forward(), each of which takes one backward(); of the parameters: weights.gradient(NAME)."""
        if self._training is None:
            raise ValueError("backward() before any forward()")
        self._training["grad.y"] = grad_y
        self._training.backward()
        return self._training["grad.x"]

    def evaluate(self, x: Array) -> Array:
        """Evaluation: y from the running statistics, which forward() or whoever writes them has to have set before."""
        if self._evaluation is None:
            self._evaluation = Session(self.weights, self._graph)
        self._evaluation["x"] = x
        self._evaluation.run()
        return self._evaluation["y"]

    def close(self) -> None:
        """Destroys the weights and what is made with them. Closing twice does nothing."""
        self.weights.close()
        self._graph.close()

    def __enter__(self) -> "CEBlock":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# ---- named networks

class Network(_Object):
    """A named network with its weights: "ce-resnet50", "resnet20", ... For other inputs, steps of training on the device or intermediate
    tensors: Graph.model(), Weights and Session."""

    _destroy = "eq_network_destroy"

    def __init__(self, device: Device, arch: str, classes: int, small: bool = False, act: Optional[str] = None,
                 recompute: bool = False) -> None:
        handle = c_void_p()
        params = _model_params(arch, classes, small, act, recompute)
        lib.eq_network_create(_handle_of(device, Device, "device"), byref(params), byref(handle))
        super().__init__(handle, device)
        self.classes = classes
        self._weights: "Optional[weakref.ref[Weights]]" = None

    @property
    def weights(self) -> Weights:
        known = self._weights() if self._weights else None
        if known is None:
            known = Weights._of(self)
            self._weights = weakref.ref(known)
        return known

    def predict(self, images: Array) -> Array:
        """Evaluation: float32 [n, 3, h, w] -> logits float32 [n, classes]. The first call for a shape compiles."""
        checked = _images(images)
        n, _, h, w = checked.shape
        logits = np.empty((n, self.classes), np.float32)
        lib.eq_network_infer(self.handle, n, h, w, _pointer(checked), _pointer(logits))
        return logits

    def gradients(self, images: Array, labels: Array, smoothing: float = 0) -> Tuple[float, Array]:
        """Training mode, forward and backward: labels int64 [n] -> mean loss and logits; weights.gradient(NAME) has the gradients. Running
        statistics move, parameters do not."""
        checked = _images(images)
        n, _, h, w = checked.shape
        targets = _array(labels, np.int64, (n,), "labels")
        logits, loss = np.empty((n, self.classes), np.float32), c_float()
        lib.eq_network_gradients(self.handle, n, h, w, _pointer(checked), _pointer(targets), smoothing, byref(loss), _pointer(logits))
        return loss.value, logits

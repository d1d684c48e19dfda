"""libequil.so by ctypes: its structs, functions and errors. Structs are those of include/equil; tests/python compares them."""
import ctypes
import ctypes.util
import os
from ctypes import POINTER, c_bool, c_char, c_char_p, c_float, c_int, c_size_t, c_uint64, c_void_p
from typing import Any, Iterator, List

MAJOR, MINOR = 0, 1  # of the headers that the structs below are those of


class Error(Exception):
    """A call of the library failed; the text is the library's. `status`: "EQ_ERR_SHAPE", for example."""

    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status


class DeviceInfo(ctypes.Structure):
    _fields_ = [
        ("index", c_int), ("platform", c_char * 128), ("platform_version", c_char * 128), ("name", c_char * 128),
        ("vendor", c_char * 128), ("version", c_char * 128), ("driver", c_char * 128), ("kind", c_char * 16),
        ("compute_units", c_int), ("clock_mhz", c_int), ("memory_bytes", c_size_t), ("max_alloc_bytes", c_size_t),
        ("local_bytes", c_size_t), ("max_group", c_size_t), ("vector_width", c_int), ("has_fma", c_bool), ("pci", c_char * 16),
        ("is_usable", c_bool), ("is_chosen", c_bool), ("reason", c_char * 160),
    ]


class Conv2dParams(ctypes.Structure):
    _fields_ = [(name, c_int) for name in (
        "out_channels", "kernel_h", "kernel_w", "stride_h", "stride_w", "pad_h", "pad_w", "groups")]


class BatchNormParams(ctypes.Structure):
    _fields_ = [("eps", c_float), ("momentum", c_float)]


class EquilibriumParams(ctypes.Structure):
    _fields_ = [("group", c_int), ("iterations", c_int), ("eps", c_float), ("momentum", c_float), ("branch", c_int)]


class SqueezeExciteParams(ctypes.Structure):
    _fields_ = [("reduction", c_int)]


class PoolParams(ctypes.Structure):
    _fields_ = [("kernel", c_int), ("stride", c_int), ("pad", c_int)]


class ModelParams(ctypes.Structure):
    _fields_ = [("arch", c_char_p), ("classes", c_int), ("small", c_bool), ("act", c_int), ("recompute", c_bool)]


class WeightsTensor(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("rank", c_int), ("shape", c_int * 4), ("elems", c_size_t), ("is_parameter", c_bool)]


class TensorsText(ctypes.Structure):
    _fields_ = [("key", c_char_p), ("value", c_char_p)]


class SessionParams(ctypes.Structure):
    _fields_ = [("training", c_bool), ("differentiate", c_int), ("input_gradients", c_bool), ("recompute", c_bool)]


class SessionTensor(ctypes.Structure):
    _fields_ = [("shape", c_int * 4), ("rank", c_int), ("is_int32", c_bool), ("is_input", c_bool)]


class SgdParams(ctypes.Structure):
    _fields_ = [("rate", c_float), ("momentum", c_float), ("weight_decay", c_float)]


class OpenclParams(ctypes.Structure):
    _fields_ = [("context", c_void_p), ("device", c_void_p), ("queue", c_void_p)]


class OpenclView(ctypes.Structure):
    _fields_ = [("memory", c_void_p), ("type", c_int), ("offset_bytes", c_size_t), ("layout", c_int), ("stride", c_size_t * 4),
                ("scale", POINTER(c_float)), ("shift", POINTER(c_float))]


class CeBlockParams(ctypes.Structure):
    _fields_ = [("n", c_int), ("c", c_int), ("h", c_int), ("w", c_int), ("training", c_bool), ("norm", BatchNormParams),
                ("equilibrium", EquilibriumParams)]


# Python's name and C's, for the test that compares them.
STRUCTS = {
    "eq_device_info": DeviceInfo, "eq_conv2d_params": Conv2dParams, "eq_batch_norm_params": BatchNormParams,
    "eq_equilibrium_params": EquilibriumParams, "eq_squeeze_excite_params": SqueezeExciteParams, "eq_pool_params": PoolParams,
    "eq_model_params": ModelParams, "eq_weights_tensor": WeightsTensor, "eq_tensors_text": TensorsText,
    "eq_session_params": SessionParams, "eq_session_tensor": SessionTensor, "eq_sgd_params": SgdParams,
    "eq_opencl_params": OpenclParams, "eq_opencl_view": OpenclView, "eq_ce_block_params": CeBlockParams,
}

LogFn = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_char_p)  # eq_log_fn

_STATUS = object()  # a result that is an eq_status
_P, _I, _S = c_void_p, c_int, c_char_p
_FUNCTIONS: "dict[str, tuple[Any, List[Any]]]" = {
    "eq_status_name": (_S, [_I]),
    "eq_last_error": (_S, []),
    "eq_version": (_S, []),
    "eq_log_set": (None, [LogFn, _P, _I]),
    "eq_device_list": (_STATUS, [_S, POINTER(POINTER(DeviceInfo)), POINTER(_I)]),
    "eq_device_list_free": (None, [POINTER(POINTER(DeviceInfo))]),
    "eq_device_open": (_STATUS, [_S, POINTER(_P)]),
    "eq_device_adopt": (_STATUS, [POINTER(OpenclParams), POINTER(_P)]),
    "eq_device_destroy": (None, [POINTER(_P)]),
    "eq_device_name": (_S, [_P]),
    "eq_device_driver": (_S, [_P]),
    "eq_device_precision_text": (_S, [_P]),
    "eq_device_tuning_text": (_S, [_P]),
    "eq_device_peak_bytes": (c_size_t, [_P]),
    "eq_precision_parse": (_STATUS, [_S, POINTER(_I)]),
    "eq_device_set_precision": (_STATUS, [_P, _I]),
    "eq_graph_create": (_STATUS, [POINTER(_P)]),
    "eq_graph_destroy": (None, [POINTER(_P)]),
    "eq_graph_shape": (_STATUS, [_P, _I, POINTER(_I), POINTER(_I)]),
    "eq_graph_input": (_STATUS, [_P, _S, _I, _I, _I, _I, POINTER(_I)]),
    "eq_graph_labels": (_STATUS, [_P, _S, _I, POINTER(_I)]),
    "eq_graph_conv2d": (_STATUS, [_P, _I, _S, POINTER(Conv2dParams), POINTER(_I)]),
    "eq_graph_batch_norm": (_STATUS, [_P, _I, _S, POINTER(BatchNormParams), POINTER(_I)]),
    "eq_graph_channel_equilibrium": (_STATUS, [_P, _I, _S, POINTER(EquilibriumParams), POINTER(_I)]),
    "eq_graph_squeeze_excite": (_STATUS, [_P, _I, _S, POINTER(SqueezeExciteParams), POINTER(_I)]),
    "eq_graph_add": (_STATUS, [_P, _I, _I, POINTER(_I)]),
    "eq_graph_activation": (_STATUS, [_P, _I, _I, POINTER(_I)]),
    "eq_graph_max_pool": (_STATUS, [_P, _I, POINTER(PoolParams), POINTER(_I)]),
    "eq_graph_mean_pool": (_STATUS, [_P, _I, POINTER(_I)]),
    "eq_graph_linear": (_STATUS, [_P, _I, _S, _I, POINTER(_I)]),
    "eq_graph_cross_entropy": (_STATUS, [_P, _I, _I, c_float, POINTER(_I)]),
    "eq_graph_label": (_STATUS, [_P, _I, _S]),
    "eq_graph_find": (_STATUS, [_P, _S, POINTER(_I)]),
    "eq_graph_output": (_STATUS, [_P, _I, _S]),
    "eq_model_build": (_STATUS, [_P, POINTER(ModelParams), _I, POINTER(_I)]),
    "eq_network_create": (_STATUS, [_P, POINTER(ModelParams), POINTER(_P)]),
    "eq_network_destroy": (None, [POINTER(_P)]),
    "eq_network_weights": (_P, [_P]),
    "eq_network_infer": (_STATUS, [_P, _I, _I, _I, _P, _P]),
    "eq_network_gradients": (_STATUS, [_P, _I, _I, _I, _P, _P, c_float, POINTER(c_float), _P]),
    "eq_tensors_open_memory": (_STATUS, [_S, _P, c_size_t, POINTER(_P)]),
    "eq_tensors_close": (None, [POINTER(_P)]),
    "eq_weights_create": (_STATUS, [_P, _P, POINTER(_P)]),
    "eq_weights_destroy": (None, [POINTER(_P)]),
    "eq_weights_initialise": (_STATUS, [_P, c_uint64]),
    "eq_weights_load": (_STATUS, [_P, _S, c_bool, c_uint64]),
    "eq_weights_load_tensors": (_STATUS, [_P, _P, c_bool, c_uint64]),
    "eq_weights_num": (_I, [_P]),
    "eq_weights_at": (WeightsTensor, [_P, _I]),
    "eq_weights_read": (_STATUS, [_P, _S, _P]),
    "eq_weights_write": (_STATUS, [_P, _S, _P]),
    "eq_weights_read_gradient": (_STATUS, [_P, _S, _P]),
    "eq_weights_save": (_STATUS, [_P, _S, POINTER(TensorsText), c_size_t]),
    "eq_session_create": (_STATUS, [_P, _P, POINTER(SessionParams), POINTER(_P)]),
    "eq_session_create_ce_block": (_STATUS, [_P, POINTER(CeBlockParams), POINTER(_P)]),
    "eq_session_destroy": (None, [POINTER(_P)]),
    "eq_session_bytes": (c_size_t, [_P]),
    "eq_session_workspace_bytes": (c_size_t, [_P]),
    "eq_session_write": (_STATUS, [_P, _S, _P]),
    "eq_session_read": (_STATUS, [_P, _S, _P]),
    "eq_session_describe": (_STATUS, [_P, _S, POINTER(SessionTensor)]),
    "eq_session_run": (_STATUS, [_P]),
    "eq_session_forward": (_STATUS, [_P]),
    "eq_session_backward": (_STATUS, [_P]),
    "eq_session_update": (_STATUS, [_P, POINTER(SgdParams)]),
    "eq_session_wait": (_STATUS, [_P]),
    "eq_session_bind": (_STATUS, [_P, _S, POINTER(OpenclView)]),
    "eq_session_enqueue": (_STATUS, [_P, _I, POINTER(_P), _I, POINTER(_P)]),
}


def _open() -> ctypes.CDLL:
    named = os.environ.get("EQUIL_LIBRARY")
    reasons = []

    def names() -> Iterator[str]:  # looking for a library starts programs: only where it is needed
        yield named or "libequil.so.%d.%d" % (MAJOR, MINOR)
        found = None if named else ctypes.util.find_library("equil")
        if found:
            yield found

    for name in names():
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            reasons.append(str(error))
    raise ImportError("libequil was not found: %s. Install it, or let EQUIL_LIBRARY name the file" % "; ".join(reasons))


class _Library:
    """The functions as attributes; those with a status raise Error."""

    def __init__(self) -> None:
        self._dll = _open()
        self._declare("eq_version")
        self.version: str = self.eq_version().decode()
        if self.version.split(".")[:2] != [str(MAJOR), str(MINOR)]:
            raise ImportError("%s is libequil %s; this module is for %d.%d" % (self._dll._name, self.version, MAJOR, MINOR))
        for name in _FUNCTIONS:
            self._declare(name)

    def _declare(self, name: str) -> None:
        function = getattr(self._dll, name, None)
        if function is None:
            raise ImportError("%s has no %s: it is no libequil %d.%d" % (self._dll._name, name, MAJOR, MINOR))
        result, function.argtypes = _FUNCTIONS[name]
        function.restype = c_int if result is _STATUS else result
        if result is _STATUS:
            function.errcheck = self._check
        setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:  # what __init__() has set is found before this is asked
        raise AttributeError(name)

    def _check(self, status: int, function: Any, arguments: Any) -> int:
        if status != 0:
            raise Error(self.eq_status_name(status).decode(), self.eq_last_error().decode("utf-8", "replace"))
        return status


lib = _Library()
VERSION: str = lib.version

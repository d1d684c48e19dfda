"""Channel Equilibrium networks on OpenCL devices.

    import numpy as np, equil

    with equil.Device() as device:
        network = equil.Network(device, "ce-resnet50", classes=1000)
        network.weights.load("net.safetensors")
        logits = network.predict(images)        # float32 [n, 3, h, w] -> float32 [n, 1000]

Graphs of one's own: Graph, Weights, Session. Channel Equilibrium as a layer over arrays: CEBlock. In a program that uses pyopencl:
Device.adopt(), Session.bind(), Session.enqueue(), Session.ce_block(). The library itself is libequil.so: the one that EQUIL_LIBRARY names,
else the system's. It is silent: set_log().

What the library refuses is an equil.Error with its text; arrays of another type or shape than is wanted are TypeError and ValueError,
with both, before anything reaches the library. An array whose elements do not lie one behind the other is copied first. Results are new
arrays. Closing something closes what was made with it before.

One thread at a time uses a device and what was made with it; calls let other threads of Python run. What is left to Python's collector
may be destroyed from any thread: with several, close devices or leave them to a with statement.
"""
from ._library import VERSION, Error
from .core import CEBlock, Device, DeviceInfo, Graph, Network, Session, Value, Weights, devices, set_log

__version__ = VERSION
__all__ = ["CEBlock", "Device", "DeviceInfo", "Error", "Graph", "Network", "Session", "Value", "Weights", "devices", "set_log"]

"""Channel Equilibrium networks on OpenCL devices.

    import numpy as np, equil

    with equil.Device() as device:
        network = equil.Network(device, "ce-resnet50", classes=1000)
        network.weights.load("net.safetensors")
        logits = network.predict(images)        # float32 [n, 3, h, w] -> float32 [n, 1000]

Graphs of one's own: Graph, Weights, Session. In a program that uses pyopencl: Device.adopt(), Session.bind(), Session.enqueue(),
Session.ce_block(). The library itself is libequil.so: the one that EQUIL_LIBRARY names, else the system's.

What the library refuses is an equil.Error with its text; arrays of another type or shape than is wanted are TypeError and
ValueError before anything reaches the library. One thread at a time uses a device and what was made with it.
"""
from ._library import VERSION, Error
from .core import Device, DeviceInfo, Graph, Network, Session, Value, Weights, devices

__version__ = VERSION
__all__ = ["Device", "DeviceInfo", "Error", "Graph", "Network", "Session", "Value", "Weights", "devices"]

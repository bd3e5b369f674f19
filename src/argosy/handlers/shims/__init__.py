"""What handlers written for TorchServe import as `ts.…`: base handlers, helpers, metrics. Written anew, same names.

`worker/torchserve_names.py` says which name is which module. PyTorch and the other large libraries are imported when
they are first used, so a handler that only derives from `BaseHandler` costs nothing.
"""

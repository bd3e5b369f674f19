"""Model archives of TorchServe (`.mar` and its three sisters): read, checked, unpacked, made, converted.

    path ──containers.py──▶ members ──reading.py──▶ CheckedArchive ──opening.py──▶ ModelArchive

A container is a zip, a gzipped tar or a directory; `containers.py` makes them look alike and refuses what no honest
archiver writes. `opening.py` is the only writer: an archive is unpacked aside and renamed into place, so that what
lies under its digest is whole, or nothing lies there.

An archive brings code, and that code is run, in a worker, by the room `handlers`. Nothing here imports, executes or
unpickles a byte of it. Weights that are pickles are refused; `converting.py` rewrites them in a confined process.
Packages that an archive asks for come in when somebody prepares it (`environments.py`), never when it is loaded.

Read first: `containers.py`, then `opening.py`.
"""

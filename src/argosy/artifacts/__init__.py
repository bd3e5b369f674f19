"""A model reference becomes verified files on disk.

`store.py` is the content-addressed store, `fetch.py` brings files into it from each source, `gguf.py` and
`safetensors.py` check headers before any native loader sees them. Nothing here loads weights into memory.

Read first: `store.py`.
"""

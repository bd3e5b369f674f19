"""A model reference becomes verified files on disk.

    text ──reference.py──▶ ModelRef ──fetch.py──▶ one of sources/ ──▶ blobs ──inspection.py──▶ manifest ──▶ ModelFiles

`store.py` is the content-addressed store: blobs named by their SHA-256, one manifest per reference, and a snapshot
directory per model whose files are hard links to blobs. `fetch.py` is the only writer of it; each file of
`sources/` knows one kind of place models come from and nothing of the store but where to put bytes.
`inspection.py` reads every header with our own bounded readers before any native loader sees the file (D-07, D-08),
and refuses pickles (D-04) and remote code (D-11).

This room may not know engines, text or HTTP servers. Nothing here loads weights into memory.

Read first: `store.py`, then `fetch.py`.
"""

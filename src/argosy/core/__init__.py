"""The vocabulary of Argosy: its nouns, its sockets, its errors.

Everything here is a frozen value or a Protocol. Nothing here does anything: no files, no sockets, no threads, no
clock. The other rooms meet in these types, so this room imports none of them, and no third party but msgspec.

Read first: `interfaces.py` (every plug of the product), then `errors.py` (every way to fail), then
`sampling.py` and `generation.py` (what an engine is asked and what it answers).

Values are `msgspec.Struct(frozen=True, kw_only=True)`. Bytes and YAML become these types once, at the door; past
the door nothing is validated again. Units live in names: `timeout_seconds`, `memory_bytes`, `usage_ratio` (0..1).
"""

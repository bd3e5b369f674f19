"""How Argosy uses the network to bring models in."""

from __future__ import annotations

import msgspec


class NetworkSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where hubs are and how hard to pull.

    hf_endpoint, ms_endpoint: the hubs, or a mirror of them. num_connections: requests at once.
    range_bytes: what one request of a big file asks for. num_attempts: tries without progress before giving up.
    timeout_seconds: longest silence of a server. min_bytes_per_second: below it a server counts as hanging.
    allow_private_addresses: also fetch from addresses inside this network. max_file_bytes: no file may be larger.
    """

    hf_endpoint: str = "https://huggingface.co"
    ms_endpoint: str = "https://modelscope.cn"
    allow_private_addresses: bool = False
    num_connections: int = 8
    range_bytes: int = 16 * 2**20
    num_attempts: int = 5
    timeout_seconds: float = 30.0
    min_bytes_per_second: int = 16 * 2**10
    max_file_bytes: int = 2 * 2**40


DEFAULT_NETWORK = NetworkSettings()

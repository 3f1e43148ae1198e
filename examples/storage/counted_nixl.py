"""Ray's NIXL transport, with a log line for everything that it offers and fetches.

Your own transport is registered the same way: in a module that every client imports,
`backend: {storage_backend: RayStore, RayStore: {tensor_transport: counted_nixl, module: counted_nixl}}`.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

import torch
from ray.experimental.rdt import util
from ray.experimental.rdt.nixl_tensor_transport import NixlTensorTransport

NAME = "COUNTED_NIXL"


class CountedNixl(NixlTensorTransport):
    """NIXL that counts bytes."""

    offered: ClassVar[int] = 0
    fetched: ClassVar[int] = 0

    def tensor_transport_backend(self) -> str:
        """Its name."""
        return NAME

    def extract_tensor_transport_metadata(self, obj_id: str, rdt_object: list[Any]) -> Any:
        """Offer tensors by registering their memory."""
        size = sum(tensor.nbytes for tensor in rdt_object)
        CountedNixl.offered += size
        print(f"transport: process {os.getpid()} offers {size} bytes as {obj_id[-16:]}", flush=True)
        return super().extract_tensor_transport_metadata(obj_id, rdt_object)

    def fetch_multiple_tensors(self, obj_id: str, *arguments: Any, **options: Any) -> Any:
        """Read tensors from the memory of the process that offered them."""
        request = super().fetch_multiple_tensors(obj_id, *arguments, **options)
        size = sum(tensor.nbytes for tensor in request.tensors)
        CountedNixl.fetched += size
        print(f"transport: process {os.getpid()} reads {size} bytes of {obj_id[-16:]}", flush=True)
        return request


util._ensure_default_transports_registered()
if NAME not in util.transport_manager_info:
    util.register_tensor_transport(NAME, ["cuda", "cpu"], CountedNixl, torch.Tensor)

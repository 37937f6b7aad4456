"""The Hugging Face Hub: names there, downloads, repositories that are written to, and what can go wrong.

Everything that goes over the network is `huggingface_hub`'s, which is imported only where it is used.
"""

from medusa_decoding.hub.ids import HubId

__all__ = ["HubId"]

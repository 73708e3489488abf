"""Kinds of errors that say nothing about the user's code: ranks write them, the driver reads them."""

from __future__ import annotations

PEER_LOST = "PeerLost"
"""A rank only noticed that another one was gone."""
LOADER_KILLED = "LoaderKilled"
"""A loader process of a rank ended without a word: by a signal, most often the kernel's for want of memory."""

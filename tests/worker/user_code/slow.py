"""Data and a model that take their time, on the ranks that the environment names."""

import os
import time

from data import Points
from model import network

RANK = os.environ.get("RANK", "0")
SLOW_RANKS = os.environ.get("SLOW_RANKS", "").split(",")


def slow_down(seconds):
    if RANK in SLOW_RANKS:
        time.sleep(seconds)


class SlowPoints(Points):
    """Slow for its first `slow_items`."""

    def __init__(self, size, delay_s, slow_items=10**9):
        super().__init__(size)
        self.delay_s, self.slow_items = delay_s, slow_items

    def __getitem__(self, index):
        self.slow_items -= 1
        if self.slow_items >= 0:
            slow_down(self.delay_s)
        return super().__getitem__(index)


def slow_network(all_s, slow_s=0.0):
    """Every forward pass takes `all_s`, on slow ranks `slow_s` more."""
    made = network()

    def take_time(*_):
        time.sleep(all_s)
        slow_down(slow_s)

    made.register_forward_pre_hook(take_time)
    return made

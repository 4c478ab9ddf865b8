"""Whole batches as numpy arrays: python examples/python/batches.py ENDPOINT [COUNT]

Of a publisher with `format=columns`: which user made how many calls.
"""

import sys

import numpy as np

import headrace

endpoint, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0
calls: dict[int, int] = {}
seen = 0
with headrace.Subscriber(endpoint) as subscriber:
    for message in subscriber.messages():
        if isinstance(message, headrace.Gap):
            continue
        users, numbers = np.unique(message.data["uid"], return_counts=True)
        for user, number in zip(users.tolist(), numbers.tolist(), strict=True):
            calls[user] = calls.get(user, 0) + number
        seen += len(message)
        if count and seen >= count:
            break
for user, number in sorted(calls.items()):
    print(user, number)

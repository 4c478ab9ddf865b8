"""Events of a publisher as they come: python examples/python/subscribe.py ENDPOINT [COUNT]"""

import sys

import headrace

endpoint, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0
with headrace.Subscriber(endpoint, ["execve"]) as events:
    for number, event in enumerate(events, 1):
        if isinstance(event, headrace.Gap):
            print(f"missed {event.missed} messages", file=sys.stderr)
        else:
            print(event["timestamp"], event["processName"], event["returnValue"])
        if number == count:
            break

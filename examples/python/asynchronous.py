"""The same within asyncio: python examples/python/asynchronous.py ENDPOINT [COUNT]"""

import asyncio
import sys

import headrace


async def main(endpoint: str, count: int) -> None:
    number = 0
    async with headrace.AsyncSubscriber(endpoint, ["execve"]) as events:
        async for event in events:
            if isinstance(event, headrace.Gap):
                print(f"missed {event.missed} messages", file=sys.stderr)
            else:
                print(event["timestamp"], event["processName"], event["returnValue"])
            number += 1
            if number == count:
                break


asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0))

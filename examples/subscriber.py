"""A subscriber in plain pyzmq: python examples/subscriber.py ENDPOINT [COUNT]"""
import json, sys, zmq  # noqa: E401
endpoint, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0
socket = zmq.Context().socket(zmq.SUB)
socket.connect(endpoint)
socket.setsockopt(zmq.SUBSCRIBE, b"all/")
events, gaps, expected = 0, 0, None
while not count or events < count:
    topic, header, lines = socket.recv_multipart()
    about = json.loads(header)
    gaps += expected is not None and about["sequence"] != expected
    expected = about["sequence"] + 1
    events += about["count"]
    sys.stdout.write(lines.decode())
print(f"events {events}  gaps {gaps}", file=sys.stderr)

"""A subscriber in plain pyzmq: python examples/subscriber.py ENDPOINT [COUNT [SERVER_KEY_FILE CLIENT_SECRET_FILE]]"""

import json
import sys

import zmq
from zmq.auth import load_certificate

endpoint, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0
socket = zmq.Context().socket(zmq.SUB)
if len(sys.argv) > 4:
    socket.curve_serverkey = load_certificate(sys.argv[3])[0]
    socket.curve_publickey, socket.curve_secretkey = load_certificate(sys.argv[4])
socket.connect(endpoint)
socket.setsockopt(zmq.SUBSCRIBE, b"all/")
events = missed = expected = 0
while not count or events < count:
    topic, header, lines = socket.recv_multipart()
    about = json.loads(header)
    missed += max(0, about["sequence"] - expected) if events else 0
    expected = about["sequence"] + 1
    events += about["count"]
    sys.stdout.write(lines.decode())
print(f"events {events}  messages missed {missed}", file=sys.stderr)

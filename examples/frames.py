"""Events as polars data frames: python examples/frames.py ENDPOINT COUNT

What was opened how often, of COUNT events that a publisher with `format=arrow` sends.
"""

import io
import json
import sys

import polars
import zmq

endpoint, count = sys.argv[1], int(sys.argv[2])
socket = zmq.Context().socket(zmq.SUB)
socket.connect(endpoint)
socket.setsockopt(zmq.SUBSCRIBE, b"all/")
frames, events = [], 0
while events < count:
    topic, header, stream = socket.recv_multipart()
    frames.append(polars.read_ipc_stream(io.BytesIO(stream)))
    events += json.loads(header)["count"]
arguments = polars.concat(frames).explode("args").unnest("args")
paths = arguments.filter(polars.col("name") == "pathname").group_by("processName", "value").len().sort("len", "value")
sys.stdout.write(paths.write_csv())

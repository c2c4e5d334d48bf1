"""A classifier of clothes that answers over HTTP, and one request to it.

``python examples/service.py`` asks once and ends; with ``--stay`` it goes on answering.
"""

import json
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from agnostic_xent import SGD, compile_predictor, cross_entropy, fit, small_cnn, softmax
from agnostic_xent.datasets import load_fashion_mnist

data = load_fashion_mnist()
model, shape = small_cnn(), (1, 28, 28)
params, _ = model.init(0, shape)
task = {"loss": cross_entropy, "optimizer": SGD(0.05, momentum=0.9), "epochs": 1, "rng": 0}
params, _ = fit(model, params, (data.train_x, data.train_y), **task)

predictor = compile_predictor(model, params, shape)
softmax(predictor(np.zeros((1, *shape), "float32")))  # what is made once, before a request comes


class Handler(BaseHTTPRequestHandler):
    """Takes the bytes of a 28 x 28 picture, and answers with its most probable class."""

    def do_POST(self):
        """Answer a request."""
        pixels = np.frombuffer(self.rfile.read(28 * 28), np.uint8).astype("float32") / 255
        p = softmax(predictor(pixels.reshape(1, *shape)))[0]
        body = json.dumps({"class": int(p.argmax()), "probability": float(p.max())}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon="--stay" not in sys.argv).start()
picture, start = (data.test_x[0] * 255).astype("uint8").tobytes(), time.perf_counter()
with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}", picture) as answer:
    found = json.load(answer)
seconds = time.perf_counter() - start
print(f"class {found['class']} of {data.test_y[0]}: {found['probability']:.3f}, {seconds:.4f} s")

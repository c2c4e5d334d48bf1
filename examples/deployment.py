"""A classifier of images as an ONNX file that takes levels and knows its labels.

Needs: python -m pip install ".[onnx,sklearn]" onnxruntime
"""

import json
import tempfile

import numpy as np
import onnxruntime

from agnostic_xent import CNNClassifier, export_onnx
from agnostic_xent.datasets import load_fashion_mnist

data = load_fashion_mnist()
names = np.asarray(data.classes)
levels, new = ((255 * x).astype("uint8") for x in (data.train_x[:1000], data.test_x[:100]))
classifier = CNNClassifier(epochs=3, random_state=0).fit(levels, names[data.train_y[:1000]])

path = f"{tempfile.mkdtemp()}/clothes.onnx"
export_onnx(classifier, path)

session = onnxruntime.InferenceSession(path)  # from here on without this package
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
(probabilities,) = session.run(None, {"input": new.astype("float32")})
print("the first:", classes[probabilities[0].argmax()])
apart = np.abs(probabilities - classifier.predict_proba(new)).max()
print(f"largest difference: {apart:.1e}")

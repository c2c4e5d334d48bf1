"""Photos in a folder for each class: from files to a report.

``python examples/photos.py FOLDER`` takes your own; without one it writes some clothes into a
folder. Needs: python -m pip install ".[images,plot,sklearn]"
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image

from agnostic_xent import CNNClassifier, save_report
from agnostic_xent.datasets import load_fashion_mnist, load_images

folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
if len(sys.argv) == 1:
    clothes = load_fashion_mnist()
    for i in range(600):
        path = folder / clothes.classes[clothes.train_y[i]].replace("/", " or ") / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray((255 * clothes.train_x[i, 0]).astype("uint8")).save(path)

data = load_images(folder)
classifier = CNNClassifier(epochs=5, batch_size=32, augment="images", random_state=0)
classifier.fit(data.train_x, data.train_y)
save_report(folder / "report.html", classifier, data.test_x, data.test_y)
print(f"accuracy: {classifier.score(data.test_x, data.test_y):.3f}, see {folder}/report.html")

"""What a report says: its words, tables and pictures."""

from __future__ import annotations

import base64
import html.parser
import io

import numpy as np


class Page(html.parser.HTMLParser):
    """The words of a page, its pictures, and the rows of its tables."""

    def __init__(self, path):
        super().__init__()
        self.words, self.pictures, self.rows, self.open = [], [], [], []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)
        assert self.open == []  # every tag is closed

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.pictures.append(dict(attributes))
        elif tag != "meta":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and "style" not in self.open:
            self.words.append(data.strip())
            if self.open[-1] in ("td", "th"):
                self.rows[-1].append(data.strip())


def pixels(picture):
    from PIL import Image

    content = base64.b64decode(picture["src"].removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(content)))

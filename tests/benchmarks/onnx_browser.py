"""Compare an exported model in a browser (onnxruntime-web in headless Chromium) with ONNX Runtime in Python.

    python tests/benchmarks/onnx_browser.py ONNX_FOLDER DATASET

Needs npm and chromium. Prints the largest difference of a probability for 100 validation faces and fails above 1e-3,
for int8 above 0.02.
"""

import base64
import functools
import http.server
import json
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

from fer_ray.dataset.store import PreparedDataset
from fer_ray.inference.network import OnnxModel
from fer_ray.storage.inputs import INT8_FILE

FACES = 100
PAGE = """<!doctype html><pre id="result">waiting</pre>
<script src="node_modules/onnxruntime-web/dist/ort.min.js"></script>
<script>
(async () => {
  try {
    ort.env.wasm.wasmPaths = "/node_modules/onnxruntime-web/dist/";
    ort.env.wasm.numThreads = 1;
    const bytes = Uint8Array.from(atob("FACES"), (letter) => letter.charCodeAt(0));
    const session = await ort.InferenceSession.create("MODEL");
    const pixels = new ort.Tensor("uint8", bytes, [COUNT, SIZE, SIZE]);
    const { probabilities } = await session.run({ pixels });
    result.textContent = JSON.stringify({ probabilities: Array.from(probabilities.data) });
  } catch (error) {
    result.textContent = JSON.stringify({ error: String(error) });
  }
})();
</script>"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Print nothing for a request."""


def main() -> None:
    models, data = Path(sys.argv[1]), PreparedDataset(sys.argv[2])
    faces = np.ascontiguousarray(data.load("validation").images[:FACES])
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run(["npm", "install", "--silent", "onnxruntime-web"], cwd=temporary, check=True)
        handler = functools.partial(Quiet, directory=temporary)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for file in sorted(models.glob("*.onnx")):
            (Path(temporary) / file.name).write_bytes(file.read_bytes())
            text = PAGE.replace("FACES", base64.b64encode(faces.tobytes()).decode()).replace("MODEL", file.name)
            text = text.replace("COUNT", str(len(faces))).replace("SIZE", str(faces.shape[1]))
            (Path(temporary) / "page.html").write_text(text)
            found = json.loads(dom(f"http://127.0.0.1:{server.server_port}/page.html", temporary))
            if "error" in found:
                sys.exit(f"{file.name}: {found['error']}")
            expected = OnnxModel(file).probabilities(faces)
            difference = float(np.abs(np.reshape(found["probabilities"], expected.shape) - expected).max())
            print(f"{file.name}: {len(faces)} faces, largest difference of a probability {difference:.1e}")
            failed |= difference > (0.02 if file.name == INT8_FILE else 1e-3)  # int8 kernels round differently
    sys.exit(failed)


def dom(url: str, folder: str) -> str:
    """Return the text of the page's result once it is there."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
    arguments = ["chromium", *options, "--virtual-time-budget=60000", "--timeout=60000", "--dump-dom", url]
    page = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    return re.search(r'<pre id="result">(.*?)</pre>', page, re.DOTALL)[1]  # type: ignore[index]


if __name__ == "__main__":
    main()

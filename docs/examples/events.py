"""See a picture as it forms: python events.py "a red circle" circle [URL] writes circle-0.jpg … circle.png, by HTTP."""

import base64
import json
import sys
import urllib.request
from pathlib import Path

prompt, name, url = [*sys.argv[1:], "http://127.0.0.1:12411"][:3]
headers = {"Content-Type": "application/json"}
body = json.dumps({"prompt": prompt, "previews": 4}).encode()
with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/jobs", body, headers)) as answer:
    links = json.load(answer)["links"]
with urllib.request.urlopen(url + links["events"]) as stream:  # after a cut, say its last id as Last-Event-ID
    for line in stream:
        if not line.startswith(b"data: "):
            continue
        event = json.loads(line.removeprefix(b"data: "))
        if event["type"] == "job.preview":
            suffix = event["format"].replace("jpeg", "jpg")
            Path(f"{name}-{event['index']}.{suffix}").write_bytes(base64.b64decode(event["b64_json"]))
            print("after step", event["step"], "of", event["steps"])
if event["type"] != "job.done":  # job.failed, job.cancelled, error
    sys.exit(json.dumps(event.get("job", event)["error"]))
with urllib.request.urlopen(url + links["image"]) as answer:
    Path(f"{name}.{event['job']['image']['format']}").write_bytes(answer.read())

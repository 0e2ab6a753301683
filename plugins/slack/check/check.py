"""Has Slack's own Python client call the same methods with the same arguments, against a recorder on loopback, and
compares: method, path, where the arguments stand, how they are encoded, and the authorization."""

import inspect
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from urllib.parse import parse_qsl, urlsplit

from slack_sdk import WebClient

TOKEN = "recorded"
BASE = "https://slack.com/api/"
UPLOADS = "https://files.slack.com/"


class Recorder(BaseHTTPRequestHandler):
    """Keeps what arrives, and answers like Slack."""

    arrivals = []

    def record(self):
        length = int(self.headers.get("content-length") or 0)
        Recorder.arrivals.append(
            {
                "method": self.command,
                "url": self.path,
                "content_type": self.headers.get("content-type"),
                "body": self.rfile.read(length).decode(),
                "authorization": self.headers.get("authorization"),
            }
        )
        answer = {"ok": True, "file_id": "F1", "files": [{"id": "F1"}], "upload_url": f"{self.server.url}upload/v1/x"}
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    do_GET = do_POST = record

    def log_message(self, *_):
        pass


class Client(WebClient):
    """Notes the verb that the client declares for a method. This client, which does without further packages, sends
    every method as a POST with a form; Slack's asynchronous one, of the same declarations, asks by GET where they say so."""

    verb = None

    def api_call(self, api_method, *, http_verb="POST", **rest):
        self.verb = http_verb
        return super().api_call(api_method, http_verb=http_verb, **rest)


def arguments(method, url, content_type, body, authorization):
    """What of a request has to be the same."""
    media_type = (content_type or "").split(";")[0] or None
    query = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    if media_type == "application/json":
        fields = json.loads(body)
    elif media_type == "application/x-www-form-urlencoded":
        fields = dict(parse_qsl(body, keep_blank_values=True))
    else:
        fields = {}
    return {
        "method": method,
        "path": urlsplit(url).path.rsplit("/", 1)[-1],
        "media type": media_type if method == "POST" else None,
        "query": {name: plain(value) for name, value in query.items()},
        "body": {name: plain(value) for name, value in fields.items()},
        "authorization": authorization,
    }


def plain(value):
    """The client writes truth as 1 and 0 where it is text; Slack takes either. JSON within a form is told by its value."""
    if value in ("true", "false"):
        return "1" if value == "true" else "0"
    if isinstance(value, str) and value[:1] in "[{":
        return json.loads(value)
    return value


def typed(value):
    """An argument as a caller of the client gives it."""
    if value in ("true", "false"):
        return value == "true"
    return plain(value)


def recorded(call):
    Recorder.arrivals.clear()
    call()
    return list(Recorder.arrivals)


def compare(client, request):
    """What is wrong with a request; nothing where it fits."""
    headers = {name.lower(): value for name, value in request["headers"]}
    authorization = headers.get("authorization")
    sent = {name: request[name] for name in ("method", "url", "content_type", "body")}
    sent["authorization"] = authorization and authorization.replace("{bot_token}", TOKEN)
    if request["url"].startswith(UPLOADS):
        upload = lambda: client.files_upload_v2(channel="C1", filename="x", content=request["body"])
        theirs = recorded(upload)[1]
        same = ("method", "body", "authorization")  # raw bytes: either side names a media type of its own
        return differences({what: sent[what] for what in same}, theirs)
    ours = arguments(**sent)
    if not request["url"].startswith(BASE):
        return [f"is not below {BASE}"]
    name = ours["path"].replace(".", "_")
    method = getattr(client, name, None)
    if method is None:
        return [f"the client has no method {name}"]
    given = {key: typed(value) for key, value in {**ours["query"], **ours["body"]}.items()}
    known = inspect.signature(method).parameters
    unknown = [key for key in given if key not in known]
    if unknown:
        return [f"the client's method does not know {', '.join(unknown)}"]
    try:
        theirs = recorded(lambda: method(**given))
    except TypeError as error:
        return [str(error)]
    theirs = arguments(**theirs[0])
    if client.verb == "GET":
        theirs.update({"method": "GET", "media type": None, "query": theirs["body"], "body": {}})
    return differences(ours, theirs)


def differences(ours, theirs):
    return [f"{what}: ours {ours[what]!r}, the client's {theirs[what]!r}" for what in ours if ours[what] != theirs[what]]


def main():
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]  # the recorder is on this machine
    server = HTTPServer(("127.0.0.1", 0), Recorder)
    server.url = f"http://127.0.0.1:{server.server_port}/"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = Client(token=TOKEN, base_url=f"{server.url}api/")
    requests = json.load(sys.stdin)
    found = []
    for request in requests:
        for wrong in compare(client, request):
            found.append(f"slack: {request['action']}, `{request['example']}`: {request['method']} {request['url']}: {wrong}")
    server.shutdown()
    if found or not requests:
        sys.exit("\n".join(found) or "slack: no request to check")
    print(f"slack: {len(requests)} requests are those of slack_sdk {version('slack_sdk')} (Python)")


main()

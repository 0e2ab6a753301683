"""Holds each request against Google's discovery document of the Gmail API: method, path, query, headers, JSON body, and
whether the scope that the sign-in asks for allows it. Python's own mail parser must read the messages without a defect."""

import base64
import copy
import email
import email.policy
import json
import re
import sys
from importlib.metadata import version
from importlib.resources import files
from urllib.parse import parse_qsl, unquote, urlsplit

SCOPE = "https://www.googleapis.com/auth/gmail.modify"
DOCUMENT = json.loads(files("googleapiclient.discovery_cache").joinpath("documents/gmail.v1.json").read_text())
LINE_BYTES_MAX = 998  # RFC 5322, 2.1.1


class Misfit(Exception):
    """What does not fit the description."""


def demand(holds, problem):
    if not holds:
        raise Misfit(problem)


def methods(resource=DOCUMENT):
    yield from resource.get("methods", {}).values()
    for inner in resource.get("resources", {}).values():
        yield from methods(inner)


def literals(path):
    return sum(not segment.startswith("{") for segment in path.split("/"))


def find_method(verb, path):
    """The method whose template fits; of several, the one with fewest parameters, as a server would choose."""
    fitting = []
    for method in methods():
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(method["path"]))
        match = re.fullmatch(pattern, path)
        if match and method["httpMethod"] == verb:
            fitting.append((literals(method["path"]), method, match.groupdict()))
    demand(fitting, f"the API has no method {verb} {path}")
    _, method, parameters = max(fitting, key=lambda fit: fit[0])
    return method, parameters


def check_value(value, kind, place):
    """One value of the path or the query, which is text there."""
    if kind["type"] == "integer":
        demand(re.fullmatch(r"-?\d+", value), f"{place} must be an integer: {value}")
        demand(int(kind.get("minimum", value)) <= int(value) <= int(kind.get("maximum", value)), f"{place} is out of range: {value}")
    if kind["type"] == "boolean":
        demand(value in ("true", "false"), f"{place} must be true or false: {value}")
    demand("enum" not in kind or value in kind["enum"], f"{place} must be one of {kind.get('enum')}: {value}")
    demand("pattern" not in kind or re.search(kind["pattern"], value), f"{place} must fit {kind.get('pattern')}: {value}")


def check_parameters(method, path, query):
    known = {**DOCUMENT["parameters"], **method["parameters"]}
    for name, value in path.items():
        demand(known[name]["location"] == "path", f"{name} is no parameter of the path")
        check_value(unquote(value), known[name], name)
    for name, value in query:
        demand(known.get(name, {}).get("location") == "query", f"{method['id']} takes no query parameter {name}")
        check_value(value, known[name], name)
        demand(known[name].get("repeated") or [n for n, _ in query].count(name) == 1, f"{name} stands there twice")
        if name == "fields":
            check_fields(value, method["response"]["$ref"])
    given = {*path, *(name for name, _ in query)}
    for name, kind in known.items():
        demand(not kind.get("required") or name in given, f"{method['id']} needs {name}")


def check_fields(selector, schema):
    for path in selector.split(","):
        kind = {"$ref": schema}
        for name in path.split("/"):
            kind = DOCUMENT["schemas"][kind["$ref"]] if "$ref" in kind else kind
            kind = kind.get("properties", {}).get(name)
            demand(kind is not None, f"`fields` asks for {path}, which {schema} does not have")


TYPES = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict}


def check_json(value, schema, place, method):
    if "$ref" in schema:
        schema = DOCUMENT["schemas"][schema["$ref"]]
    demand(type(value) is TYPES[schema["type"]], f"{place} must be of type {schema['type']}: {value!r:.80}")
    demand("enum" not in schema or value in schema["enum"], f"{place} must be one of {schema.get('enum')}: {value}")
    if schema.get("format") == "byte":
        check_mail(value, place)
    if schema["type"] == "array":
        for index, item in enumerate(value):
            check_json(item, schema["items"], f"{place}/{index}", method)
    if schema["type"] == "object":
        known = schema.get("properties", {})
        for name, item in value.items():
            demand(name in known, f"{place or 'the body'} takes no {name}")
            check_json(item, known[name], f"{place}/{name}", method)
        for name, kind in known.items():
            is_needed = method["id"] in kind.get("annotations", {}).get("required", [])
            is_needed = is_needed or f"@required {method['id']}" in kind.get("description", "")
            demand(not is_needed or name in value, f"{method['id']} needs {place}/{name}")


def check_mail(raw, place):
    demand(re.fullmatch(r"[A-Za-z0-9_-]*={0,2}", raw), f"{place} is no base64url")
    mail = base64.urlsafe_b64decode(raw)
    demand(b"\n" not in mail.replace(b"\r\n", b"") and b"\r" not in mail.replace(b"\r\n", b""), f"{place} has lines that do not end in CRLF")
    demand(max(map(len, mail.split(b"\r\n"))) <= LINE_BYTES_MAX, f"{place} has a line of more than {LINE_BYTES_MAX} bytes")
    demand(mail.isascii(), f"{place} is not ASCII")
    message = email.message_from_bytes(mail, policy=email.policy.strict)
    for name in ("Date", "Subject", "MIME-Version", "Content-Type"):
        demand(len(message.get_all(name, [])) == 1, f"{place} has not one {name}")
    for part in message.walk():
        for name, value in part.items():
            demand(not value.defects, f"{place}: {name} has defects: {value.defects}")
        part.get_content() if not part.is_multipart() else None


def check_request(request):
    root = DOCUMENT["rootUrl"] + DOCUMENT["servicePath"]
    demand(request["url"].startswith(root), f"the API is at {root}")
    url = urlsplit(request["url"])
    method, path = find_method(request["method"], url.path.removeprefix("/"))
    check_parameters(method, path, parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query)))
    demand(request["headers"] == [["Authorization", "Bearer {access_token}"]], "the token alone goes into the headers")
    demand(SCOPE in method["scopes"], f"{method['id']} is not allowed by {SCOPE}")
    demand(request["form"] == [], "the API takes no form")
    if "request" in method:
        demand((request["content_type"] or "").split(";")[0] == "application/json", f"{method['id']} takes JSON")
        check_json(json.loads(request["body"]), method["request"], "", method)
    else:
        demand(request["body"] == "" and request["content_type"] is None, f"{method['id']} takes no body")
    return method["id"]


def check_that_misfits_are_found(requests):
    """The check itself: each of these changes must be noticed."""

    def of(action):
        return copy.deepcopy(next(request for request in requests if request["action"] == action))

    def mail(text):
        request = of("send_message")
        return {**request, "body": json.dumps({"raw": base64.urlsafe_b64encode(text).decode()})}

    searched, labelled, sent = of("search_messages"), of("label_message"), of("send_message")
    misfits = [
        {**searched, "method": "POST"},
        {**searched, "url": searched["url"].replace("messages", "mails")},
        {**searched, "url": searched["url"] + "&page=2"},
        {**searched, "url": searched["url"].replace("maxResults=", "maxResults=x")},
        {**searched, "headers": []},
        {**labelled, "body": labelled["body"].replace("removeLabelIds", "remove_label_ids")},
        {**labelled, "body": '{"addLabelIds":"INBOX"}'},
        {**labelled, "content_type": "text/plain"},
        {**sent, "body": "{}"},
        mail(b"Subject: x\r\n\r\nx"),
        mail(b"Date: Thu, 26 Nov 2026 15:00:00 +0000\r\nSubject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\na\nb"),
    ]
    for misfit in misfits:
        try:
            check_request(misfit)
        except Misfit:
            continue
        sys.exit(f"gmail: the check lets this pass: {misfit}")


requests = json.load(sys.stdin)
check_that_misfits_are_found(requests)
seen, red = set(), False
for request in requests:
    try:
        seen.add(check_request(request))
    except (Misfit, email.errors.MessageDefect) as misfit:
        red = True
        print(f"gmail: {request['action']}, `{request['example']}`: {misfit}", file=sys.stderr)
if red:
    sys.exit(1)
print(
    f"gmail: {len(requests)} requests fit {DOCUMENT['id']} (revision {DOCUMENT['revision']}, google-api-python-client "
    f"{version('google-api-python-client')}), {len(seen)} of its methods"
)

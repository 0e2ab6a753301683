"""Has pywa, a client library of the Cloud API, do the same as each example, with a recorder in the place of the
network, and compares: method, URL, query, authorization, and every field of the JSON or the form."""

import json
import sys
from email import message_from_bytes
from urllib.parse import parse_qsl, urlsplit

import httpx
import pywa
from pywa import WhatsApp
from pywa.types import Button, Pagination
from pywa.types.templates import (
    BodyText,
    CopyCodeButton,
    HeaderDocument,
    HeaderText,
    QuickReplyButton,
    TemplateLanguage,
    TemplateStatus,
    URLButton,
)

TO = "+16505551234"
QUOTED = "wamid.HBgLMTY1MDM4Nzk0MzkVAgASGBQz"
MEDIA = "1013859600285441"
NUMBER = "106540352242922"
ACCOUNT = "102290129340398"
URL = "https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid=1&ext=2&hash=3"

# What the library does for an example, by its action and title; for each request of it one.
SAME = {
    ("send_text", "A text"): [lambda wa: wa.send_message(TO, "Your order is ready.")],
    ("send_text", "Reply with a link"): [
        lambda wa: wa.send_message(TO, "See https://example.com/q4", preview_url=True, reply_to_message_id=QUOTED)
    ],
    ("send_template", "Without anything to fill in"): [
        lambda wa: wa.send_template(TO, "hello_world", TemplateLanguage.ENGLISH_US)
    ],
    ("send_template", "Filled in"): [
        lambda wa: wa.send_template(
            TO,
            "order_shipped",
            TemplateLanguage.GERMAN,
            [
                HeaderDocument.params(document="https://example.com/invoice.pdf", filename="invoice.pdf"),
                BodyText.params("Ada", "4711"),
                URLButton.params(url_variable="4711", index=0),
                QuickReplyButton.params(callback_data="stop", index=1),
            ],
        )
    ],
    ("send_template", "With names and a code"): [
        lambda wa: wa.send_template(
            TO,
            "autumn_sale",
            TemplateLanguage.ENGLISH,
            [
                HeaderText.params(season="Autumn"),
                BodyText.params(discount="25%"),
                CopyCodeButton.params(coupon_code="25OFF", index=0),
            ],
        )
    ],
    ("send_media", "An image from a link"): [lambda wa: wa.send_image(TO, "https://example.com/chart.png", caption="Q4")],
    ("send_media", "An uploaded document"): [
        lambda wa: wa.send_document(TO, MEDIA, filename="q4.pdf", reply_to_message_id=QUOTED)
    ],
    ("send_media", "Audio"): [lambda wa: wa.send_audio(TO, MEDIA)],
    ("send_buttons", "Yes or no"): [
        lambda wa: wa.send_message(
            TO, "Does Friday suit you?", footer="Example Ltd", buttons=[Button("Yes", "yes"), Button("No", "no")]
        )
    ],
    ("send_location", "The office"): [
        lambda wa: wa.send_location(TO, 52.52, 13.405, "Office", "Alexanderplatz 1, Berlin")
    ],
    ("send_reaction", "Agree"): [lambda wa: wa.send_reaction(TO, "👍", QUOTED)],
    ("mark_read", "Read"): [lambda wa: wa.mark_message_as_read(QUOTED)],
    ("mark_read", "Read, and writing"): [lambda wa: wa.indicate_typing(QUOTED)],
    ("upload_media", "A document"): [
        lambda wa: wa.upload_media(b"Q4 is done", mime_type="text/plain", filename="q4.txt")
    ],
    ("get_media", "A file"): [lambda wa: wa.get_media_url(MEDIA)],
    ("get_media", "A file of this number alone"): [lambda wa: wa.get_media_url(MEDIA)],
    ("download_media", "A file"): [lambda wa: wa.get_media_url(MEDIA), lambda wa: wa.get_media_bytes(URL)],
    ("delete_media", "Delete"): [lambda wa: wa.delete_media(MEDIA, phone_id=NUMBER)],
    ("list_templates", "The approved ones"): [
        lambda wa: wa.get_templates(statuses=[TemplateStatus.APPROVED], pagination=Pagination(limit=20))
    ],
    ("list_templates", "By name"): [
        lambda wa: wa.get_templates(name="order", pagination=Pagination(after="MjQZD", limit=25))
    ],
    ("list_phone_numbers", "All"): [lambda wa: wa.get_business_phone_numbers(pagination=Pagination(limit=25))],
    ("get_profile", "The profile"): [lambda wa: wa.get_business_profile()],
    ("update_profile", "Opening hours"): [
        lambda wa: wa.update_business_profile(about="Mo-Fr 9-17", websites=["https://example.com"])
    ],
}

# Enough of an answer for what the library reads of it.
ANSWER = {
    "id": MEDIA,
    "success": True,
    "messages": [{"id": "wamid.1"}],
    "contacts": [{"input": TO, "wa_id": "16505551234"}],
    "url": URL,
    "mime_type": "image/jpeg",
    "sha256": "00",
    "file_size": 5,
    "data": [],
    "summary": {
        "total_count": 0,
        "message_template_count": 0,
        "message_template_limit": 250,
        "are_translations_complete": True,
    },
}
PROFILE = {"data": [{"messaging_product": "whatsapp", "vertical": "OTHER"}]}


def recorded(call):
    """The request that the library makes."""
    arrivals = []

    def answer(request):
        arrivals.append(request)
        return httpx.Response(200, json=PROFILE if "profile" in request.url.path and request.method == "GET" else ANSWER)

    session = httpx.Client(transport=httpx.MockTransport(answer))
    call(WhatsApp(phone_id=NUMBER, token="{access_token}", waba_id=ACCOUNT, session=session))
    (request,) = arrivals
    body, kind = request.read(), request.headers.get("content-type", "")
    return {
        "method": request.method,
        "url": str(request.url),
        "authorization": request.headers["authorization"],
        "json": json.loads(body) if kind.startswith("application/json") else None,
        "form": form_of(kind, body) if kind.startswith("multipart/form-data") else None,
    }


def form_of(kind, body):
    """Name, file name, type of a file, and content of each field."""
    message = message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    return sorted(
        (
            part.get_param("name", header="content-disposition"),
            part.get_filename(),
            part.get_payload(decode=True).decode(),
        )
        for part in message.get_payload()
    )


def ours(request):
    """The same of an adapter's request."""
    is_json = (request["content_type"] or "").startswith("application/json")
    form = sorted((f["name"], f["file_name"], f["text"]) for f in request["form"]) or None
    return {
        "method": request["method"],
        "url": request["url"],
        "authorization": dict(request["headers"])["Authorization"],
        "json": json.loads(request["body"]) if is_json else None,
        "form": form,
    }


def usual(value, key=None):
    """Spelt alike: Meta takes kinds of components in any case, and shows no preview unless told."""
    if isinstance(value, dict):
        return {k: usual(v, k) for k, v in value.items() if (k, v) != ("preview_url", False)}
    if isinstance(value, list):
        return [usual(item) for item in value]
    return value.lower() if key in ("type", "sub_type") and isinstance(value, str) else value


def differences(mine, library):
    at, reference = urlsplit(mine["url"]), urlsplit(library["url"])
    yield from unlike("method", mine["method"], library["method"])
    yield from unlike("URL", at._replace(query="").geturl(), reference._replace(query="").geturl())
    yield from unlike("authorization", mine["authorization"], library["authorization"])
    yield from unlike("JSON", usual(mine["json"]), usual(library["json"]))
    yield from unlike("form", mine["form"], library["form"])
    query, known = dict(parse_qsl(at.query)), dict(parse_qsl(reference.query))
    known.pop("summary", None)  # counts, which are not asked for
    if mine["method"] == "GET" and at.path.endswith(f"/{MEDIA}"):
        query.pop("phone_number_id", None)  # Meta documents it for reading as for deleting; the library has it there alone
    unknown = set(filter(None, query.pop("fields", "").split(","))) - set(known.pop("fields", "").split(","))
    yield from (f"asks for the field {name}, which the library does not know" for name in sorted(unknown))
    yield from unlike("query", query, known)


def unlike(what, mine, library):
    if mine != library:
        yield f"{what}: {mine}, where the library has {library}"


def check(requests):
    """What is wrong, a line each."""
    waiting = {key: list(calls) for key, calls in SAME.items()}
    for request in requests:
        key = (request["action"], request["example"])
        if not waiting.get(key):
            yield f"{key[0]}, `{key[1]}`: nothing of the library to compare it with"
            continue
        for difference in differences(ours(request), recorded(waiting[key].pop(0))):
            yield f"{key[0]}, `{key[1]}`: {difference}"
    yield from (f"{key[0]}, `{key[1]}`: makes fewer requests than the library" for key, left in waiting.items() if left)


def check_that_misfits_are_found(requests):
    """The check itself: each of these changes must be noticed."""
    changes = [
        ("send_text", lambda r: r.update(method="PUT")),
        ("send_text", lambda r: r.update(url=r["url"].replace("/messages", "/message"))),
        ("send_text", lambda r: r.update(body=r["body"].replace('"body"', '"text"'))),
        ("send_text", lambda r: r.update(headers=[["Authorization", "{access_token}"]])),
        ("send_template", lambda r: r.update(body=r["body"].replace("language", "locale"))),
        ("upload_media", lambda r: r.update(form=r["form"][1:])),
        ("list_templates", lambda r: r.update(url=r["url"].replace("status=", "state="))),
        ("list_templates", lambda r: r.update(url=r["url"].replace("category", "categories"))),
        ("delete_media", lambda r: r.update(url=r["url"].split("?")[0])),
    ]
    for action, change in changes:
        copies = [json.loads(json.dumps(request)) for request in requests]
        change(next(request for request in copies if request["action"] == action))
        if not list(check(copies)):
            sys.exit(f"whatsapp: the check lets a changed {action} pass")


requests = json.load(sys.stdin)
red = list(check(requests))
if red or not requests:
    sys.exit("\n".join(f"whatsapp: {line}" for line in red) or "whatsapp: there are no requests")
check_that_misfits_are_found(requests)
print(f"whatsapp: {len(requests)} requests are those of pywa {pywa.__version__}, Graph API {pywa.utils.Version.GRAPH_API}")

//! The Graph API's manners (<https://developers.facebook.com/docs/graph-api/guides/error-handling>): a version in the
//! path, objects by id below it, and refusals as `{error: {code, message, error_data: {details}}}`.

use crate::{ACCESS_TOKEN, API_VERSION, BASE_URL};
use serde_json::Value;
use servicetsunami_plugin::{Call, Failure, FormField, Reply, Request, Stop, delete, get, post};

/// Waited after an outage, and after 429 without a code that is known, in milliseconds.
const RETRY_AFTER_DEFAULT_MS: u64 = 30_000;
/// Waited where an hour's calls are used up and Meta does not say for how long, in milliseconds.
const RETRY_AFTER_HOURLY_MS: u64 = 300_000;
/// Waited where a number sends more in a second than it may, in milliseconds.
const RETRY_AFTER_THROUGHPUT_MS: u64 = 5_000;
/// One number may send another one a message each six seconds.
const RETRY_AFTER_PAIR_MS: u64 = 6_000;
/// Waited where too many people blocked the number or reported it, in milliseconds.
const RETRY_AFTER_SPAM_MS: u64 = 3_600_000;
/// Where media are kept, a request that does not say what makes it is turned away.
const USER_AGENT: &str = concat!("servicetsunami-whatsapp/", env!("CARGO_PKG_VERSION"));
/// Codes of refusals that pass.
const OUTAGES: [&str; 5] = ["1", "2", "131000", "131016", "131057"];
/// Headers in which Meta says how many minutes it takes until calls are taken again.
const USAGE_HEADERS: [&str; 2] = ["x-business-use-case-usage", "x-app-usage"];

/// A request for an object, or for what hangs on it: `at(call, get, phone_number_id, "/messages")`.
fn at(call: &Call, verb: fn(String) -> Request, id: &str, edge: &str) -> Request {
    let version = call.setting("api_version").unwrap_or(API_VERSION);
    verb(call.base_url(BASE_URL))
        .path(version)
        .path(id)
        .raw_path(edge)
        .bearer(ACCESS_TOKEN)
}

/// Asks for an object, with parameters in the query.
pub fn read(
    call: &mut Call,
    id: &str,
    edge: &str,
    query: &[(&str, Option<String>)],
) -> Result<Value, Stop> {
    let mut request = at(call, get, id, edge);
    for (name, value) in query {
        request = request.query_opt(name, value.as_deref());
    }
    let reply = call.send(request)?;
    readable(&reply, accepted)
}

/// An outage is a pause where nothing can have happened; but Meta says 500 of some refusals as well.
fn readable<T>(reply: &Reply, accepted: fn(&Reply) -> Result<T, Stop>) -> Result<T, Stop> {
    let is_lasting = |stop: &Stop| matches!(stop, Stop::Fail(Failure::Refused(refusal)) if !OUTAGES.contains(&refusal.code.as_str()));
    match accepted(reply) {
        Err(stop) if reply.status() >= 500 && !is_lasting(&stop) => Err(Stop::later(
            reply.status().to_string(),
            "Meta has an outage",
            RETRY_AFTER_DEFAULT_MS,
        )),
        answer => answer,
    }
}

pub fn write(call: &mut Call, id: &str, edge: &str, body: &Value) -> Result<Value, Stop> {
    let request = at(call, post, id, edge).json(body);
    let reply = call.send(request)?;
    accepted(&reply)
}

pub fn upload(
    call: &mut Call,
    id: &str,
    edge: &str,
    fields: Vec<FormField>,
) -> Result<Value, Stop> {
    let request = at(call, post, id, edge).form(fields);
    let reply = call.send(request)?;
    accepted(&reply)
}

pub fn remove(call: &mut Call, id: &str, query: &[(&str, Option<String>)]) -> Result<Value, Stop> {
    let mut request = at(call, delete, id, "");
    for (name, value) in query {
        request = request.query_opt(name, value.as_deref());
    }
    let reply = call.send(request)?;
    accepted(&reply)
}

/// The bytes at a URL that Meta gave, with the token: it must be Meta's host.
pub fn download(call: &mut Call, url: &str) -> Result<Vec<u8>, Stop> {
    let request = get(url)
        .header("User-Agent", USER_AGENT)
        .bearer(ACCESS_TOKEN);
    let reply = call.send(request)?;
    readable(&reply, |reply| match reply.is_success() {
        true => Ok(reply.body().to_vec()),
        false => Err(refused(reply)),
    })
}

fn accepted(reply: &Reply) -> Result<Value, Stop> {
    match reply.is_success() {
        true => reply.json(),
        false => Err(refused(reply)),
    }
}

fn refused(reply: &Reply) -> Stop {
    let body = match reply.json() {
        Ok(body) => body,
        Err(stop) => return stop,
    };
    let error = &body["error"];
    let (Some(code), Some(message)) = (error["code"].as_u64(), error["message"].as_str()) else {
        return Stop::unexpected(format!("status {} without `error.code`", reply.status()));
    };
    let said = match error["error_data"]["details"].as_str() {
        Some(details) if details != message => format!("{message}: {details}"),
        _ => message.to_owned(),
    };
    match (code, reply.status()) {
        (0 | 190, _) | (_, 401) => Stop::credential_rejected(
            code.to_string(),
            format!(
                "Meta does not accept the access token ({said}); make a new one for the system user and store it"
            ),
        ),
        _ => match pause_ms(code, reply) {
            Some(pause) => Stop::later(code.to_string(), explained(code, &said), pause),
            None => Stop::refused(code.to_string(), explained(code, &said)),
        },
    }
}

/// How long to wait before the same call may work; none where waiting does not help.
fn pause_ms(code: u64, reply: &Reply) -> Option<u64> {
    match code {
        4 | 80007 => Some(regained_ms(reply).unwrap_or(RETRY_AFTER_HOURLY_MS)),
        130_429 => Some(RETRY_AFTER_THROUGHPUT_MS),
        131_056 => Some(RETRY_AFTER_PAIR_MS),
        131_048 => Some(RETRY_AFTER_SPAM_MS),
        _ if reply.status() == 429 => {
            Some(reply.retry_after_ms().unwrap_or(RETRY_AFTER_DEFAULT_MS))
        }
        _ => None,
    }
}

/// The longest `estimated_time_to_regain_access`, which is in minutes, of all that the headers list.
fn regained_ms(reply: &Reply) -> Option<u64> {
    let named = |usage: &Value| usage["estimated_time_to_regain_access"].as_u64();
    let minutes = USAGE_HEADERS
        .iter()
        .filter_map(|name| serde_json::from_str::<Value>(reply.header(name)?).ok())
        .filter_map(|usage| {
            let lists = usage.as_object().into_iter().flat_map(|of| of.values());
            let inner = lists
                .filter_map(Value::as_array)
                .flatten()
                .filter_map(named)
                .max();
            inner.max(named(&usage))
        })
        .max()
        .filter(|minutes| *minutes > 0)?;
    Some(minutes.saturating_mul(60_000))
}

/// What to do about the errors that people meet (<https://developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes>).
fn explained(code: u64, said: &str) -> String {
    let hint = match code {
        3 | 10 | 200..=299 | 131_005 => {
            "give the system user whatsapp_business_messaging and whatsapp_business_management, and assign it the WhatsApp account"
        }
        4 | 80_007 => "the calls of this hour are used up",
        33 | 100 | 131_009 => "check the ids and what the parameter takes",
        368 | 131_031 | 130_497 => "Meta restricts the account: see WhatsApp Manager",
        130_429 => "the number sends more than it may in a second",
        130_472 | 131_049 => {
            "Meta holds this message back from this person; do not send it again soon"
        }
        131_021 => "a number cannot write to itself",
        131_026 => {
            "the number has no WhatsApp, an old version of it, or does not take messages from businesses"
        }
        131_030 => {
            "a test number writes to registered numbers only: add this one in the app's dashboard"
        }
        131_037 => "the display name has to be approved first, in WhatsApp Manager",
        131_042 | 131_044 => "there is a problem with the payment method: see WhatsApp Manager",
        131_045 | 133_010 => "register the phone number with the Cloud API first",
        131_047 => {
            "the person last wrote more than 24 hours ago: send a template with send_template"
        }
        131_048 => {
            "too many people blocked the number or reported it: see its quality in WhatsApp Manager"
        }
        131_050 => "the person wants no marketing messages from this business",
        131_051 => "this kind of message is not supported",
        131_052 | 131_053 => {
            "check the file's type and size, and that the link can be fetched by anybody"
        }
        131_056 => "too many messages to the same person at once",
        132_000 | 132_012 | 132_018 => {
            "the parameters do not fit those of the template: see list_templates"
        }
        132_001 => {
            "there is no approved template of this name in this language: see list_templates"
        }
        132_005 => "the filled-in text is too long",
        132_007 | 132_015 | 132_016 => "Meta stopped the template: see WhatsApp Manager",
        1 | 2 | 131_000 | 131_016 | 131_057 => "Meta could not do it now; try again later",
        _ => return said.to_owned(),
    };
    format!("{said}: {hint}")
}
